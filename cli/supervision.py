"""Starts all parts of Holdfast in one process and one child, watches them, and stops them in order.

Gateway and worker share one client of the engine, so that a request's first step starts with the request itself.
Started in order: Temporal server, simulator, worker, gateway; stopped the other way round, so that nothing is accepted
that nobody would work on. A part that dies ends everything: what is left would only look alive.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import uvloop
from fastapi import FastAPI

import worker
from cli import demo, samples, team
from cli.client import DEFAULT_URL, GatewayClient
from cli.output import DONE, Output, Problem
from cli.temporal_server import TemporalServer
from gateway.app import create_app
from gateway.engine import Engine
from gateway.server import base_url, serving
from holdfast.configuration import Configuration, load_configuration
from holdfast.errors import ConfigurationError, HoldfastError, Unavailable
from holdfast.settings import Settings, load_settings
from holdfast.telemetry import start_metrics, start_tracing
from simulator.program import DEMO, Profile
from simulator.server import Simulator
from workflows.connection import connect_client, tracing_interceptors

ResultT = TypeVar("ResultT")

SIMULATOR_PORT = 8091
"""Where `config/models.toml` expects the simulator."""
INTERRUPTED = 130
WATCH_SECONDS = 0.25


@dataclass(frozen=True)
class Options:
    """What the command line asked for; `None` leaves a choice to settings and files."""

    once: bool = False
    port: int | None = None
    temporal_port: int | None = None
    ui_port: int | None = None
    simulator_port: int | None = None
    data: Path | None = None


@dataclass(frozen=True)
class House:
    """Everything runs."""

    settings: Settings
    gateway_url: str
    ui_url: str
    simulator_url: str
    pages_url: str | None
    """Where the sample shop's pages are served, in a checkout."""
    data: Path
    versions: Mapping[str, str]
    """Of the agents."""
    moved: tuple[str, ...]
    """A sentence for every wanted port that was taken."""
    parts: tuple[asyncio.Task[None], ...]
    """Run for as long as their part of the house does; one that ends has failed."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        urls = {"gateway": self.gateway_url, "ui": self.ui_url, "simulator": self.simulator_url}
        if self.pages_url:
            urls["pages"] = self.pages_url
        return {"urls": urls, "data": str(self.data), "moved": list(self.moved)}


def run(options: Options, output: Output, *, as_team: bool = False) -> int:
    """Serve until stopped, or with `once` until the demo is over.

    Args:
        options: What the command line asked for.
        output: Where it is shown.
        as_team: Whether the demo is the team's.

    Returns:
        The exit code.

    Raises:
        HoldfastError: A part cannot start, or has died.
    """
    log_to(data_directory(options) / "holdfast.log")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_stopped(_serve(options, output, as_team=as_team), options, output))


async def _until_stopped(work: Coroutine[Any, Any, None], options: Options, output: Output) -> int:
    """Do the work; the first signal cancels it, which stops every part in order, and a second ends at once."""
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if stopped:
            os._exit(INTERRUPTED)  # on Linux the Temporal server ends with its parent
        stopped = True
        output.note("Stopping. Model calls under way may still take up to 30 s; Ctrl-C again ends at once.")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
        output.note("Stopped. Nothing is lost: `holdfast dev` goes on where this left off.")
        return INTERRUPTED if options.once else DONE
    return DONE


async def _serve(options: Options, output: Output, *, as_team: bool) -> None:
    async with running(options, output) as house:
        _show(house, output)
        converse = _converse_with_team if as_team else _converse
        held = await unless_a_part_dies(asyncio.to_thread(converse, house, options, output), house.parts)
        output.document(house.document() | held)
        if options.once:
            again = "holdfast demo team --keep" if as_team else "holdfast dev"
            output.next(f"{again}, which does the same and keeps serving")
            return
        if house.settings.api_keys:
            output.say("Commands need one of your keys: export HOLDFAST_API_KEY=...")
        output.next(f"ask your own: {_client(house, demo.ASKER).command('ask', 'docs', '...')}", "stop with Ctrl-C")
        await unless_a_part_dies(asyncio.Event().wait(), house.parts)


def _show(house: House, output: Output) -> None:
    for sentence in house.moved:
        output.say(sentence, style="yellow")
    output.heading("Holdfast is running.")
    output.say(f"  gateway          {house.gateway_url}")
    output.say(f"  Temporal Web UI  {house.ui_url}")
    output.say(f"  inbox            {house.gateway_url}/inbox")
    output.say(f"  demo model       {house.simulator_url}")
    output.say(f"  data and logs    {house.data}")
    if exports := _exports(house.settings, house.gateway_url):
        output.say("  Commands in another shell, `ask`, `budget`, `usage`, `models`, `webhooks` and others, need:")
        for line in exports:
            output.say(f"    export {line}")
    output.say()


def _exports(settings: Settings, gateway_url: str) -> list[str]:
    """What another shell must be told, so that verbs that call the gateway or open ledger or engine find these."""
    plain = load_settings()
    lines = [] if gateway_url == DEFAULT_URL else [f"HOLDFAST_URL={gateway_url}"]
    if settings.ledger.url != plain.ledger.url:
        lines.append(f"HOLDFAST_LEDGER__URL={settings.ledger.url}")
    if settings.engine.address != plain.engine.address:
        lines.append(f"HOLDFAST_ENGINE__ADDRESS={settings.engine.address}")
    return lines


def _converse(house: House, options: Options, output: Output) -> dict[str, Any]:
    """Hold the demo conversation; blocks, so call it in a thread."""
    with _client(house, demo.ASKER) as asker, _client(house, demo.APPROVER) as approver:
        try:
            indexed = demo.index_documents(asker, output, Path.cwd())
            held = demo.ask(asker, output, indexed, house.versions.get(demo.AGENT, ""))
            return (demo.approve(approver, output, held) if options.once else held).document()
        except Problem as problem:
            if options.once:
                raise
            output.note(f"The demo stopped: {problem} {problem.remedy}")
            return {}


def _converse_with_team(house: House, options: Options, output: Output) -> dict[str, Any]:
    """Let the team answer; blocks as `_converse` does."""
    if house.pages_url is None:
        raise Problem(
            f"{Path.cwd()} has no samples/shop.sql, so the team has nothing to look into.",
            remedy="Run `holdfast demo team` in a checkout of Holdfast.",
        )
    with _client(house, team.ASKER) as asker, _client(house, team.APPROVER) as approver:
        return team.converse(asker, approver, output, house.pages_url, release=options.once)


def _client(house: House, user: str) -> GatewayClient:
    """A client that acts as a user; with API keys, as the owner of one: the approver of another, if there is one."""
    keys = house.settings.api_keys
    if not keys:
        client = GatewayClient(house.gateway_url, user)
        # Whoever pastes a command of the demo decides under a name of their own.
        client.said_user = ""
        return client
    of_tenant = [key for key in keys if key.tenant == keys[0].tenant]
    key = of_tenant[-1] if user == demo.APPROVER else of_tenant[0]
    return GatewayClient(house.gateway_url, user, key.key.get_secret_value())


@asynccontextmanager
async def running(options: Options, output: Output) -> AsyncIterator[House]:
    """Run every part for the duration of the block.

    Raises:
        HoldfastError: A part cannot start; those started before are stopped.
    """
    settings = settings_for(options)
    configuration = load_configuration(settings.config_dir)
    data = data_directory(options)
    moved: list[str] = []
    async with AsyncExitStack() as stack:
        if stop_tracing := start_tracing(settings.telemetry, "holdfast-dev"):
            stack.push_async_callback(asyncio.to_thread, stop_tracing)
        temporal = TemporalServer(
            database=data / "temporal.db", port=options.temporal_port, ui_port=options.ui_port, ui=True
        )
        with output.working("Starting the Temporal server"):
            try:
                await stack.enter_async_context(temporal)
            except Unavailable as error:
                remedy = "If another `holdfast dev` runs, stop it, or keep this one's data apart: --data DIR."
                raise Problem(str(error), remedy=remedy) from None
        moved += temporal.moved
        simulator = await _simulator(stack, options, moved)
        configuration = at_simulator(configuration, simulator.url)
        engine_settings = settings.engine.model_copy(
            update={"address": temporal.address, "namespace": temporal.namespace}
        )
        settings = settings.model_copy(update={"engine": engine_settings})

        pages_url = None
        if await asyncio.to_thread(samples.prepare, Path.cwd()):
            pages_url = await stack.enter_async_context(samples.pages(Path.cwd()))
            configuration = samples.at_pages(configuration, pages_url)
            if pages_url != base_url(samples.HOST, samples.PORT):
                moved.append(f"Port {samples.PORT} is taken; the sample shop's pages are at {pages_url} instead.")
        for lacking in configuration.unready():
            output.note(lacking)
        measuring = start_metrics(settings.telemetry, "holdfast-dev", own_server=False)
        stack.push_async_callback(asyncio.to_thread, measuring.stop)
        services = await worker.open_services(settings, configuration, metrics=measuring.metrics)
        stack.push_async_callback(services.aclose)
        with output.working("Loading the embedding model"):
            await services.warm_up()
        interceptors = tracing_interceptors(settings.telemetry.otlp_endpoint)
        client = await connect_client(temporal.address, temporal.namespace, interceptors=interceptors)
        await worker.apply_queue_limits(client, settings, configuration)
        working = await stack.enter_async_context(
            _task(worker.serve_workers(worker.build_workers(client, services, settings, configuration)))
        )
        watching = await stack.enter_async_context(_task(_watch(temporal)))

        engine = Engine(client, settings.engine)
        app = create_app(
            settings,
            configuration,
            services.ledger,
            engine,
            ui_url=temporal.ui_url,
            relay=services.relay,
            running_metrics=measuring,
        )
        host = settings.gateway.host
        port = await _gateway(stack, app, host, settings.gateway.port, moved, asked_for=bool(options.port))
        yield House(
            settings=settings,
            gateway_url=base_url(host, port),
            ui_url=temporal.ui_url or "",
            simulator_url=simulator.url,
            pages_url=pages_url,
            data=data,
            versions={name: agent.plan.version for name, agent in configuration.agents.items()},
            moved=tuple(moved),
            parts=(working, watching),
        )


def data_directory(options: Options) -> Path:
    """Where the Temporal server's file and the logs are kept."""
    return options.data or Path("var")


