"""A call of a tool as the engine runs it: heartbeats, cancellation, and how often it is tried."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from activities.tools import Tools
from holdfast.contracts import CallToolInput, ContentRef, PlannedCall, ToolReturned
from holdfast.tools.calling import MOST_TRIES
from holdfast.tools.equipment import Equipment

GIVEN = CallToolInput(
    tenant="acme",
    user="ada",
    request_id="req_00000001",
    agent="desk",
    call=PlannedCall(key="1.0", id="call_1", name="refund"),
    catalog=ContentRef(sha256="0" * 64, size=1),
)
RETURNED = ToolReturned(key="1.0", id="call_1", name="refund", ok=True)


class Hands:
    """Stands for the equipment: returns when it is let, and remembers what it was asked."""

    def __init__(self, *, waits: bool = False) -> None:
        self.asked: list[dict[str, int]] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = False
        if not waits:
            self.may_end.set()

    async def call(self, given: CallToolInput, **attempt: int) -> ToolReturned:
        """Make the call."""
        self.asked.append(attempt)
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return RETURNED


def tools(hands: Hands) -> Tools:
    return Tools(cast(Equipment, hands))


def environment(**info: Any) -> ActivityEnvironment:
    running = ActivityEnvironment()
    running.info = replace(running.info, **info)
    return running


@pytest.mark.parametrize(
    ("policy", "most"),
    [(None, MOST_TRIES), (RetryPolicy(), MOST_TRIES), (RetryPolicy(maximum_attempts=5), 5)],
)
async def test_the_call_learns_which_attempt_it_is_and_which_is_the_last(policy: RetryPolicy | None, most: int) -> None:
    hands = Hands()
    await environment(attempt=2, retry_policy=policy).run(tools(hands).call_tool, GIVEN)
    assert hands.asked == [{"attempt": 2, "most": most}]


async def test_a_long_call_beats_until_it_is_over() -> None:
    hands, beats = Hands(waits=True), asyncio.Semaphore(0)
    running = environment(heartbeat_timeout=timedelta(milliseconds=30))
    running.on_heartbeat = lambda *_: beats.release()
    working = asyncio.ensure_future(running.run(tools(hands).call_tool, GIVEN))
    async with asyncio.timeout(60):
        for _ in range(3):
            await beats.acquire()
    hands.may_end.set()
    assert await working == RETURNED


async def test_a_cancellation_reaches_the_tool() -> None:
    hands, running = Hands(waits=True), environment()
    working = asyncio.ensure_future(running.run(tools(hands).call_tool, GIVEN))
    await hands.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert hands.cancelled
