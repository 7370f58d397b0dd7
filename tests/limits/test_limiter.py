"""What both limiters promise, said one thing at a time."""

from datetime import timedelta

import pytest

from holdfast.limits import Admitted, Dimension, Scope, TooLarge, Wait
from tests.limits.conftest import Bench

MINUTE = 60.0
BUCKET = 0.5
"""Seconds; the limiter forgets a call at most one bucket late."""


async def admitted(bench: Bench, ticket: str, *scopes: Scope, tokens: int = 1) -> Admitted:
    answer = await bench.limiter.admit(ticket, scopes, tokens)
    assert isinstance(answer, Admitted)
    return answer


async def refused(bench: Bench, ticket: str, *scopes: Scope, tokens: int = 1) -> Wait:
    answer = await bench.limiter.admit(ticket, scopes, tokens)
    assert isinstance(answer, Wait)
    return answer


async def test_requests_beyond_the_limit_wait_until_the_first_lies_a_window_back(bench: Bench) -> None:
    scope = Scope("d", requests_per_minute=2)
    await admitted(bench, "a", scope)
    await bench.advance(10)
    await admitted(bench, "b", scope)
    wait = await refused(bench, "c", scope)
    assert wait.dimension is Dimension.REQUESTS
    assert wait.scope == "d"
    assert timedelta(seconds=MINUTE - 10) <= wait.turn <= timedelta(seconds=MINUTE - 10 + BUCKET)
    await bench.advance(wait.turn.total_seconds() - 0.001)
    await refused(bench, "c", scope)
    await bench.advance(0.001)
    await admitted(bench, "c", scope)
    await refused(bench, "d", scope)


async def test_tokens_are_limited_by_their_sum(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100)
    await admitted(bench, "a", scope, tokens=60)
    wait = await refused(bench, "b", scope, tokens=41)
    assert wait.dimension is Dimension.TOKENS
    await bench.limiter.withdraw("b", [scope])
    await admitted(bench, "c", scope, tokens=40)


async def test_unused_tokens_are_given_back_while_the_reservation_counts(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100)
    call = await admitted(bench, "a", scope, tokens=100)
    await bench.limiter.settle(call, 30)
    await admitted(bench, "b", scope, tokens=70)
    await refused(bench, "c", scope, tokens=1)


async def test_a_correction_after_the_window_gives_nothing_back(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100, concurrency=5)
    call = await admitted(bench, "a", scope, tokens=100)
    for _ in range(3):
        await bench.advance(30)
        await bench.limiter.renew(call)
    await admitted(bench, "b", scope, tokens=100)
    await bench.limiter.settle(call, 1)
    await refused(bench, "c", scope, tokens=1)


async def test_an_overrun_is_charged_even_after_the_window(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100, concurrency=5)
    call = await admitted(bench, "a", scope, tokens=10)
    for _ in range(3):
        await bench.advance(30)
        await bench.limiter.renew(call)
    await bench.limiter.settle(call, 95)
    await refused(bench, "b", scope, tokens=16)
    await bench.limiter.withdraw("b", [scope])
    await admitted(bench, "c", scope, tokens=15)


async def test_an_overrun_inside_the_window_is_charged(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100)
    await bench.limiter.settle(await admitted(bench, "a", scope, tokens=10), 90)
    await refused(bench, "b", scope, tokens=11)


async def test_a_reservation_that_nobody_can_correct_stands(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100)
    await bench.limiter.settle(await admitted(bench, "a", scope, tokens=100), None)
    await refused(bench, "b", scope, tokens=1)


async def test_settling_twice_corrects_once(bench: Bench) -> None:
    scope = Scope("d", tokens_per_minute=100, concurrency=9)
    call = await admitted(bench, "a", scope, tokens=80)
    await admitted(bench, "b", scope, tokens=20)
    await bench.limiter.settle(call, 40)
    await bench.limiter.settle(call, 40)
    await admitted(bench, "c", scope, tokens=40)
    await refused(bench, "d", scope, tokens=1)


async def test_a_slot_is_freed_by_its_own_call_only(bench: Bench) -> None:
    scope = Scope("d", concurrency=1)
    first = await admitted(bench, "a", scope)
    wait = await refused(bench, "b", scope)
    assert wait.dimension is Dimension.CONCURRENCY
    await bench.limiter.settle(first, None)
    await admitted(bench, "b", scope)
    await bench.limiter.settle(first, None)
    await refused(bench, "c", scope)


async def test_the_slot_of_a_dead_worker_frees_itself_and_that_of_a_live_one_does_not(bench: Bench) -> None:
    scope = Scope("d", concurrency=2)
    await admitted(bench, "dead", scope)
    alive = await admitted(bench, "alive", scope)
    await bench.advance(40)
    await bench.limiter.renew(alive)
    await bench.advance(20)
    await admitted(bench, "a", scope)
    await refused(bench, "b", scope)


async def test_a_renewal_after_the_end_takes_no_slot(bench: Bench) -> None:
    scope = Scope("d", concurrency=1)
    call = await admitted(bench, "a", scope)
    await bench.limiter.settle(call, None)
    await bench.limiter.renew(call)
    await admitted(bench, "b", scope)


