"""How many calls a worker takes from the queue of a deployment whose limits may make them wait.

What a worker has taken can no longer be overtaken, neither by a higher tier nor by a tenant with a larger claim. So
calls without room stay in the engine, which keeps that order, and only a few stand before the gate: enough that none of
the deployment's room is lost while the next is fetched.
"""

import asyncio
import threading

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

from holdfast.gate import Line

SEATS = 2
"""Calls that stand before the gate when no more are fetched."""
POLLS = 2
"""Calls that may be on their way from the engine at the same time; they come however long the line is by then."""


class RoomyCalls(CustomSlotSupplier):
    """Gives out slots while the line before a deployment is short.

    Args:
        slots: Most calls in flight and in line together.
        line: Before the deployment.
    """

    def __init__(self, slots: int, line: Line) -> None:
        self._free = slots
        self._line = line
        self._lock = threading.Lock()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        line.when_shorter.append(self._changed.set)

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a slot."""
        while True:
            self._changed.clear()
            if (permit := self.try_reserve_slot(ctx)) is not None:
                return permit
            await self._changed.wait()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - the base class names it
        """A slot, if there is one now."""
        with self._lock:
            if self._free <= 0 or self._line.length >= SEATS:
                return None
            self._free -= 1
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """A slot that waited for a call has got one; it was counted before."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002 - the base class names it
        """A slot is free again. The engine's SDK calls this from threads of its own."""
        with self._lock:
            self._free += 1
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)


def tuner(slots: int, line: Line) -> WorkerTuner:
    """Slots for a worker that serves one deployment, and nothing but calls of it."""
    unused = FixedSizeSlotSupplier(2)
    return WorkerTuner.create_composite(
        workflow_supplier=unused,
        activity_supplier=RoomyCalls(slots, line),
        local_activity_supplier=unused,
        nexus_supplier=unused,
    )
