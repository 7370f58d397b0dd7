"""`equip`, `vet`, `call_tool`, `transcribe`: the steps around calls of tools.

Only `call_tool` is an ordinary activity: a tool may take long, its worker may die in the middle of it, and a request
that is cancelled has to reach it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity

from holdfast.contracts import (
    CallToolInput,
    EquipInput,
    Equipped,
    ToolReturned,
    Transcribed,
    TranscribeInput,
    VetInput,
    Vetted,
)
from holdfast.tools.calling import MOST_TRIES
from holdfast.tools.equipment import Equipment

LONGEST_BEAT = timedelta(seconds=3)
"""Between two beats, whatever the timeout: a cancellation comes with a beat's reply."""


class Tools:
    """The steps over one equipment."""

    def __init__(self, equipment: Equipment) -> None:
        self._equipment = equipment

    @activity.defn(name="equip")
    async def equip(self, given: EquipInput) -> Equipped:
        """Look up and fix the tools of a run."""
        return await self._equipment.equip(given)

    @activity.defn(name="vet")
    async def vet(self, given: VetInput) -> Vetted:
        """Look at calls before anything is done."""
        return await self._equipment.vet(given)

    @activity.defn(name="call_tool")
    async def call_tool(self, given: CallToolInput) -> ToolReturned:
        """Make one call under heartbeats. What the ledger has of it is not made again."""
        info = activity.info()
        policy = info.retry_policy
        most = policy.maximum_attempts if policy and policy.maximum_attempts else MOST_TRIES
        async with self._beating():
            return await self._equipment.call(given, attempt=info.attempt, most=most)

    @activity.defn(name="transcribe")
    async def transcribe(self, given: TranscribeInput) -> Transcribed:
        """Put results into what the model is shown next."""
        return await self._equipment.transcribe(given)

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Beat three times per heartbeat timeout, from a second on: most calls are over by then."""
        info = activity.info()
        if info.is_local:
            yield
            return
        interval = min(info.heartbeat_timeout or timedelta(seconds=30), 3 * LONGEST_BEAT).total_seconds() / 3

        async def beat() -> None:
            await asyncio.sleep(min(1.0, interval))
            while True:
                activity.heartbeat()
                await asyncio.sleep(interval)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
