"""Serves the gateway over HTTP: by itself (`holdfast gateway`), or inside a process that has other things to do.

A server that stops answers everyone who waits, takes nothing new, and closes when the last answer is out.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.context import Gateway
from gateway.engine import connect
from holdfast.configuration import load_configuration
from holdfast.errors import ConfigurationError
from holdfast.ledger import Ledger
from holdfast.relay import MemoryRelay, RedisRelay
from holdfast.settings import Settings
from holdfast.telemetry import start_metrics, start_tracing

DRAIN_SECONDS = 10
"""How long answers that are under way may take once the server stops."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, host: str, port: int) -> AsyncIterator[int]:
    """Serve an application for the duration of the block, inside the running event loop.

    Args:
        app: From `create_app`, or one without a gateway that serves something small.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.

    Yields:
        The bound port.

    Raises:
        ConfigurationError: The address cannot be bound.
    """
    listener = _listen(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            # The access log is `gateway.edge`'s, which leaves query strings out.
            access_log=False,
            log_config=None,
            server_header=False,
            # Headers of proxies are not believed: nothing here depends on the caller's address.
            proxy_headers=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="holdfast gateway")
    try:
        yield int(listener.getsockname()[1])
    finally:
        gateway = getattr(app.state, "gateway", None)
        if isinstance(gateway, Gateway):
            gateway.draining.set()
        server.should_exit = True
        await task
        listener.close()


async def serve(
    settings: Settings, *, ui_url: str | None = None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Run a gateway as a process of its own until SIGINT or SIGTERM.

    Args:
        settings: Everything; the caller has configured logging.
        ui_url: Base address of the engine's Web UI, for links to traces.
        on_ready: Called once with the gateway's base URL when it accepts requests.

    Raises:
        ConfigurationError: The configuration is wrong, or the address cannot be bound.
        Unavailable: Engine or ledger do not answer.
    """
    configuration = load_configuration(settings.config_dir)
    async with contextlib.AsyncExitStack() as stack:
        if (stop_tracing := start_tracing(settings.telemetry, "holdfast-gateway")) is not None:
            stack.push_async_callback(asyncio.to_thread, stop_tracing)
        measuring = start_metrics(settings.telemetry, "holdfast-gateway", own_server=False)
        stack.push_async_callback(asyncio.to_thread, measuring.stop)
        ledger = await Ledger.open(settings.ledger.url, recall_for=settings.ledger.recall_for)
        stack.push_async_callback(ledger.aclose)
        shared = settings.shared
        relay = (
            RedisRelay(shared.url, f"{shared.prefix}:stream:", keep=shared.keep_streams)
            if shared.url
            else MemoryRelay()
        )
        stack.push_async_callback(relay.aclose)
        app = create_app(
            settings,
            configuration,
            ledger,
            await connect(settings),
            relay=relay,
            ui_url=ui_url,
            running_metrics=measuring,
        )
        with _stop_signals() as stopped:
            async with serving(app, settings.gateway.host, settings.gateway.port) as port:
                if on_ready is not None:
                    on_ready(base_url(settings.gateway.host, port))
                await stopped.wait()


def run(settings: Settings, *, ui_url: str | None = None, on_ready: Callable[[str], None] | None = None) -> None:
    """`serve` in a new event loop: uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, ui_url=ui_url, on_ready=on_ready))


def base_url(host: str, port: int) -> str:
    """The address under which a gateway on this host and port is called from the same machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # only where the platform has it
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A restarted gateway must not wait for its predecessor's connections to time out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2_048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"The gateway cannot listen on {host!r}, port {port}: {error.strerror}. "
            "Set HOLDFAST_GATEWAY__PORT (0 takes a free one) or HOLDFAST_GATEWAY__HOST."
        ) from None
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, for the duration of the block."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
