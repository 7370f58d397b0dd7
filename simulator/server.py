"""Serves the simulator with uvicorn inside a running event loop: for the command line, the dev command and tests."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.tokens import encoding
from simulator.app import create_app
from simulator.bill import Bill
from simulator.exchange import TRANSPORT
from simulator.program import Profile, Program
from simulator.service import Service

_KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that a closed one is always a simulated fault and never a race."""


class Simulator:
    """A running simulator: `async with Simulator() as simulator: ... simulator.url ...`.

    Installs no signal handlers and configures no logging. Entering raises `OSError` if the port is taken.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        seed: Seeds answers and everything random.
        profile: What happens unscripted.
        bill_path: JSON-lines file that keeps the bill.

    Raises:
        BillFileError: The bill file cannot be continued.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        profile: Profile | None = None,
        bill_path: Path | None = None,
    ) -> None:
        self._host = host
        self._port = port
        profile = profile or Profile()
        self._bill = Bill(bill_path, price=profile.price)
        self._program = Program(profile, seed)
        self._service = Service(self._program, self._bill)
        self._app = create_app(self._service)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Root of the server, without a trailing slash; the OpenAI base URL is this plus `/v1`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def bill(self, *, entries: bool = True) -> dict[str, Any]:
        """The bill, as `GET /_simulator/bill` shows it."""
        return self._bill.as_json(entries=entries)

    def script(self, *behaviours: dict[str, Any]) -> None:
        """Queue behaviours for the next matching calls.

        Raises:
            BehaviourError: A field or value is unknown.
        """
        self._program.enqueue(behaviours)

    def clear_script(self, model: str | None = None) -> None:
        """Forget what is scripted, for one model or for all, so that it recovers."""
        self._program.clear(model)

    def calls(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every call that arrived, as `GET /_simulator/calls` shows it."""
        return self._service.calls.as_json(model)

    def reset(self) -> None:
        """Return to the beginning: nothing billed, scripted, cached or logged, draws rewound, rate limits filled up."""
        self._service.reset()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """Refuse connections inside the block and break those that are open; afterwards listen on the same port again.

        Bill, script and limits stay as they are.
        """
        if self._server is None:
            raise RuntimeError("A simulator that was not entered listens on no port.")
        self._server.stop_listening()
        try:
            yield
        finally:
            await self._server.startup([_listen(self._host, self._port)])

    async def __aenter__(self) -> "Simulator":
        try:
            listener = _listen(self._host, self._port)
        except OSError:
            self._bill.close()
            raise
        self._port = listener.getsockname()[1]
        await asyncio.to_thread(encoding)
        config = uvicorn.Config(
            self._app,
            http=_LendingProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="simulator")
        await self._server.listening.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._serving is not None:
            self._server.stop()
            await self._serving
        await self._service.batches.aclose()
        self._bill.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Listening here makes a second server on the same port fail now and not after it was announced.
        listener.listen(2048)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class _LendingProtocol(H11Protocol):
    """Leaves the transport in the ASGI state, so that a behaviour can break the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wrap the application for this connection."""
        super().connection_made(cast(asyncio.Transport, transport))
        served: Any = self.app

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"][TRANSPORT] = transport
            await served(scope, receive, send)

        lending: Any = application
        self.app = lending


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its process and does not wait for hanging calls when it stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the server to end."""
        self.should_exit = True
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then let the waiting starter go on."""
        await super().startup(sockets=sockets)
        self.listening.set()

    def stop_listening(self) -> None:
        """Refuse connections, and break those that are open."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def main_loop(self) -> None:
        """Tick once a second (the `Date` header) until stopped."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Break what is still open: calls that hang on purpose would never end by themselves."""
        self.stop_listening()
        await super().shutdown(sockets=sockets)
