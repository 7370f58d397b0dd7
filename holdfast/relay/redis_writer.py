"""Sends what is published to Redis, behind the publishers' backs.

Whatever is published while one round trip is under way goes out together with the next, and neighbouring pieces of
text as one entry. So a quiet stream waits for nothing, and a busy one costs fewer and larger entries. While Redis is
away, what is published waits in memory up to a bound, and what does not fit is dropped: the model call goes on.
"""

import asyncio
import hashlib
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from holdfast.contracts import StreamEvent, StreamKind
from holdfast.relay.redis_client import AWAY, COMMAND_SECONDS, FIRST_WAIT, LONGEST_WAIT
from holdfast.relay.wire import APPEND, CLOSING, Entry, entry

_LOGGER = logging.getLogger(__name__)
_SCRIPT_DIGEST = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()
_PIECE_OVERHEAD = 64
"""Bytes of a waiting piece beside its string."""


@dataclass(frozen=True)
class Bounds:
    """How much is held, where and for how long."""

    characters_per_request: int
    """Most characters of one request in Redis."""
    pending_bytes: int
    """Most memory for what waits to be sent."""
    keep_milliseconds: int
    """How long Redis keeps a closed request."""
    open_milliseconds: int
    """How long Redis keeps a request that is not closed, from the last event on."""


class RedisWriter:
    """One task and one connection that append to the streams of all requests of this process.

    Args:
        client: Used by this writer only.
        prefix: How every key begins.
        bounds: How much is held.
    """

    def __init__(self, client: Redis, prefix: str, bounds: Bounds) -> None:
        self._client = client
        self._prefix = prefix
        self._bounds = bounds
        self._pending: dict[str, _Outbox] = {}
        self._bytes = 0
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._away = False
        self._dropping = False

    def put(self, event: StreamEvent) -> None:
        """Take an event to be sent. Neither waits nor fails."""
        outbox = self._outbox(event.request_id)
        self._bytes += outbox.add(event)
        if self._bytes > self._bounds.pending_bytes:
            self._bytes -= outbox.drop()
            if not self._dropping:
                self._dropping = True
                _LOGGER.warning(
                    "Stream events are dropped: Redis takes less than is published, and %d bytes wait. "
                    "Their followers get the final answer only.",
                    self._bytes,
                )

    async def close(self, request_id: str, wait_seconds: float) -> None:
        """Send the end of a request, and wait a while until it is sent; it is sent later if Redis is away."""
        outbox = self._outbox(request_id)
        outbox.closing = True
        sent = asyncio.get_running_loop().create_future()
        outbox.waiting.append(sent)
        await asyncio.wait([sent], timeout=wait_seconds)

    async def aclose(self, wait_seconds: float) -> None:
        """Send what waits, within a bound, and stop."""
        if self._task is None:
            return
        self._stopping = True
        self._work.set()
        _, unfinished = await asyncio.wait([self._task], timeout=wait_seconds)
        if unfinished:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _outbox(self, request_id: str) -> "_Outbox":
        outbox = self._pending.get(request_id)
        if outbox is None:
            outbox = self._pending[request_id] = _Outbox()
            self._work.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="relay-writer")
        return outbox

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while self._pending or not self._stopping:
            if not self._pending:
                self._work.clear()
                await self._work.wait()
                continue
            batch, self._pending = self._pending, {}
            rest = await self._send(batch)
            if not rest:
                self._is_back()
                wait = FIRST_WAIT
                continue
            self._put_back(rest)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _send(self, batch: dict[str, "_Outbox"]) -> dict[str, "_Outbox"]:
        """Send a batch and return what has to be sent again."""
        pipeline = self._client.pipeline(transaction=False)
        for request_id, outbox in batch.items():
            milliseconds = self._bounds.keep_milliseconds if outbox.closing else self._bounds.open_milliseconds
            arguments = [part for each in outbox.entries() for part in each]
            pipeline.evalsha(
                _SCRIPT_DIGEST,
                1,
                self._prefix + request_id,
                milliseconds,
                self._bounds.characters_per_request,
                *arguments,
            )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                results = await pipeline.execute(raise_on_error=False)
                unknown = any(isinstance(result, NoScriptError) for result in results)
                if unknown:
                    await self._client.script_load(APPEND)
        except (RedisError, OSError) as error:
            self._is_away(error)
            return batch
        rest = {}
        for (request_id, outbox), result in zip(batch.items(), results, strict=True):
            if isinstance(result, NoScriptError):
                rest[request_id] = outbox
            elif isinstance(result, AWAY):
                self._is_away(result)
                rest[request_id] = outbox
            else:
                self._bytes -= outbox.bytes
                outbox.sent()
                if isinstance(result, ResponseError):
                    _LOGGER.error("Redis refused events of stream %s: %s", request_id, result)
        # What is sent twice is stored once, so there is no harm in what was stored before the script was missed.
        return await self._send(rest) if unknown else rest

    def _put_back(self, batch: dict[str, "_Outbox"]) -> None:
        for request_id, outbox in batch.items():
            if (newer := self._pending.get(request_id)) is not None:
                self._bytes -= outbox.continue_with(newer)
            self._pending[request_id] = outbox

    def _is_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            _LOGGER.warning(
                "Stream events wait in memory, because Redis does not take them (%s).", type(error).__name__
            )

    def _is_back(self) -> None:
        if self._away or self._dropping:
            self._away = self._dropping = False
            _LOGGER.info("Redis takes stream events again.")


