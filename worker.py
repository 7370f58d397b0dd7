"""The worker process, and the one place where settings become objects.

`python worker.py` serves every task queue of this configuration: requests, ingestion, notifications, and one queue per
deployment. `holdfast dev` builds the same workers in the process of the gateway. What a worker is put together from is
in `assembly/`.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import uvloop
from temporalio.client import Client
from temporalio.worker import Worker

from assembly import Services, build_workers, connect, open_shared_state, workflow_runner
from holdfast import __version__
from holdfast.batches import Batches
from holdfast.calls import ModelCaller
from holdfast.configuration import Configuration, load_configuration
from holdfast.errors import HoldfastError
from holdfast.gate import Gate
from holdfast.guards import Sanitizer
from holdfast.health import Health
from holdfast.knowledge import Embedder, Knowledge, MiniLM, open_store
from holdfast.leaving import leave
from holdfast.ledger import Ledger
from holdfast.mcp import McpServers
from holdfast.notify import Links, Notifier, load_notifications
from holdfast.people import People
from holdfast.preparation import Preparation
from holdfast.prices import Prices
from holdfast.providers import HttpStream
from holdfast.relay import Relay
from holdfast.router import Router
from holdfast.settings import Settings, load_settings
from holdfast.telemetry import Metrics, ModelSpan, start_metrics, start_tracing
from holdfast.tools.equipment import Equipment
from holdfast.validation import Validator
from workflows.connection import connect_client, tracing_interceptors
from workflows.queue_limits import set_queue_limits

__all__ = [
    "Services",
    "apply_queue_limits",
    "build_workers",
    "main",
    "open_services",
    "serve_workers",
    "workflow_runner",
]


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
        state = open_shared_state(settings.shared, relay, health)
        stack.push_async_callback(state.health.aclose)
        stack.push_async_callback(state.limiter.aclose)
        if relay is None:
            stack.push_async_callback(state.relay.aclose)
        client = HttpStream()
        stack.push_async_callback(client.aclose)
        connected = {
            name: connect(name, deployment, client, environment)
            for name, deployment in configuration.deployments.items()
            if deployment.enabled
        }
        servers = McpServers(configuration.toolset.servers, environment)
        stack.push_async_callback(servers.aclose)
        stack.push_async_callback(configuration.toolset.aclose)
        knowledge, sanitizer = Knowledge(store, embedder), Sanitizer()
        notifications = load_notifications(settings.config_dir, environment, configuration.agents)
        people = People(settings.config_dir / "people.toml")
        span = ModelSpan(
            generation=settings.telemetry.semantic_conventions, capture_content=settings.telemetry.capture_content
        )
        prices = Prices()
        preparation = Preparation(ledger, prices)
        gate = Gate(state.limiter, state.health)
        return Services(
            ledger=ledger,
            knowledge=knowledge,
            sanitizer=sanitizer,
            validator=Validator(),
            caller=ModelCaller(ledger, connected, preparation, span, gate, state.relay, metrics),
            gate=gate,
            batches=Batches(ledger, connected, preparation, settings.batch, metrics),
            router=Router(configuration.deployments, prices, ledger, state.health, embedder, metrics),
            metrics=metrics or Metrics(),
            relay=state.relay,
            embedder=embedder,
            servers=servers,
            equipment=Equipment(configuration.toolset, servers, ledger, sanitizer, knowledge),
            notifier=Notifier(ledger, notifications, people, Links(settings.gateway.reached_at), metrics),
            stack=stack.pop_all(),
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
    for lacking in configuration.unready():
        logging.getLogger("holdfast.worker").warning("%s", lacking)
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


def read_arguments(arguments: Sequence[str]) -> None:
    """Answer `--help` and `--version`, and refuse everything else: a worker is told by its settings what to do.

    Raises:
        SystemExit: There is an argument; it was answered.
    """
    parser = argparse.ArgumentParser(
        prog="python worker.py",
        description="Serve the task queues of this configuration until SIGTERM or SIGINT.",
        epilog="It takes no arguments: settings come from config/holdfast.toml and HOLDFAST_* (docs/operations.md).",
    )
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        read_arguments(sys.argv[1:])
        uvloop.run(main())
    except SystemExit as answered:
        leave(answered.code if isinstance(answered.code, int) else int(answered.code is not None))
    except HoldfastError as error:
        print(f"The worker cannot start. {error}", file=sys.stderr)
        leave(1)
    leave(0)