def settings_for(options: Options) -> Settings:
    overrides: dict[str, Any] = {}
    if options.port is not None:
        overrides["gateway"] = {"port": options.port}
    if options.data is not None:
        # What the environment names wins: it is said on purpose, and other verbs go by it.
        if "HOLDFAST_LEDGER__URL" not in os.environ:
            overrides["ledger"] = {"url": f"sqlite+aiosqlite:///{options.data / 'holdfast.db'}"}
        if "HOLDFAST_KNOWLEDGE__PATH" not in os.environ:
            overrides["knowledge"] = {"path": options.data / "knowledge"}
    return load_settings(**overrides)


async def _gateway(
    stack: AsyncExitStack, app: FastAPI, host: str, wanted: int, moved: list[str], *, asked_for: bool
) -> int:
    """Serve the gateway on the wanted port, or on a free one if that is taken and nobody asked for it by name."""
    try:
        return await stack.enter_async_context(serving(app, host, wanted))
    except ConfigurationError as error:
        if asked_for:
            remedy = "Stop what listens there, or choose another; without `--port`, a free one is taken."
            raise Problem(str(error), remedy=remedy) from None
    port = await stack.enter_async_context(serving(app, host, 0))
    moved.append(f"Port {wanted} is taken; the gateway listens on {base_url(host, port)} instead.")
    return port


