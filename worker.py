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
from typing import TypedDict

import uvloop
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker, WorkerTuner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.batch import Batch
from activities.deliver import Deliver
from activities.extend import Extend
from activities.failures import FailureInterceptor
from activities.generate import QUICK_BEAT, Generate
from activities.ingest import Ingest
from activities.recall import Recall
from activities.retrieve import Retrieve
from activities.route import Route
from activities.sanitize import Sanitize
from activities.slots import POLLS, tuner
from activities.validate import Validate
from holdfast.batches import Batches
from holdfast.calls import ModelCaller
from holdfast.configuration import Configuration, load_configuration
from holdfast.deployments import Deployment, resolve_key
from holdfast.errors import HoldfastError
from holdfast.gate import Gate, Guarded
from holdfast.guards import Sanitizer
from holdfast.handlers import load_handler
from holdfast.health import Health, MemoryHealth, RedisHealth
from holdfast.knowledge import Embedder, Knowledge, MiniLM, open_store
from holdfast.leaving import leave
from holdfast.ledger import Ledger
from holdfast.limits import Limiter, MemoryLimiter, RedisLimiter, Scope
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.prices import Prices
from holdfast.providers import (
    Anthropic,
    AnthropicBatches,
    BatchProvider,
    Extractive,
    HttpStream,
    OpenAIBatches,
    OpenAICompatible,
    Provider,
    Timeouts,
)
from holdfast.providers.handler import Handler
from holdfast.relay import MemoryRelay, RedisRelay, Relay
from holdfast.router import Router
from holdfast.settings import Settings, SharedSettings, load_settings
from holdfast.telemetry import Metrics, ModelSpan, start_metrics, start_tracing
from holdfast.validation import Validator
from workflows import steps
from workflows.batches import BatchWorkflow
from workflows.connection import connect_client, tracing_interceptors
from workflows.ingest import IngestWorkflow
from workflows.queue_limits import set_queue_limits
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
    gate: Gate
    batches: Batches
    router: Router
    relay: Relay
    metrics: Metrics
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
    relay: Relay | None = None,
    health: Health | None = None,
    metrics: Metrics | None = None,
) -> Services:
    """Open the ledger, the knowledge index, the shared state and the providers.

    Args:
        settings: Everything.
        configuration: The deployments and agents.
        environment: Where API keys are looked up.
        embedder: Replaces the one that loads the embedding model.
        relay: Of the gateway in the same process, which closes it; without one, a relay of its own.
        health: Replaces the one that the settings name.
        metrics: Where the process records; without one, nowhere.

    Raises:
        ConfigurationError: A key or path is missing.
        Unavailable: A store does not answer, or another worker holds the embedded index.
    """
    async with AsyncExitStack() as stack:
        ledger = await Ledger.open(settings.ledger.url, recall_for=settings.ledger.recall_for)
        stack.push_async_callback(ledger.aclose)
        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        store = await open_store(settings.knowledge.path, settings.knowledge.url, api_key=key)
        stack.push_async_callback(store.aclose)
        embedder = embedder or MiniLM()
        stack.push_async_callback(embedder.aclose)
        state = _open_shared(settings.shared, relay, health)
        stack.push_async_callback(state.health.aclose)
        stack.push_async_callback(state.limiter.aclose)
        if relay is None:
            stack.push_async_callback(state.relay.aclose)
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
        prices = Prices()
        preparation = Preparation(ledger, prices)
        gate = Gate(state.limiter, state.health)
        return Services(
            ledger=ledger,
            knowledge=Knowledge(store, embedder),
            sanitizer=Sanitizer(),
            validator=Validator(),
            caller=ModelCaller(ledger, connected, preparation, span, gate, state.relay, metrics),
            gate=gate,
            batches=Batches(ledger, connected, preparation, settings.batch, metrics),
            router=Router(configuration.deployments, prices, ledger, state.health, embedder, metrics),
            metrics=metrics or Metrics(),
            relay=state.relay,
            embedder=embedder,
            _stack=stack.pop_all(),
        )


@dataclass(frozen=True)
class SharedState:
    """What the workers of an installation know together, or one process alone."""

    relay: Relay
    limiter: Limiter
    health: Health


def _open_shared(shared: SharedSettings, relay: Relay | None, health: Health | None) -> SharedState:
    if not shared.url:
        return SharedState(relay or MemoryRelay(keep=shared.keep_streams), MemoryLimiter(), health or MemoryHealth())
    return SharedState(
        relay or RedisRelay(shared.url, f"{shared.prefix}:stream:", keep=shared.keep_streams),
        RedisLimiter(shared.url, shared.prefix),
        health or RedisHealth(shared.url, shared.prefix),
    )


