"""Follows the milestones of running requests: one follower a request in this process, shared by all who read them.

A follower sleeps in the engine's long poll and asks for the run sheet only when the run has moved. Readers look at what
it has collected, each at its own pace, so a slow reader holds nobody up. The last reader to leave ends it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from gateway.execution import Execution, RequestEngine
from holdfast.contracts import Approval, Event, EventKind, Progress
from holdfast.errors import HoldfastError, Unavailable

_ASKING = (EventKind.APPROVAL_OPENED, EventKind.APPROVAL_ESCALATED)


@dataclass(frozen=True)
class Milestone:
    """One line of a run sheet."""

    event: Event
    question: Approval | None = None
    """What people are asked, if the line says that they are, and nobody had decided when it was read."""


class Followed:
    """What is known of one request. Read `milestones` and `over`, then await `change` for more."""

    def __init__(self) -> None:
        self.milestones: list[Milestone] = []
        """In their order; after a continue-as-new, some may be missing."""
        self.over = False
        """Whether the run has ended."""
        self.failure: HoldfastError | None = None
        """Why the request cannot be followed any longer."""
        self._readers = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def change(self) -> None:
        """Wait until something was added since the last look."""
        await self._changed.wait()

    def take(self, progress: Progress) -> None:
        """Add what a run sheet has beyond what is known."""
        known = self.milestones[-1].event.sequence if self.milestones else 0
        fresh = [event for event in progress.events if event.sequence > known]
        asked = max((event.sequence for event in fresh if event.kind in _ASKING), default=0)
        self.milestones += [Milestone(event, progress.approval if event.sequence == asked else None) for event in fresh]
        if fresh:
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(self, failure: HoldfastError | None) -> None:
        self.over, self.failure = failure is None, failure
        self._changed.set()


class Milestones:
    """The requests that are being followed.

    Args:
        engine: Runs them.
    """

    def __init__(self, engine: RequestEngine) -> None:
        self._engine = engine
        self._followed: dict[str, Followed] = {}

    @asynccontextmanager
    async def following(self, execution: Execution) -> AsyncIterator[Followed]:
        """Follow a request for the duration of the block, together with whoever follows it already."""
        request_id = execution.request_id
        followed = self._followed.get(request_id)
        if followed is None or followed.failure is not None:
            followed = self._followed[request_id] = Followed()
            followed._task = asyncio.create_task(self._follow(request_id, followed), name=f"follow {request_id}")
        followed._readers += 1
        try:
            yield followed
        finally:
            followed._readers -= 1
            if not followed._readers:
                if self._followed.get(request_id) is followed:
                    del self._followed[request_id]
                if followed._task is not None:
                    followed._task.cancel()

    async def so_far(self, execution: Execution) -> list[Milestone]:
        """The milestones of a request that has ended; none when no worker can tell."""
        if not execution.traced:
            return []
        followed = Followed()
        if (progress := await self._progress(execution.request_id)) is not None:
            followed.take(progress)
        return followed.milestones

    async def _follow(self, request_id: str, followed: Followed) -> None:
        try:
            async with aclosing(self._engine.turns(request_id)) as turns:
                async for _ in turns:
                    if (progress := await self._progress(request_id)) is not None:
                        followed.take(progress)
        except HoldfastError as error:
            followed._end(error)
        except BaseException:
            followed._end(Unavailable("The request cannot be followed any longer; read it again."))
            raise
        else:
            followed._end(None)

    async def _progress(self, request_id: str) -> Progress | None:
        try:
            return await self._engine.progress(request_id)
        except Unavailable:
            return None
