"""How many calls a worker takes from a queue whose deployment may have no room."""

import asyncio
import threading
from contextlib import ExitStack
from typing import Any, cast

from temporalio.worker import SlotPermit, SlotReleaseContext

from activities.slots import SEATS, RoomyCalls
from holdfast.gate import Line

CONTEXT: Any = None
"""What the SDK tells of the worker; not looked at."""


def released(slots: RoomyCalls, permit: SlotPermit) -> None:
    """Give a slot back as the SDK does: from a thread of its own."""
    thread = threading.Thread(target=slots.release_slot, args=[cast(SlotReleaseContext, None)])
    thread.start()
    thread.join()


async def blocked(slots: RoomyCalls) -> "asyncio.Task[SlotPermit]":
    """A reservation that is not granted."""
    reserving = asyncio.create_task(slots.reserve_slot(CONTEXT))
    done, _ = await asyncio.wait([reserving], timeout=0.05)
    assert not done
    return reserving


async def test_no_more_calls_are_taken_than_there_are_slots_until_one_is_free() -> None:
    slots = RoomyCalls(2, Line())
    permits = [await slots.reserve_slot(CONTEXT) for _ in range(2)]
    assert slots.try_reserve_slot(CONTEXT) is None
    reserving = await blocked(slots)
    released(slots, permits[0])
    await asyncio.wait_for(reserving, 60)
    assert slots.try_reserve_slot(CONTEXT) is None


async def test_while_enough_stand_in_line_no_more_are_taken() -> None:
    line = Line()
    slots = RoomyCalls(100, line)
    with ExitStack() as stack:
        for _ in range(SEATS):
            assert slots.try_reserve_slot(CONTEXT) is not None
            stack.enter_context(line.standing())
        reserving = await blocked(slots)
    await asyncio.wait_for(reserving, 60)


async def test_a_reservation_that_is_given_up_takes_no_slot() -> None:
    slots = RoomyCalls(1, Line())
    permit = await slots.reserve_slot(CONTEXT)
    reserving = await blocked(slots)
    reserving.cancel()
    await asyncio.wait([reserving])
    released(slots, permit)
    assert slots.try_reserve_slot(CONTEXT) is not None
