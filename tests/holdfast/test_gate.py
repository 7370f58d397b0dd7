"""Calls that stand before a deployment without room: who is told, how long, and what ends it."""

import asyncio
from datetime import timedelta

import pytest

from holdfast.contracts import Usage
from holdfast.errors import Outcome, Throttled
from holdfast.gate import PATIENCE_ALONE, Entry, Gate, Guarded
from holdfast.health import MemoryHealth
from holdfast.limits import MemoryLimiter, Scope

TOKENS = Guarded("d", "key", (Scope("key", tokens_per_minute=1_000),))


@pytest.fixture
def gate() -> Gate:
    """A gate that has let nothing through yet."""
    return Gate(MemoryLimiter(), MemoryHealth())


async def enter(gate: Gate, ticket: str, *, sole: bool = True) -> Entry:
    """Ask for most of a minute's tokens."""
    return await gate.enter(TOKENS, ticket, 900, sole=sole)


async def standing(gate: Gate, calls: int) -> None:
    """Wait until so many stand in line."""
    async with asyncio.timeout(60):
        while gate.line("d").length != calls:  # noqa: ASYNC110 - a line has no event for who joins
            await asyncio.sleep(0)


async def test_who_waits_is_let_through_as_soon_as_a_call_gives_back_what_it_did_not_use(gate: Gate) -> None:
    first = await enter(gate, "a")
    waiting = asyncio.ensure_future(enter(gate, "b"))
    await standing(gate, 1)
    told = asyncio.Event()
    gate.line("d").when_shorter.append(told.set)
    await gate.leave(first, Outcome.OK, usage=Usage(input_tokens=10))
    # By itself it would look again after a quarter of a minute.
    second = await asyncio.wait_for(waiting, 12)
    assert second.admitted.ticket == "b"
    assert told.is_set()
    assert gate.line("d").length == 0


async def test_a_call_that_was_not_made_lets_the_next_one_through_too(gate: Gate) -> None:
    first = await enter(gate, "a")
    waiting = asyncio.ensure_future(enter(gate, "b"))
    await standing(gate, 1)
    await gate.turned_back(first)
    assert (await asyncio.wait_for(waiting, 12)).admitted.ticket == "b"


async def test_with_another_deployment_a_long_wait_is_not_sat_out_and_its_place_is_given_up(gate: Gate) -> None:
    await enter(gate, "a")
    with pytest.raises(Throttled) as caught:
        await enter(gate, "b", sole=False)
    assert timedelta(seconds=2) < caught.value.wait < PATIENCE_ALONE
    assert gate.line("d").length == 0


async def test_when_the_process_ends_whoever_only_stands_in_line_is_sent_back(gate: Gate) -> None:
    entry = await enter(gate, "a")
    waiting = [asyncio.ensure_future(enter(gate, ticket)) for ticket in "bc"]
    await standing(gate, 2)
    gate.line("d").disperse()
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 12)
    assert [type(one) for one in ended] == [Throttled, Throttled]
    await gate.leave(entry, Outcome.OK, usage=Usage())


async def test_who_is_cancelled_keeps_nobody_behind_waiting(gate: Gate) -> None:
    first = await enter(gate, "a")
    waiting, behind = (asyncio.ensure_future(enter(gate, ticket)) for ticket in "bc")
    await standing(gate, 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.line("d").length == 1
    await gate.leave(first, Outcome.OK, usage=Usage(input_tokens=10))
    assert (await asyncio.wait_for(behind, 12)).admitted.ticket == "c"