@dataclass(slots=True)
class _Part:
    """Neighbouring pieces of text, or one event of another kind."""

    kind: StreamKind
    offset: int
    end: int
    texts: list[str] = field(default_factory=list)


class _Outbox:
    """What waits to be sent for one request: events of its newest attempt, joined, and whether it is closed."""

    __slots__ = ("attempt", "bytes", "closing", "parts", "waiting")

    def __init__(self) -> None:
        self.attempt = 0
        self.bytes = 0
        self.parts: list[_Part] = []
        self.closing = False
        self.waiting: list[asyncio.Future[None]] = []

    def add(self, event: StreamEvent) -> int:
        """Take an event in, and return by how many bytes more wait, which may be fewer."""
        if event.attempt < self.attempt or self.closing:
            return 0
        before = self.bytes
        if event.attempt > self.attempt:
            self.drop()
            self.attempt = event.attempt
        self._join(_Part(event.kind, event.offset, event.end, [event.text]))
        self.bytes += sys.getsizeof(event.text) + _PIECE_OVERHEAD
        return self.bytes - before

    def drop(self) -> int:
        """Forget the events, but not that the request is closed; return how many bytes waited."""
        dropped, self.bytes = self.bytes, 0
        self.parts = []
        return dropped

    def continue_with(self, newer: "_Outbox") -> int:
        """Take over what came after, and return how many bytes of a superseded attempt that made void."""
        dropped = 0
        if newer.attempt > self.attempt:
            dropped, self.attempt = self.drop(), newer.attempt
        if not self.closing and newer.attempt == self.attempt:
            for part in newer.parts:
                self._join(part)
            self.bytes += newer.bytes
        else:
            dropped += newer.drop()
        self.closing |= newer.closing
        self.waiting += newer.waiting
        return dropped

    def entries(self) -> list[Entry]:
        """What is to be stored, in order."""
        entries = [entry(self.attempt, part.offset, part.kind, "".join(part.texts)) for part in self.parts]
        return [*entries, CLOSING] if self.closing else entries

    def sent(self) -> None:
        """Let those who wait for the close go on."""
        for future in self.waiting:
            if not future.done():
                future.set_result(None)

    def _join(self, part: _Part) -> None:
        last = self.parts[-1] if self.parts else None
        if last is not None and last.kind == part.kind == "text" and last.end == part.offset:
            last.end = part.end
            last.texts += part.texts
        else:
            self.parts.append(part)