async def test_a_refusal_by_one_scope_takes_nothing_from_the_others(bench: Bench) -> None:
    tenant = Scope("tenant", requests_per_minute=1)
    deployment = Scope("deployment", requests_per_minute=2, tokens_per_minute=10, concurrency=2)
    await admitted(bench, "a", tenant, deployment, tokens=4)
    for number in range(5):
        wait = await refused(bench, f"b{number}", tenant, deployment, tokens=4)
        assert wait.scope == "tenant"
    await admitted(bench, "c", deployment, tokens=6)


async def test_a_scope_without_limit_costs_nothing(bench: Bench) -> None:
    free = Scope("free")
    for number in range(100):
        await admitted(bench, f"t{number}", free, tokens=10**9)
    call = await admitted(bench, "t", free)
    assert call.scopes == ()
    await bench.limiter.settle(call, 5)
    await bench.limiter.renew(call)


async def test_a_call_larger_than_the_limit_is_refused_with_its_name(bench: Bench) -> None:
    with pytest.raises(TooLarge, match="'d' allows 100 tokens per minute") as caught:
        await bench.limiter.admit("a", [Scope("d", tokens_per_minute=100)], 101)
    assert (caught.value.scope, caught.value.limit, caught.value.needed) == ("d", 100, 101)


async def test_nobody_overtakes_those_who_wait(bench: Bench) -> None:
    """A small call would fit, but the large one ahead of it would then wait longer."""
    scope = Scope("d", tokens_per_minute=100)
    await admitted(bench, "a", scope, tokens=50)
    await refused(bench, "large", scope, tokens=80)
    await refused(bench, "small", scope, tokens=30)
    for _ in range(2):
        await bench.advance(29)
        await refused(bench, "large", scope, tokens=80)
        await refused(bench, "small", scope, tokens=30)
    await bench.advance(MINUTE + BUCKET - 58)
    await refused(bench, "late", scope, tokens=1)
    await admitted(bench, "large", scope, tokens=80)
    await refused(bench, "small", scope, tokens=30)


async def test_who_leaves_room_for_everyone_ahead_need_not_wait_for_them(bench: Bench) -> None:
    scope = Scope("d", requests_per_minute=2)
    first, second = await admitted(bench, "a", scope), await admitted(bench, "b", scope)
    assert first != second
    for seconds in (29.0, 29.0, MINUTE + BUCKET - 58):
        for ticket in ("c", "d", "e"):
            await refused(bench, ticket, scope)
        await bench.advance(seconds)
    await admitted(bench, "d", scope)
    await refused(bench, "e", scope)
    await admitted(bench, "c", scope)


async def test_a_place_that_nobody_comes_back_to_lapses_half_a_minute_after_its_moment(bench: Bench) -> None:
    scope = Scope("d", requests_per_minute=1)
    await admitted(bench, "a", scope)
    gone = await refused(bench, "gone", scope)
    waits = await refused(bench, "b", scope)
    assert waits.turn > gone.turn
    lapse = gone.duration.total_seconds() + 30
    await bench.advance(lapse / 2)
    await refused(bench, "b", scope)
    await bench.advance(lapse / 2 - 0.001)
    assert (await refused(bench, "b", scope)).turn > timedelta(seconds=MINUTE)
    await bench.advance(0.001)
    assert (await refused(bench, "b", scope)).turn < timedelta(seconds=MINUTE - lapse + 2 * BUCKET)


async def test_whoever_withdraws_makes_way_at_once(bench: Bench) -> None:
    scope = Scope("d", requests_per_minute=1)
    await admitted(bench, "a", scope)
    await refused(bench, "b", scope)
    before = await refused(bench, "c", scope)
    await bench.limiter.withdraw("b", [scope])
    after = await refused(bench, "c", scope)
    assert after.turn + timedelta(seconds=MINUTE) <= before.turn


async def test_a_reported_turn_is_when_the_ticket_is_admitted(bench: Bench) -> None:
    """100 calls at once, 10 a minute: each leaves by the time that it was told first, and none much earlier."""
    scope = Scope("d", requests_per_minute=10)
    told: dict[str, float] = {}
    due: dict[str, float] = {}
    left: dict[str, float] = {}
    now = 0.0
    for number in range(100):
        answer = await bench.limiter.admit(f"t{number}", [scope], 1)
        if isinstance(answer, Wait):
            told[f"t{number}"] = answer.turn.total_seconds()
            due[f"t{number}"] = answer.duration.total_seconds()
    while due:
        ticket = min(due, key=lambda name: (due[name], int(name[1:])))
        await bench.advance(due[ticket] - now)
        now = due.pop(ticket)
        answer = await bench.limiter.admit(ticket, [scope], 1)
        if isinstance(answer, Wait):
            due[ticket] = now + answer.duration.total_seconds()
        else:
            left[ticket] = now
    assert len(left) == 90
    for ticket, moment in left.items():
        assert told[ticket] * 0.9 - 2 * BUCKET <= moment <= told[ticket] + BUCKET, ticket
    by_minute = sorted(left.values())
    for earlier, later in zip(by_minute, by_minute[10:], strict=False):
        assert later - earlier >= MINUTE
