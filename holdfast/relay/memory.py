"""The relay of one process: the text of every running request, and of those that ended a short while ago.

What is stored is a request's state, not a list of events: its highest attempt, that attempt's text in pieces, and how
it ended. A follower compares its place with that state, so followers cost the publisher nothing but one wake-up, and
a follower that fell behind catches up with few large pieces instead of many small ones.
"""

import asyncio
import sys
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta

from holdfast.contracts import StreamEvent
from holdfast.relay.cursor import Cursor

_PIECE_OVERHEAD = 48
"""Bytes of a piece beside its string: two list slots and the integer of its end."""
_STREAM_OVERHEAD = 2_300
"""Bytes of a stream without text, with its id and its end, measured with `tracemalloc`; a piece was, too."""
_LARGEST_PIECE = 65_536
"""Characters given to a follower in one event at most, if they come from several pieces."""


class MemoryRelay:
    """Streams within one process and one event loop.

    Args:
        max_bytes_per_request: Memory for the text of one request. Beyond it the first half is dropped; who has not had
            it gets `RelayGap`.
        max_bytes: Memory for all. Beyond it, closed requests are forgotten in the order they were closed, then
            running ones that were silent the longest: all of them if nobody follows, else their text.
        keep: How long a closed request is kept.
        open_for: How long a request is kept that nobody publishes to, follows or closes.
        clock: Seconds that never go backward.
    """

    def __init__(
        self,
        *,
        max_bytes_per_request: int = 4 * 1024 * 1024,
        max_bytes: int = 256 * 1024 * 1024,
        keep: timedelta = timedelta(minutes=10),
        open_for: timedelta = timedelta(days=1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes_per_request = max_bytes_per_request
        self._max_bytes = max_bytes
        self._keep = keep.total_seconds()
        self._open_for = open_for.total_seconds()
        self._clock = clock
        self._open: OrderedDict[str, _Stream] = OrderedDict()
        self._closed: OrderedDict[str, _Stream] = OrderedDict()
        self._bytes = 0

    @property
    def stored_bytes(self) -> int:
        """Memory that the stored streams take, as it is counted against `max_bytes`."""
        return self._bytes

    async def publish(self, event: StreamEvent) -> None:
        """See `Relay.publish`."""
        stream = self._open.get(event.request_id)
        if stream is None:
            self._sweep()
            if event.request_id in self._closed:
                return
            stream = self._opened(event.request_id)
        else:
            self._open.move_to_end(event.request_id)
        before = stream.bytes
        changed = stream.add(event)
        if stream.bytes > self._max_bytes_per_request:
            stream.drop_until(self._max_bytes_per_request // 2)
        self._bytes += stream.bytes - before
        if self._bytes > self._max_bytes:
            self._make_room()
        if changed:
            stream.touched = self._clock()
            stream.wake()

    async def follow(self, request_id: str, *, attempt: int = 0, offset: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """See `Relay.follow`."""
        self._sweep()
        stream = self._closed.get(request_id) or self._open.get(request_id) or self._opened(request_id)
        cursor = Cursor(request_id, attempt, offset)
        stream.followers += 1
        try:
            while True:
                if (event := stream.after(cursor)) is not None:
                    for due in cursor.take(event):
                        yield due
                elif stream.closed:
                    cursor.check_complete()
                    return
                else:
                    await stream.changed.wait()
        finally:
            stream.followers -= 1
            if not stream.followers and not stream.attempt and self._open.get(request_id) is stream:
                self._forget(self._open.pop(request_id))

    async def close(self, request_id: str) -> None:
        """See `Relay.close`."""
        self._sweep()
        if request_id in self._closed:
            return
        stream = self._open.get(request_id) or self._opened(request_id)
        stream.closed, stream.touched = True, self._clock()
        self._closed[request_id] = self._open.pop(request_id)
        stream.wake()
        if self._bytes > self._max_bytes:
            self._make_room()

    async def aclose(self) -> None:
        """See `Relay.aclose`."""
        for request_id in list(self._open):
            await self.close(request_id)

    def _opened(self, request_id: str) -> "_Stream":
        stream = self._open[request_id] = _Stream(self._clock())
        self._bytes += stream.bytes
        return stream

    def _sweep(self) -> None:
        now = self._clock()
        while self._closed and next(iter(self._closed.values())).touched + self._keep <= now:
            self._forget(self._closed.popitem(last=False)[1])
        while self._open and (oldest := next(iter(self._open.values()))).touched + self._open_for <= now:
            if oldest.followers:
                oldest.touched = now
                self._open.move_to_end(next(iter(self._open)))
            else:
                self._forget(self._open.popitem(last=False)[1])

    def _make_room(self) -> None:
        while self._closed and self._bytes > self._max_bytes:
            self._forget(self._closed.popitem(last=False)[1])
        for _ in range(len(self._open)):
            if self._bytes <= self._max_bytes:
                return
            request_id, stream = self._open.popitem(last=False)
            if stream.followers:
                self._bytes -= stream.drop_until(0)
                self._open[request_id] = stream
            else:
                self._forget(stream)

    def _forget(self, stream: "_Stream") -> None:
        # Followers may still hold it: those who are not done get a gap, and the memory is free now.
        self._bytes -= stream.bytes
        stream.drop_until(0)


class _Stream:
    """One request's state: the highest attempt, what is stored of its text, and how it ended."""

    __slots__ = (
        "attempt",
        "base",
        "bytes",
        "changed",
        "closed",
        "end",
        "ends",
        "followers",
        "last",
        "length",
        "pieces",
        "touched",
    )

    def __init__(self, now: float) -> None:
        self.attempt = 0
        self.base = 0
        """Characters of the attempt's text that are dropped."""
        self.length = 0
        self.pieces: list[str] = []
        self.ends: list[int] = []
        """Where in the attempt's text each piece ends."""
        self.last: StreamEvent | None = None
        """The last piece as it was published, which followers that keep up are given as it is."""
        self.end: StreamEvent | None = None
        self.closed = False
        self.followers = 0
        self.touched = now
        self.bytes = _STREAM_OVERHEAD
        self.changed = asyncio.Event()

    def wake(self) -> None:
        """Let every waiting follower look again."""
        self.changed.set()
        if not self.closed:
            self.changed.clear()

    def add(self, event: StreamEvent) -> bool:
        """Take an event in, and say whether it changed anything."""
        if event.attempt < self.attempt:
            return False
        changed = event.attempt > self.attempt
        if changed:
            self.drop_until(0)
            self.attempt, self.base, self.length, self.end = event.attempt, 0, 0, None
        if self.end is not None or event.kind == "began":
            return changed
        if event.offset > self.length:
            # What is before was never published here; who does not have it finds the gap by the offset.
            self.drop_until(0)
            self.base = self.length = event.offset
            changed = True
        if event.kind != "text":
            if event.offset == self.length:
                self.end = event
            return changed or self.end is not None
        if event.end <= self.length:
            return changed
        text = event.text[self.length - event.offset :]
        self.last = event if event.offset == self.length else None
        self.length = event.end
        self.pieces.append(text)
        self.ends.append(event.end)
        self.bytes += sys.getsizeof(text) + _PIECE_OVERHEAD
        return True

    def after(self, cursor: Cursor) -> StreamEvent | None:
        """The event that a follower at this place has not had, if there is one."""
        if cursor.attempt < self.attempt:
            return self._event(cursor, 0, "")
        if cursor.attempt > self.attempt or cursor.ended:
            return None
        if cursor.offset < self.length:
            if self.last is not None and cursor.offset == self.last.offset:
                return self.last
            return self._text_from(cursor)
        return self.end if cursor.offset == self.length else None

    def drop_until(self, bound: int) -> int:
        """Drop pieces from the start until at most `bound` bytes are left, or none, and say how many bytes went."""
        dropped = count = 0
        while count < len(self.pieces) and self.bytes - dropped > bound:
            dropped += sys.getsizeof(self.pieces[count]) + _PIECE_OVERHEAD
            count += 1
        if count:
            self.base = self.ends[count - 1]
            del self.pieces[:count], self.ends[:count]
            self.bytes -= dropped
        if not self.pieces:
            self.last = None
        return dropped

    def _text_from(self, cursor: Cursor) -> StreamEvent:
        if cursor.offset < self.base:
            # Nothing is left to give: the cursor sees by the offset what is missing.
            return self._event(cursor, self.base, self.pieces[0] if self.pieces else "")
        first = bisect_right(self.ends, cursor.offset)
        offset = self.ends[first] - len(self.pieces[first])
        last, size = first + 1, len(self.pieces[first])
        while last < len(self.pieces) and size + len(self.pieces[last]) <= _LARGEST_PIECE:
            size += len(self.pieces[last])
            last += 1
        return self._event(cursor, offset, "".join(self.pieces[first:last]))

    def _event(self, cursor: Cursor, offset: int, text: str) -> StreamEvent:
        return StreamEvent(
            request_id=cursor.request_id,
            attempt=self.attempt,
            offset=offset,
            kind="text" if offset or text else "began",
            text=text,
        )
