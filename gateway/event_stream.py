"""A response that is written for as long as its client listens: headers, heartbeats, disconnects, and the server's end.

Each stream has its own tasks and nothing in common with others, so a client that reads slowly holds up only itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.sse import HEARTBEAT, MEDIA_TYPE

Write = Callable[["Sink"], Awaitable[None]]


class Sink:
    """Takes the bytes of a stream. The response begins with the first of them, so until then it may still fail."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self.begun = False
        self.last = self._loop.time()
        """When something was sent."""

    async def write(self, frame: bytes) -> None:
        """Send bytes that belong together. Waits while the client is behind."""
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})
        self.last = self._loop.time()

    async def beat(self, every: float) -> None:
        """Send a comment after each silence, for ever."""
        while True:
            silence = self._loop.time() - self.last
            if silence >= every:
                await self.write(HEARTBEAT)
                silence = 0
            await asyncio.sleep(every - silence)

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class EventStream(Response):
    """Server-sent events.

    Args:
        write: Writes the stream; what it raises before its first byte is answered like any other error.
        heartbeat: Silence after which a comment is sent.
        stopping: Set when the server is about to stop.
        on_stop: Writes the last words then, if any.
        on_gone: Called when the client goes away before the end.
        headers: Beside those of every stream.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        write: Write,
        *,
        heartbeat: timedelta,
        stopping: asyncio.Event,
        on_stop: Write | None = None,
        on_gone: Callable[[], Awaitable[None]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # A proxy that collects what it passes on would hold the events back.
        super().__init__(headers={"X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._write = write
        self._heartbeat = heartbeat.total_seconds()
        self._stopping = stopping
        self._on_stop = on_stop
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the base class names it
        """Write until the end, the client's leaving or the server's stop."""
        sink = Sink(send, self.raw_headers)
        writing = asyncio.ensure_future(self._write(sink))
        leaving = asyncio.create_task(gone(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        beating = asyncio.create_task(sink.beat(self._heartbeat))
        tasks: list[asyncio.Future[Any]] = [writing, leaving, stopping, beating]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(tasks)
        if _ended(writing):
            writing.result()
        elif _ended(leaving):
            if self._on_gone is not None:
                await self._on_gone()
            raise ClientDisconnect
        elif _ended(beating):
            beating.result()
        elif self._on_stop is not None:
            await self._on_stop(sink)
        if not sink.begun:
            await sink.write(b"")
        await sink.end()


async def gone(receive: Callable[[], Awaitable[Message]]) -> None:
    """Return when the client has gone away; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _ended(task: "asyncio.Future[None]") -> bool:
    return task.done() and not task.cancelled()


async def _cancel(tasks: "list[asyncio.Future[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
