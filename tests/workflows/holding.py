"""Holds the simulated model back until a test lets it go on: no test has to guess how long something else takes."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from simulator.batches import Batch
from simulator.exchange import Exchange


@contextmanager
def replies_held() -> Iterator[asyncio.Event]:
    """Replies that are scripted to take time take until the event is set, or until whoever waits for them has gone."""
    released = asyncio.Event()

    async def pause(exchange: Exchange, seconds: float) -> None:
        if seconds > 0:
            await _first(exchange.hang(), released.wait())

    with patch.object(Exchange, "pause", pause):
        yield released
        released.set()


@contextmanager
def batches_held() -> Iterator[asyncio.Event]:
    """No batch goes on before the event is set or the batch is cancelled."""
    released = asyncio.Event()

    async def until(batch: Batch, moment: float) -> None:
        del moment
        await _first(batch._cancel.wait(), released.wait())

    with patch.object(Batch, "_until", until):
        yield released
        released.set()


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return, or raise, as the first of them does."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
