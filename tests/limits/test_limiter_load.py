"""Overload: the quota is used up and never passed, in one process and by several together."""

import asyncio
import heapq
import itertools
import random
import sys
from dataclasses import dataclass, field

import pytest

from holdfast.limits import Admitted, MemoryLimiter, Scope
from tests.limits.competitor import SCOPE, TOKENS
from tests.limits.conftest import Clock, redis_prefix

MINUTE_US = 60_000_000


@dataclass(order=True)
class Event:
    at: int
    number: int
    ticket: int = field(compare=False)
    admitted: Admitted | None = field(compare=False, default=None)
    actual: int = field(compare=False, default=0)


@pytest.mark.parametrize("all_at_once", [False, True])
async def test_twice_the_quota_uses_it_to_the_full_and_in_order(all_at_once: bool) -> None:
    """Two minutes' worth of calls in one minute, each reserving twice what it uses on average."""
    quota, reserved, mean, calls = 600_000, 1_000, 500, 2_400
    scope = Scope("d", tokens_per_minute=quota)
    clock, chance, numbers = Clock(), random.Random(7), itertools.count()
    limiter, start = MemoryLimiter(clock), clock.microseconds
    agenda = [
        Event(start + (0 if all_at_once else MINUTE_US * ticket // calls), next(numbers), ticket)
        for ticket in range(calls)
    ]
    sent: list[tuple[int, int]] = []
    order: list[int] = []
    asked = 0
    while agenda:
        event = heapq.heappop(agenda)
        clock.microseconds = max(clock.microseconds, event.at)
        if event.admitted is not None:
            await limiter.settle(event.admitted, event.actual)
            continue
        asked += 1
        answer = await limiter.admit(str(event.ticket), [scope], reserved)
        if isinstance(answer, Admitted):
            actual = chance.randint(mean // 2, mean + mean // 2)
            sent.append((clock.microseconds - start, actual))
            order.append(event.ticket)
            ends = clock.microseconds + int(1_000_000 * chance.lognormvariate(0, 0.5))
            heapq.heappush(agenda, Event(ends, next(numbers), event.ticket, answer, actual))
        else:
            # Whoever waits wakes a little late, as timers do.
            wakes = clock.microseconds + int(answer.duration.total_seconds() * 1_000_000) + chance.randint(0, 50_000)
            heapq.heappush(agenda, Event(wakes, next(numbers), event.ticket))
    assert sorted(order) == list(range(calls))
    for minute in range(2):
        used = sum(actual for at, actual in sent if minute * MINUTE_US <= at < (minute + 1) * MINUTE_US)
        assert 0.95 * quota <= used <= quota, f"minute {minute}"
    amounts = dict[int, int]()
    for at, actual in sent:
        amounts[at] = amounts.get(at, 0) + actual
    moments, running, first = sorted(amounts), 0, 0
    for moment in moments:
        running += amounts[moment]
        while moments[first] <= moment - MINUTE_US:
            running -= amounts[moments[first]]
            first += 1
        assert running <= quota
    displacement = sum(abs(position - ticket) for position, ticket in enumerate(order)) / calls
    assert displacement < calls * 0.03, "nearly in order of arrival"
    assert asked < 8 * calls, "no stampede"


async def test_several_processes_together_keep_one_limit() -> None:
    processes, calls = 4, 25
    async with redis_prefix() as (url, prefix, _):
        running = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.limits.competitor", url, prefix, f"p{number}", str(calls)),
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(processes)
        ]
        async with asyncio.timeout(120):
            outputs = [(await process.communicate())[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes
    lines = [line.split() for output in outputs for line in output.decode().splitlines()]
    assert len(lines) == processes * calls
    admitted = sorted(int(at) for at, _, _ in lines)
    assert SCOPE.requests_per_minute is not None
    assert SCOPE.tokens_per_minute is not None
    most = min(SCOPE.requests_per_minute // 60, SCOPE.tokens_per_minute // 60 // TOKENS)
    for earlier, later in zip(admitted, admitted[most:], strict=False):
        assert later - earlier >= 1_000_000, f"more than {most} calls within a window of one second"
    changes = sorted(
        [(float(began), 1) for _, began, _ in lines] + [(float(ended), -1) for _, _, ended in lines],
    )
    assert SCOPE.concurrency is not None
    assert max(itertools.accumulate(change for _, change in changes)) <= SCOPE.concurrency
