"""The worker process, and the one place where settings become objects.

`python worker.py` serves every task queue of this configuration: requests, ingestion, and one queue per deployment.
`holdfast dev` builds the same workers in the process of the gateway.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import uvloop
from temporalio.client import Client
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.deliver import Deliver
from activities.failures import FailureInterceptor
from activities.generate import Generate
from activities.ingest import Ingest
from activities.recall import Recall
from activities.retrieve import Retrieve
from activities.route import Route
from activities.sanitize import Sanitize
from activities.validate import Validate
from holdfast.calls import ConnectedDeployment, ModelCaller
from holdfast.configuration import Configuration, Deployment, load_configuration, resolve_key
from holdfast.errors import HoldfastError
from holdfast.guards import Sanitizer
from holdfast.knowledge import Embedder, Knowledge, MiniLM, open_store
from holdfast.leaving import leave
from holdfast.ledger import Ledger
from holdfast.prices import Prices
from holdfast.providers import Extractive, HttpStream, OpenAICompatible, Provider, Timeouts
from holdfast.settings import Settings, load_settings
from holdfast.telemetry import ModelSpan, start_tracing
from holdfast.validation import Validator
from workflows import steps
from workflows.connection import connect_client, tracing_interceptors
from workflows.ingest import IngestWorkflow
from workflows.request import RequestWorkflow

SHORT_STEPS = 32
"""Requests whose short steps run at the same time. More would only share the same processor, each of them slower, until
their timeouts pass; what does not fit waits in the engine. As many as share one batch of the embedding model."""

GRACE = timedelta(seconds=30)
"""How long model calls in flight may finish when the worker is asked to stop."""


@dataclass
class Services:
    """The library's objects that activities are built from; share one among everything in a process."""

    ledger: Ledger
    knowledge: Knowledge
    sanitizer: Sanitizer
    validator: Validator
    caller: ModelCaller
    embedder: Embedder
    _stack: AsyncExitStack

    async def warm_up(self) -> None:
        """Load the models before the first request needs them."""
        await asyncio.gather(self.embedder.embed(["warm up"]), asyncio.to_thread(self.sanitizer.warm_up))
        # The models' hundred thousands of objects live as long as the process; collections need not visit them again.
        gc.collect()
        gc.freeze()

    async def aclose(self) -> None:
        """Close files and connections, in reverse order of opening."""
        await self._stack.aclose()


async def open_services(
    settings: Settings,
    configuration: Configuration,
    *,
    environment: Mapping[str, str] = os.environ,
    embedder: Embedder | None = None,
) -> Services:
    """Open the ledger, the knowledge index and the providers.

    Raises:
        ConfigurationError: A key or path is missing.
        Unavailable: A store does not answer, or another worker holds the embedded index.
    """
    async with AsyncExitStack() as stack:
        ledger = await Ledger.open(settings.ledger.url)
        stack.push_async_callback(ledger.aclose)
        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        store = await open_store(settings.knowledge.path, settings.knowledge.url, api_key=key)
        stack.push_async_callback(store.aclose)
        embedder = embedder or MiniLM()
        stack.push_async_callback(embedder.aclose)
        client = HttpStream()
        stack.push_async_callback(client.aclose)
        connected = {
            name: _connect(name, deployment, client, environment)
            for name, deployment in configuration.deployments.items()
            if deployment.enabled
        }
        span = ModelSpan(
            generation=settings.telemetry.semantic_conventions, capture_content=settings.telemetry.capture_content
        )
        return Services(
            ledger=ledger,
            knowledge=Knowledge(store, embedder),
            sanitizer=Sanitizer(),
            validator=Validator(),
            caller=ModelCaller(ledger, connected, Prices(), span),
            embedder=embedder,
            _stack=stack.pop_all(),
        )


