"""Notices that somebody's inbox has changed, so that pages need not be reloaded: one look for all who have it open.

The engine's index tells nobody when it changes, so it is asked on a clock, but only while somebody listens, and at once
when a decision was taken through this gateway.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.execution import Execution, RequestEngine
from gateway.identity import Caller
from gateway.pages.questions import version_of
from holdfast.errors import Unavailable

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=2)
SHOWN = 50
"""Questions on one page of the inbox."""


@dataclass
class Seen:
    """What an inbox was when it was last looked at."""

    version: str | None = None
    """`None` before the first look; empty while the engine does not answer."""
    count: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _readers: int = 0
    _task: asyncio.Task[None] | None = None

    @property
    def changed(self) -> asyncio.Event:
        """Set when it has become something else than it is now; take it before reading what it is."""
        return self._changed

    def become(self, version: str, count: int) -> None:
        """Note what it is, and wake the readers if it is something else."""
        if (version, count) != (self.version, self.count):
            self.version, self.count = version, count
            self._changed.set()
            self._changed = asyncio.Event()


class InboxWatch:
    """The inboxes that somebody has open.

    Args:
        engine: Lists what waits.
        every: How often to look.
    """

    def __init__(self, engine: RequestEngine, every: timedelta = LOOK_EVERY) -> None:
        self._engine = engine
        self._every = every
        self._seen: dict[tuple[str, tuple[str, ...]], Seen] = {}

    @asynccontextmanager
    async def watching(self, caller: Caller) -> AsyncIterator[Seen]:
        """Watch a caller's inbox for the duration of the block, together with whoever has the same."""
        key = (caller.tenant, caller.names)
        if (seen := self._seen.get(key)) is None:
            seen = self._seen[key] = Seen()
            seen._task = asyncio.create_task(self._look(*key, seen), name="watch an inbox")
        seen._readers += 1
        try:
            yield seen
        finally:
            seen._readers -= 1
            if not seen._readers:
                del self._seen[key]
                if seen._task is not None:
                    seen._task.cancel()

    def nudge(self, tenant: str) -> None:
        """Look at once at the inboxes of a tenant: a decision was taken."""
        for (of_tenant, _), seen in self._seen.items():
            if of_tenant == tenant:
                seen._nudged.set()

    async def _look(self, tenant: str, names: tuple[str, ...], seen: Seen) -> None:
        told: set[str] = set()
        while True:
            try:
                found, count = await waiting(self._engine, tenant, names)
            except Unavailable:
                seen.become("", seen.count)
            except Exception as error:
                # Whoever has the inbox open believes it, so the next look has to come whatever this one met.
                seen.become("", seen.count)
                if (kind := type(error).__name__) not in told:
                    told.add(kind)
                    log.error("The inboxes of tenant %r cannot be looked at (%s); this is tried again.", tenant, kind)
            else:
                seen.become(version_of(found, count), count)
            try:
                await asyncio.wait_for(seen._nudged.wait(), self._every.total_seconds())
            except TimeoutError:
                continue
            seen._nudged.clear()


async def waiting(
    engine: RequestEngine, tenant: str, names: tuple[str, ...], page: int = 1
) -> tuple[list[Execution], int]:
    """One page of an inbox, and how many questions there are on all of them."""
    found, count = await asyncio.gather(
        engine.approvals(tenant, names, SHOWN, (page - 1) * SHOWN), engine.count_approvals(tenant, names)
    )
    # The index may count one that has just been decided; what was read is nearer to the truth.
    return found, count if len(found) == SHOWN or page > 1 else len(found)