def _connect(
    name: str, deployment: Deployment, client: HttpStream, environment: Mapping[str, str]
) -> ConnectedDeployment:
    provider: Provider
    key = resolve_key(name, deployment, environment)
    match deployment.provider:
        case "extractive":
            provider = Extractive()
        case "handler":
            function = load_handler(deployment.model, deployment.parameters, where=f"deployments.{name}")
            provider = Handler(function, deployment.parameters)
        case "anthropic":
            provider = Anthropic(deployment.base_url, key, client)
        case flavour:
            provider = OpenAICompatible(
                deployment.base_url, key, client, max_tokens_field=deployment.max_tokens_field, flavour=flavour
            )
    bounds = deployment.timeouts
    return ConnectedDeployment(
        name=name,
        provider=provider,
        vendor=deployment.price_list,
        model=deployment.model,
        price=deployment.price_override,
        context_window=deployment.context_window,
        temperature=deployment.temperature,
        seed=deployment.seed,
        timeouts=Timeouts(bounds.connect, bounds.first_token, bounds.between_tokens, bounds.total),
        batches=_batches(deployment, key, client) if deployment.batch else None,
        guarded=None if deployment.in_process else _guarded(name, deployment),
    )


def _batches(deployment: Deployment, key: SecretStr | None, client: HttpStream) -> BatchProvider:
    if deployment.provider == "anthropic":
        return AnthropicBatches(deployment.base_url, key, client)
    return OpenAIBatches(deployment.base_url, key, client, max_tokens_field=deployment.max_tokens_field)


def _guarded(name: str, deployment: Deployment) -> Guarded:
    quota = Scope(
        deployment.quota_key,
        requests_per_minute=deployment.requests_per_minute,
        tokens_per_minute=deployment.tokens_per_minute,
        concurrency=deployment.concurrency,
    )
    return Guarded(name, deployment.health_key, (quota,) if quota.limited else ())


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
    generate = Generate(services.caller, services.metrics)
    batch = Batch(services.batches, client, engine, settings.batch)
    workers = [
        Worker(
            client,
            task_queue=engine.task_queue,
            workflows=[RequestWorkflow, IngestWorkflow, BatchWorkflow],
            activities=[
                Sanitize(services.sanitizer, ledger).sanitize,
                Recall(ledger, settings.ledger.recall_for).recall,
                Retrieve(services.knowledge, ledger).retrieve,
                Route(services.router, configuration.deployments, engine.heartbeat_timeout).route,
                generate.generate,
                batch.enqueue,
                batch.submit,
                batch.collect,
                Validate(services.validator, ledger).validate,
                Extend(ledger).extend,
                Deliver(ledger, services.relay, services.metrics).deliver,
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
            # A cancellation comes with the reply to a heartbeat, and a call goes on being billed until then.
            max_heartbeat_throttle_interval=QUICK_BEAT,
            graceful_shutdown_timeout=GRACE,
            **_slots(name, deployment, services.gate),
        )
        for name, deployment in configuration.deployments.items()
        if deployment.enabled and not deployment.in_process
    ]
    return workers


class _Slots(TypedDict, total=False):
    max_concurrent_activities: int
    max_concurrent_activity_task_polls: int
    tuner: WorkerTuner


def _slots(name: str, deployment: Deployment, gate: Gate) -> _Slots:
    """Where limits can make calls wait, they wait in the engine, which knows tiers and tenants."""
    if not _guarded(name, deployment).scopes:
        return {"max_concurrent_activities": deployment.slots}
    return {"tuner": tuner(deployment.slots, gate.line(name)), "max_concurrent_activity_task_polls": POLLS}


def workflow_runner(*, sandbox: bool) -> WorkflowRunner:
    """The runner of the request workflows; both run the same code."""
    if not sandbox:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("holdfast", "workflows", "pydantic")
    )


async def apply_queue_limits(client: Client, settings: Settings, configuration: Configuration) -> None:
    """Give the deployments' queues the rates of the configuration."""
    await set_queue_limits(
        client,
        settings.engine.task_queue,
        {
            name: deployment.requests_per_minute
            for name, deployment in configuration.deployments.items()
            if deployment.enabled and not deployment.in_process
        },
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
        running = start_metrics(settings.telemetry, "holdfast-worker", own_server=True)
        stack.push_async_callback(asyncio.to_thread, running.stop)
        services = await open_services(settings, configuration, metrics=running.metrics)
        stack.push_async_callback(services.aclose)
        await services.warm_up()
        engine = settings.engine
        client = await connect_client(
            engine.address, engine.namespace, interceptors=tracing_interceptors(settings.telemetry.otlp_endpoint)
        )
        await apply_queue_limits(client, settings, configuration)
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
