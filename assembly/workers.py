"""The workers of a process, one for each task queue, and how much each of them does at the same time."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypedDict

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import (
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
    WorkerTuner,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.failures import FailureInterceptor
from activities.generate import QUICK_BEAT
from activities.slots import POLLS, tuner
from activities.tools import LONGEST_BEAT
from assembly.connections import guarded
from assembly.registry import build_activities, workflow_types
from assembly.services import Services
from holdfast.configuration import Configuration
from holdfast.deployments import Deployment
from holdfast.gate import Gate
from holdfast.settings import EngineSettings, Settings
from workflows import steps

SHORT_STEPS = 32
"""Requests whose short steps run at the same time. More would only share the same processor, each of them slower, until
their timeouts pass; what does not fit waits in the engine. As many as share one batch of the embedding model."""

INGESTIONS = 2
"""Documents that are being taken in at the same time."""

NOTIFICATIONS = 32
"""Notifications that are being sent at the same time; those of one receiver are fewer, see `holdfast.notify`."""

GRACE = timedelta(seconds=30)
"""How long model calls in flight may finish when the worker is asked to stop."""


def build_workers(
    client: Client,
    services: Services,
    settings: Settings,
    configuration: Configuration,
    interceptors: Sequence[Interceptor] = (),
) -> list[Worker]:
    """One worker for requests, one for ingestion, one for notifications, one for each enabled deployment."""
    engine = settings.engine
    served = build_activities(client, services, settings, configuration)
    common = _Common(
        deployment_config=_version(engine),
        interceptors=[*interceptors, FailureInterceptor()],
        graceful_shutdown_timeout=GRACE,
    )
    requests = Worker(
        client,
        task_queue=engine.task_queue,
        workflows=workflow_types(pinned=bool(engine.deployment)),
        activities=served.requests,
        workflow_runner=workflow_runner(sandbox=engine.sandbox),
        # Eager dispatch would go past the rate limits of the deployments' queues.
        disable_eager_activity_execution=True,
        max_concurrent_workflow_tasks=SHORT_STEPS,
        max_concurrent_local_activities=SHORT_STEPS,
        # A tool hears of a cancellation with the reply to a heartbeat.
        max_heartbeat_throttle_interval=LONGEST_BEAT,
        sticky_queue_schedule_to_start_timeout=engine.sticky_timeout,
        **common,
    )
    ingestion = Worker(
        client,
        task_queue=steps.ingest_queue(engine.task_queue),
        activities=served.ingestion,
        max_concurrent_activities=INGESTIONS,
        **common,
    )
    notifications = Worker(
        client,
        task_queue=steps.notify_queue(engine.task_queue),
        activities=served.notifications,
        max_concurrent_activities=NOTIFICATIONS,
        **common,
    )
    deployments = [
        Worker(
            client,
            task_queue=steps.generate_queue(name, engine.task_queue),
            activities=served.generation,
            # A cancellation comes with the reply to a heartbeat, and a call goes on being billed until then.
            max_heartbeat_throttle_interval=QUICK_BEAT,
            **_slots(name, deployment, services.gate),
            **common,
        )
        for name, deployment in configuration.deployments.items()
        if deployment.enabled and not deployment.in_process
    ]
    return [requests, ingestion, notifications, *deployments]


def workflow_runner(*, sandbox: bool) -> WorkflowRunner:
    """The runner of the request workflows; both run the same code."""
    if not sandbox:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("holdfast", "workflows", "pydantic")
    )


class _Common(TypedDict):
    deployment_config: WorkerDeploymentConfig | None
    interceptors: Sequence[Interceptor]
    graceful_shutdown_timeout: timedelta


def _version(engine: EngineSettings) -> WorkerDeploymentConfig | None:
    """Requests are pinned to the version they began with (see `PinnedRequestWorkflow`); everything else moves on."""
    if not engine.deployment:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(engine.deployment, engine.version),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


class _Slots(TypedDict, total=False):
    max_concurrent_activities: int
    max_concurrent_activity_task_polls: int
    tuner: WorkerTuner


def _slots(name: str, deployment: Deployment, gate: Gate) -> _Slots:
    """Where limits can make calls wait, they wait in the engine, which knows tiers and tenants."""
    if not guarded(name, deployment).scopes:
        return {"max_concurrent_activities": deployment.slots}
    return {"tuner": tuner(deployment.slots, gate.line(name)), "max_concurrent_activity_task_polls": POLLS}
