"""The relay of many processes: every request's events in a Redis stream, heard by whoever follows.

Redis 6.2 or newer, not a cluster. Three parts: the writer appends, the listener hears, and a follower reads what is
stored before and between.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import cast

from redis.asyncio import Redis

from holdfast.contracts import StreamEvent
from holdfast.errors import RelayGap
from holdfast.relay import wire
from holdfast.relay.cursor import Cursor
from holdfast.relay.redis_client import AWAY, FIRST_WAIT, LONGEST_WAIT, connect
from holdfast.relay.redis_listener import RedisListener
from holdfast.relay.redis_writer import Bounds, RedisWriter

_READING_CONNECTIONS = 8
"""Followers read what is stored over these; how many followers there are does not matter, because reading is short."""
_PAGE = 200
_READ_SECONDS = 10.0
"""How long one page may take, with the wait for a connection when very many followers come at once."""
_CLOSE_SECONDS = 2.0
"""How long a close waits for Redis. It is sent later if that is not enough."""


class RedisRelay:
    """Streams between processes.

    Memory in Redis is bounded for each request, and by time: a request is kept for `keep` after its close and for
    `open_for` after its last event. `maxmemory` bounds the whole; what Redis evicts is a gap to who still needs it.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        prefix: How every key begins. The key of a request is the prefix and its id.
        keep: How long a closed request is kept.
        open_for: How long a request is kept that nobody publishes to or closes.
        max_characters_per_request: Beyond it the older half is dropped; who has not had it gets `RelayGap`.
        max_pending_bytes: Memory for what is published and not yet in Redis. What does not fit is dropped.
        patience: How long a follower waits for a Redis that does not answer before it gets `RelayGap`.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "holdfast:stream:",
        *,
        keep: timedelta = timedelta(minutes=10),
        open_for: timedelta = timedelta(days=1),
        max_characters_per_request: int = 2_000_000,
        max_pending_bytes: int = 32 * 1024 * 1024,
        patience: timedelta = timedelta(seconds=30),
    ) -> None:
        bounds = Bounds(
            characters_per_request=max_characters_per_request,
            pending_bytes=max_pending_bytes,
            keep_milliseconds=round(keep.total_seconds() * 1000),
            open_milliseconds=round(open_for.total_seconds() * 1000),
        )
        self._prefix = prefix
        self._patience = patience.total_seconds()
        # One connection each for the writer and the listener, which readers must not be able to take.
        self._clients: tuple[Redis, Redis, Redis] = (
            connect(url, 1),
            connect(url, 1),
            connect(url, _READING_CONNECTIONS),
        )
        self._writer = RedisWriter(self._clients[0], prefix, bounds)
        self._listener = RedisListener(self._clients[1], prefix, self._patience)
        self._reader = self._clients[2]

    async def publish(self, event: StreamEvent) -> None:
        """See `Relay.publish`."""
        self._writer.put(event)

    async def follow(self, request_id: str, *, attempt: int = 0, offset: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """See `Relay.follow`."""
        cursor = Cursor(request_id, attempt, offset)
        unread: str | None = None
        with self._listener.inbox(request_id) as inbox:
            while True:
                if inbox.stale:
                    inbox.stale, unread = False, wire.after(cursor)
                stored = unread is not None
                if unread is not None:
                    events, unread = await self._stored(request_id, unread)
                elif inbox.lost:
                    raise self._gap(request_id)
                elif inbox.events:
                    events = inbox.take()
                else:
                    inbox.changed.clear()
                    await inbox.changed.wait()
                    continue
                for event in events:
                    if event is None:
                        cursor.check_complete()
                        return
                    try:
                        pieces = cursor.take(event)
                    except RelayGap:
                        if stored:
                            raise
                        # Only what is stored tells whether it is gone or was just not heard.
                        inbox.refresh()
                        break
                    for due in pieces:
                        yield due

    async def close(self, request_id: str) -> None:
        """See `Relay.close`."""
        await self._writer.close(request_id, _CLOSE_SECONDS)

    async def aclose(self) -> None:
        """See `Relay.aclose`."""
        await self._writer.aclose(_CLOSE_SECONDS)
        await self._listener.aclose()
        for client in self._clients:
            await client.aclose()
            await client.connection_pool.disconnect()

    async def _stored(self, request_id: str, start: str) -> tuple[list[StreamEvent | None], str | None]:
        """One page of what is stored, `None` being the close, and where the next page starts if there is one."""
        wait, until = FIRST_WAIT, time.monotonic() + self._patience
        while True:
            try:
                async with asyncio.timeout(min(self._patience, _READ_SECONDS)):
                    found = await self._reader.xrange(self._prefix + request_id, start, "+", _PAGE)
                break
            except AWAY as error:
                if time.monotonic() > until:
                    raise self._gap(request_id) from error
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        # The client's type covers text, other protocols and deleted entries too, none of which occur here.
        page = cast(list[tuple[bytes, dict[bytes, bytes]]], found)
        events = [wire.event(request_id, fields[wire.FIELD]) for _, fields in page]
        return events, f"({page[-1][0].decode()}" if len(page) == _PAGE else None

    def _gap(self, request_id: str) -> RelayGap:
        return RelayGap(
            f"Redis has not answered for {self._patience:.0f} s, so the stream of request {request_id} cannot go on: "
            "read the final answer instead."
        )
