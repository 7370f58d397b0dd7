"""A receiver of webhooks on loopback that answers as it is told, and keeps what it was sent."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

OK = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


def reply(status: int, **headers: str) -> bytes:
    """An answer without a body."""
    lines = [f"HTTP/1.1 {status} Reason", "Content-Length: 0"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True)
class Received:
    """One message."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Answers with what is scripted, then with 204; `None` in the script drips an answer for ever."""

    script: deque[bytes | None] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    always: bytes | None = OK
    """What is answered when the script is empty."""
    when_received: Callable[[Received], None] = lambda received: None
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its address, with a path that is a secret."""
        return f"http://127.0.0.1:{self.port}/hooks/path-secret"

    async def until(self, count: int) -> list[Received]:
        """Wait until it has been sent so many messages."""
        async with asyncio.timeout(120), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            received = Received(head[0].split(" ")[1], headers, body)
            async with self._arrived:
                self.received.append(received)
                self._arrived.notify_all()
            self.when_received(received)
            answer = self.script.popleft() if self.script else self.always
            if answer is None:
                await self._drip(writer)
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)
