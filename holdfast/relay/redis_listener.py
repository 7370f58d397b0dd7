"""Hears what is published in Redis, for all followers of this process over one connection.

A subscription says only what happens from its confirmation on. So a confirmation, the first as well as the one after a
lost connection, makes the followers of that stream look at what is stored; so does an inbox that ran over, because its
follower is slow. What they hear twice, their cursors drop.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from holdfast.contracts import StreamEvent
from holdfast.relay import wire
from holdfast.relay.redis_client import COMMAND_SECONDS, FIRST_WAIT, LONGEST_WAIT

_INBOX_PIECES = 1_000
_INBOX_CHARACTERS = 262_144
_SILENCE_SECONDS = 5.0
"""How long the connection may be silent before it is asked whether it is alive, and then may take to answer."""


class Inbox:
    """What one follower has heard and not yet taken."""

    __slots__ = ("changed", "characters", "events", "lost", "request_id", "stale")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.changed = asyncio.Event()
        self.events: list[StreamEvent | None] = []
        """Events in order; `None` is the close."""
        self.characters = 0
        self.stale = False
        """Look at what is stored: something may have been missed."""
        self.lost = False
        """Nothing will be heard for longer than a follower should wait."""

    def put(self, event: StreamEvent | None) -> None:
        """Add what was heard; too much of it is forgotten, to be read again from the store."""
        self.events.append(event)
        if event is not None:
            self.characters += len(event.text)
        if len(self.events) > _INBOX_PIECES or self.characters > _INBOX_CHARACTERS:
            self.refresh()
        self.changed.set()

    def refresh(self) -> None:
        """Have the follower look at what is stored, where all that was heard so far is too."""
        self.events.clear()
        self.characters = 0
        self.stale, self.lost = True, False
        self.changed.set()

    def take(self) -> list[StreamEvent | None]:
        """What was heard, in order; `None` is the close."""
        events, self.events = self.events, []
        self.characters = 0
        return events


class RedisListener:
    """One task and one connection that hear all streams that are followed in this process.

    Args:
        client: Where the connection comes from.
        prefix: How every channel begins.
        patience_seconds: How long Redis may be away before followers are told that they are lost.
    """

    def __init__(self, client: Redis, prefix: str, patience_seconds: float) -> None:
        self._client = client
        self._prefix = prefix
        self._patience = patience_seconds
        self._inboxes: dict[bytes, set[Inbox]] = {}
        self._asked: set[bytes] = set()
        """Channels for which the connection has a subscription, or has asked for one."""
        self._confirmed: set[bytes] = set()
        self._changed = asyncio.Event()
        self._heard = True
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @contextmanager
    def inbox(self, request_id: str) -> Iterator[Inbox]:
        """Hear a stream for as long as the context lasts."""
        channel = (self._prefix + request_id).encode()
        inbox = Inbox(request_id)
        self._inboxes.setdefault(channel, set()).add(inbox)
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="relay-listener")
        if channel in self._confirmed:
            inbox.refresh()
        elif self._closed:
            inbox.put(None)
        self._changed.set()
        try:
            yield inbox
        finally:
            inboxes = self._inboxes[channel]
            inboxes.discard(inbox)
            if not inboxes:
                del self._inboxes[channel]
                self._changed.set()

    async def aclose(self) -> None:
        """Stop hearing; followers are told as if their requests were closed."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for inbox in self._all():
            inbox.put(None)

    def _all(self) -> list[Inbox]:
        return [inbox for inboxes in self._inboxes.values() for inbox in inboxes]

    async def _run(self) -> None:
        wait, heard_at = FIRST_WAIT, time.monotonic()
        while True:
            try:
                connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's own
                try:
                    wait = FIRST_WAIT
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._read(connection))
                        group.create_task(self._subscribe(connection))
                finally:
                    heard_at = time.monotonic()
                    self._asked.clear()
                    self._confirmed.clear()
                    await connection.disconnect(nowait=True)
                    await self._client.connection_pool.release(connection)
            except* (RedisError, OSError):
                if time.monotonic() - heard_at > self._patience:
                    for inbox in self._all():
                        inbox.lost = True
                        inbox.changed.set()
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _subscribe(self, connection: Connection) -> None:
        """Keep the subscriptions equal to what is followed, and ask a silent connection whether it is alive."""
        self._heard = True
        while True:
            self._changed.clear()
            wanted = self._inboxes.keys()
            if gone := self._asked - wanted:
                self._asked -= gone
                self._confirmed -= gone
                await _send(connection, "UNSUBSCRIBE", *gone)
            if fresh := wanted - self._asked:
                self._asked |= fresh
                await _send(connection, "SUBSCRIBE", *fresh)
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                if not self._heard:
                    raise RedisConnectionError("The connection does not answer.") from None
                self._heard = False
                await _send(connection, "PING")

    async def _read(self, connection: Connection) -> None:
        while True:
            response = await connection.read_response(timeout=math.inf)
            self._heard = True
            if not isinstance(response, list):
                continue
            match response:
                case [b"message", bytes(channel), bytes(payload)] if inboxes := self._inboxes.get(channel):
                    event = wire.event(next(iter(inboxes)).request_id, payload)
                    for inbox in inboxes:
                        inbox.put(event)
                case [b"subscribe", bytes(channel), _] if channel in self._asked:
                    self._confirmed.add(channel)
                    for inbox in self._inboxes.get(channel, ()):
                        inbox.refresh()


async def _send(connection: Connection, *command: str | bytes) -> None:
    async with asyncio.timeout(COMMAND_SECONDS):
        await connection.send_command(*command, check_health=False)
