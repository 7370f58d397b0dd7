"""A client of a stream, as simple as can be: what it shows must be right whatever happens to the stream."""

import asyncio
from contextlib import aclosing

from holdfast.contracts import StreamEvent
from holdfast.relay import Relay

SOON = 60.0
"""Seconds after which something that should have happened has not."""


def began(request_id: str, attempt: int) -> StreamEvent:
    return StreamEvent(request_id=request_id, attempt=attempt, offset=0, kind="began")


def text(request_id: str, attempt: int, offset: int, added: str) -> StreamEvent:
    return StreamEvent(request_id=request_id, attempt=attempt, offset=offset, kind="text", text=added)


def ended(request_id: str, attempt: int, offset: int) -> StreamEvent:
    return StreamEvent(request_id=request_id, attempt=attempt, offset=offset, kind="ended")


def failed(request_id: str, attempt: int, offset: int) -> StreamEvent:
    return StreamEvent(request_id=request_id, attempt=attempt, offset=offset, kind="failed")


def whole(request_id: str, attempt: int, said: str, size: int = 3) -> list[StreamEvent]:
    """Every event of an attempt that says something in pieces."""
    pieces = [text(request_id, attempt, start, said[start : start + size]) for start in range(0, len(said), size)]
    return [began(request_id, attempt), *pieces, ended(request_id, attempt, len(said))]


class Client:
    """Follows a stream, checks each event against what it has, and can be cut off and come back."""

    def __init__(self, relay: Relay, request_id: str) -> None:
        self.relay = relay
        self.request_id = request_id
        self.attempt = 0
        self.shown = ""
        self.ended: str | None = None
        self.events = 0
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow on from what is shown."""
        self._task = asyncio.create_task(self._follow())

    async def cut(self, forget: int = 0) -> None:
        """Lose the connection, and with it up to so many of the last characters."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        elif self._task is not None:
            self._task.result()
        if forget and self.shown:
            self.shown = self.shown[:-forget]
        self.ended = None

    async def finish(self) -> None:
        """Wait for the end of the stream."""
        assert self._task is not None
        async with asyncio.timeout(SOON):
            await self._task

    async def shows(self, expected: str, attempt: int) -> None:
        """Wait until this is shown."""
        async with asyncio.timeout(SOON):
            while (self.shown, self.attempt) != (expected, attempt):
                assert self._task is not None
                if self._task.done():
                    self._task.result()
                self._grown.clear()
                await self._grown.wait()

    async def _follow(self) -> None:
        stream = self.relay.follow(self.request_id, attempt=self.attempt, offset=len(self.shown))
        async with aclosing(stream):
            async for event in stream:
                self._take(event)
                self._grown.set()

    def _take(self, event: StreamEvent) -> None:
        self.events += 1
        assert event.request_id == self.request_id
        if event.kind == "began":
            assert event.attempt > self.attempt
            self.attempt, self.shown, self.ended = event.attempt, "", None
        assert event.attempt == self.attempt
        assert event.offset == len(self.shown)
        assert self.ended is None
        if event.kind == "text":
            assert event.text
            self.shown += event.text
        elif event.kind != "began":
            assert event.text == ""
            self.ended = event.kind