def _connect(
    name: str, deployment: Deployment, client: HttpStream, environment: Mapping[str, str]
) -> ConnectedDeployment:
    provider: Provider
    if deployment.provider == "extractive":
        provider = Extractive()
    else:
        provider = OpenAICompatible(
            base_url=deployment.base_url,
            api_key=resolve_key(name, deployment, environment),
            client=client,
            max_tokens_field=deployment.max_tokens_field,
        )
    bounds = deployment.timeouts
    return ConnectedDeployment(
        name=name,
        provider=provider,
        vendor=deployment.vendor,
        model=deployment.model,
        price=deployment.price_override,
        context_window=deployment.context_window,
        temperature=deployment.temperature,
        seed=deployment.seed,
        timeouts=Timeouts(bounds.connect, bounds.first_token, bounds.between_tokens, bounds.total),
    )


def build_workers(
    client: Client,
    services: Services,
    settings: Settings,
    configuration: Configuration,
    interceptors: Sequence[Interceptor] = (),
) -> list[Worker]:
    """One worker for requests, one for ingestion, one for each enabled deployment."""
    engine, ledger = settings.engine, services.ledger
    interceptors = [*interceptors, FailureInterceptor()]
    generate = Generate(services.caller)
    workers = [
        Worker(
            client,
            task_queue=engine.task_queue,
            workflows=[RequestWorkflow, IngestWorkflow],
            activities=[
                Sanitize(services.sanitizer, ledger).sanitize,
                Recall(ledger, settings.ledger.recall_for).recall,
                Retrieve(services.knowledge, ledger).retrieve,
                Route(configuration.deployments, ledger, engine.heartbeat_timeout).route,
                Validate(services.validator, ledger).validate,
                Deliver(ledger).deliver,
            ],
            interceptors=interceptors,
            workflow_runner=workflow_runner(sandbox=engine.sandbox),
            # Eager dispatch would go past the rate limits of the deployments' queues.
            disable_eager_activity_execution=True,
            max_concurrent_workflow_tasks=SHORT_STEPS,
            max_concurrent_local_activities=SHORT_STEPS,
            sticky_queue_schedule_to_start_timeout=engine.sticky_timeout,
            graceful_shutdown_timeout=GRACE,
        ),
        Worker(
            client,
            task_queue=steps.ingest_queue(engine.task_queue),
            activities=[Ingest(services.knowledge, ledger).ingest],
            interceptors=interceptors,
            max_concurrent_activities=2,
            graceful_shutdown_timeout=GRACE,
        ),
    ]
    workers += [
        Worker(
            client,
            task_queue=steps.generate_queue(name, engine.task_queue),
            activities=[generate.generate],
            interceptors=interceptors,
            max_concurrent_activities=deployment.concurrency,
            # A cancellation comes with the reply to a heartbeat, and a call goes on being billed until then.
            max_heartbeat_throttle_interval=timedelta(seconds=10),
            graceful_shutdown_timeout=GRACE,
        )
        for name, deployment in configuration.deployments.items()
        if deployment.enabled
    ]
    return workers


def workflow_runner(*, sandbox: bool) -> WorkflowRunner:
    """The runner of the request workflows; both run the same code."""
    if not sandbox:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("holdfast", "workflows", "pydantic")
    )


async def serve_workers(workers: Sequence[Worker]) -> None:
    """Run until cancelled, then let what is in flight finish; a worker that fails ends all of them."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings()
    configuration = load_configuration(settings.config_dir)
    async with AsyncExitStack() as stack:
        if stop_tracing := start_tracing(settings.telemetry, "holdfast-worker"):
            stack.push_async_callback(asyncio.to_thread, stop_tracing)
        services = await open_services(settings, configuration)
        stack.push_async_callback(services.aclose)
        await services.warm_up()
        engine = settings.engine
        client = await connect_client(
            engine.address, engine.namespace, interceptors=tracing_interceptors(settings.telemetry.otlp_endpoint)
        )
        workers = build_workers(client, services, settings, configuration)
        serving = asyncio.create_task(serve_workers(workers))
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(stop, serving.cancel)
        queues = ", ".join(worker.task_queue for worker in workers)
        print(f"Worker serves {queues} at {engine.address}; stop with Ctrl-C.", flush=True)
        try:
            await serving
        except asyncio.CancelledError:
            print("Worker stopped.", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(main())
    except HoldfastError as error:
        print(f"The worker cannot start. {error}", file=sys.stderr)
        leave(1)
    leave(0)