async def _simulator(stack: AsyncExitStack, options: Options, moved: list[str]) -> Simulator:
    wanted = SIMULATOR_PORT if options.simulator_port is None else options.simulator_port
    try:
        return await stack.enter_async_context(Simulator(port=wanted, profile=Profile.load(DEMO)))
    except OSError:
        simulator = await stack.enter_async_context(Simulator(port=0, profile=Profile.load(DEMO)))
        moved.append(f"Port {wanted} is taken; the demo model listens on {simulator.url} instead.")
        return simulator


def at_simulator(configuration: Configuration, url: str) -> Configuration:
    """The configuration with deployments of the simulator's usual address pointed at the one that runs.

    Files name the usual port. When that was taken, another program would answer there, and be sent people's questions.
    """
    usual = tuple(f"http://{host}:{SIMULATOR_PORT}" for host in ("127.0.0.1", "localhost"))

    def base(address: str) -> str:
        for prefix in usual:
            if address == prefix or address.startswith(f"{prefix}/"):
                return url + address.removeprefix(prefix)
        return address

    return replace(
        configuration,
        deployments={
            name: deployment.model_copy(update={"base_url": base(deployment.base_url)})
            for name, deployment in configuration.deployments.items()
        },
    )


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something beside the block; at its end, cancel it and wait until it has finished in order."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        # What it failed of has been told by whoever watched it.
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _watch(temporal: TemporalServer) -> None:
    """Return only by failing, when the server's process has ended."""
    while temporal.running:  # noqa: ASYNC110 - a process that dies sets no event
        await asyncio.sleep(WATCH_SECONDS)
    raise Problem(
        f"The Temporal server has died. Last lines of {temporal.log}:\n{temporal.log_tail() or '(nothing)'}",
        remedy="Its file is kept: start `holdfast dev` again, and every request goes on where it was.",
    )


async def unless_a_part_dies(work: Coroutine[Any, Any, ResultT], parts: tuple[asyncio.Task[None], ...]) -> ResultT:
    """Wait for the work, but no longer than every part lives."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, *parts), return_when=asyncio.FIRST_COMPLETED)
        for part in parts:
            if part.done():
                _died(part)
        return await task
    finally:
        task.cancel()


def _died(part: asyncio.Task[None]) -> NoReturn:
    error = None if part.cancelled() else part.exception()
    if isinstance(error, HoldfastError):
        raise error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise Problem(
        f"The worker has died: {type(error).__name__ if error else 'it ended by itself'}: {error or ''}",
        remedy="The log has the details; start `holdfast dev` again, and every request goes on where it was.",
    )


def log_to(file: Path) -> None:
    """Write the log of all parts to a file, so that the terminal shows only what is for its reader."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(file, maxBytes=10_000_000, backupCount=2, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # An attempt that fails is in the trace, with its reason; a stack for each would bury what is wrong with us.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the gateway's access log has the same lines
    logging.captureWarnings(True)
