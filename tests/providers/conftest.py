"""A model server made of a socket, so that tests decide about every byte and every disconnect."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Exchange:
    """One request as the server received it, and the connection to answer on."""

    head: str
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def header(self, name: str) -> str | None:
        """A request header's value."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    async def send(self, *parts: str) -> None:
        """Write parts as they are."""
        for part in parts:
            self.writer.write(part.encode())
            await self.writer.drain()

    async def send_head(self, status: str = "200 OK", *headers: str) -> None:
        """Write the head of an event stream whose body ends with the connection."""
        await self.send(
            "\r\n".join(
                [f"HTTP/1.1 {status}", "Content-Type: text/event-stream", "Connection: close", *headers, "", ""]
            )
        )


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange; raises `ConnectionError` to hang up."""


class SocketServer:
    """Serves requests one after another on each connection."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[Exchange] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, handler: Handler) -> str:
        """Listen, and return the base URL."""

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n")
                    exchange = Exchange(head, {}, reader, writer)
                    raw = await reader.readexactly(int(exchange.header("content-length") or 0))
                    exchange.body = json.loads(raw or b"{}")
                    self.requests.append(exchange)
                    await handler(exchange)
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                self._tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        self._servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Close every connection."""
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def socket_server() -> AsyncIterator[SocketServer]:
    """A server that the test gives its behaviour."""
    server = SocketServer()
    yield server
    await server.stop()
