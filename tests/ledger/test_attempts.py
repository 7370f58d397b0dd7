"""Paid calls: recorded before they are made, never above a ceiling, never forgotten."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from holdfast.contracts import FinishReason, Limits, Usage
from holdfast.errors import IdempotencyConflict, InvalidInput, LimitExceeded, Outcome
from holdfast.ledger import AttemptKey, AttemptState, Contents, Ledger, Opened, Recorded

FIRST = AttemptKey("acme", "req_1", 1)
HOLD = Usage(input_tokens=100, output_tokens=300, cost_usd=Decimal("0.40"))
ACTUAL = Usage(input_tokens=90, output_tokens=60, cost_usd=Decimal("0.15"))
GOOD: dict[str, Any] = {"output": "reply", "finish_reason": FinishReason.STOP, "model": "m-2026"}


async def admitted(ledger: Ledger, key: AttemptKey = FIRST, hold: Usage = HOLD, **limits: Any) -> Opened:
    opened = await ledger.attempts.open(key, deployment="large", model="m", hold=hold, limits=Limits(**limits))
    assert isinstance(opened, Opened)
    return opened


async def test_an_opened_attempt_is_on_record_at_its_worst_case(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    assert (opened.attempt_id, opened.ordinal, opened.spent) == ("req_1.1", 1, HOLD)
    (attempt,) = await ledger.attempts.list("req_1")
    assert (attempt.state, attempt.usage, attempt.hold_cost_usd) == (AttemptState.HELD, HOLD, Decimal("0.40"))
    assert (attempt.deployment, attempt.model, attempt.outcome) == ("large", "m", None)


async def test_a_good_reply_is_settled_at_what_it_really_used_and_its_text_stored(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=ACTUAL, response_id="r", **GOOD)
    assert (settled.state, settled.usage, settled.totals.usage) == (AttemptState.SETTLED, ACTUAL, ACTUAL)
    assert settled.output is not None
    assert await Contents(ledger.database).get("acme", settled.output) == "reply"
    (attempt,) = await ledger.attempts.list("req_1")
    assert (attempt.outcome, attempt.answered_by, attempt.response_id) == (Outcome.OK, "m-2026", "r")
    assert attempt.settled_at is not None


async def test_a_turn_that_was_answered_is_answered_again_without_a_second_call(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    again = await ledger.attempts.open(FIRST, deployment="small", model="n", hold=HOLD, limits=Limits(attempts=1))
    assert settled.output is not None
    assert again == Recorded("req_1.1", settled.output, FinishReason.STOP, "m-2026", ACTUAL, settled.totals)
    assert (await ledger.attempts.totals("req_1")).attempts == 1


async def test_usage_above_the_hold_is_recorded_as_it_is(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    above = Usage(input_tokens=5_000, cache_read_tokens=7, output_tokens=900, cost_usd=Decimal(3))
    settled = await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=above, **GOOD)
    assert settled.totals.usage == above


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.billed is False])
async def test_a_call_that_was_not_billed_counts_as_a_call_but_costs_nothing(ledger: Ledger, outcome: Outcome) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(opened.attempt_id, outcome, error_code="busy")
    assert (settled.state, settled.usage) == (AttemptState.RELEASED, Usage())
    assert (await ledger.attempts.totals("req_1")).attempts == 1


async def test_a_call_that_may_have_been_billed_stays_at_its_worst_case(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(opened.attempt_id, Outcome.UNKNOWN, usage=ACTUAL)
    assert (settled.state, settled.usage) == (AttemptState.UNKNOWN, HOLD)


@pytest.mark.parametrize("outcome", [Outcome.BROKEN_STREAM, Outcome.CANCELLED, Outcome.CONTENT_FILTER])
async def test_a_billed_call_without_a_usage_report_is_recorded_at_its_worst_case(
    ledger: Ledger, outcome: Outcome
) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(opened.attempt_id, outcome, output="partial")
    assert (settled.state, settled.usage) == (AttemptState.SETTLED, HOLD)


async def test_settling_again_in_the_same_way_changes_nothing_and_differently_is_refused(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    first = await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD) == first
    for other in (GOOD | {"output": "another"}, GOOD | {"model": "x"}, GOOD | {"usage": HOLD}):
        with pytest.raises(IdempotencyConflict, match=r"req_1\.1"):
            await ledger.attempts.settle(opened.attempt_id, Outcome.OK, **({"usage": ACTUAL} | other))
    with pytest.raises(IdempotencyConflict):
        await ledger.attempts.settle(opened.attempt_id, Outcome.NOT_SENT)
    assert await ledger.attempts.totals("req_1") == first.totals


async def test_an_attempt_whose_worker_died_keeps_its_worst_case_beside_the_new_one(ledger: Ledger) -> None:
    await admitted(ledger)
    second = await admitted(ledger)
    assert second.ordinal == 2
    assert second.spent == HOLD + HOLD
    states = [attempt.state for attempt in await ledger.attempts.list("req_1")]
    assert states == [AttemptState.UNKNOWN, AttemptState.HELD]


async def test_an_open_attempt_of_another_turn_is_not_taken_for_dead(ledger: Ledger) -> None:
    await admitted(ledger)
    await admitted(ledger, replace(FIRST, turn=2))
    assert {attempt.state for attempt in await ledger.attempts.list("req_1")} == {AttemptState.HELD}


async def test_a_worker_taken_for_dead_may_still_book_what_it_really_used(ledger: Ledger) -> None:
    late = await admitted(ledger)
    await admitted(ledger)
    settled = await ledger.attempts.settle(late.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert (settled.state, settled.totals.usage) == (AttemptState.SETTLED, ACTUAL + HOLD)
    with pytest.raises(IdempotencyConflict):
        await ledger.attempts.settle(late.attempt_id, Outcome.NOT_SENT)


async def test_a_worker_taken_for_dead_cannot_release_its_worst_case(ledger: Ledger) -> None:
    late = await admitted(ledger)
    await admitted(ledger)
    settled = await ledger.attempts.settle(late.attempt_id, Outcome.RATE_LIMITED)
    assert (settled.state, settled.usage) == (AttemptState.UNKNOWN, HOLD)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"tokens": 799}, "tokens"),
        ({"cost_usd": Decimal("0.79")}, "cost_usd"),
        ({"attempts": 1}, "attempts"),
    ],
)
async def test_a_call_that_would_pass_a_ceiling_is_refused_and_not_recorded(
    ledger: Ledger, limits: dict[str, Any], named: str
) -> None:
    await admitted(ledger, **limits)
    with pytest.raises(LimitExceeded) as denied:
        await admitted(ledger, replace(FIRST, turn=2), **limits)
    assert denied.value.limit == named
    assert (await ledger.attempts.totals("req_1")).attempts == 1


async def test_a_call_that_just_reaches_the_ceilings_is_admitted(ledger: Ledger) -> None:
    limits: dict[str, Any] = {"tokens": 800, "cost_usd": Decimal("0.80"), "attempts": 2}
    await admitted(ledger, **limits)
    assert (await admitted(ledger, replace(FIRST, turn=2), **limits)).ordinal == 2


async def test_a_dead_attempt_is_marked_even_when_the_new_one_is_refused(ledger: Ledger) -> None:
    await admitted(ledger)
    with pytest.raises(LimitExceeded):
        await admitted(ledger, attempts=1)
    (attempt,) = await ledger.attempts.list("req_1")
    assert (attempt.state, attempt.usage) == (AttemptState.UNKNOWN, HOLD)


async def test_an_unpriced_model_is_refused_under_a_ceiling_in_dollars_and_admitted_without(ledger: Ledger) -> None:
    unpriced = HOLD.model_copy(update={"cost_usd": None})
    with pytest.raises(LimitExceeded, match=r"price.*models\.toml") as denied:
        await admitted(ledger, hold=unpriced, cost_usd=Decimal(100))
    assert denied.value.limit == "cost_usd"
    assert (await admitted(ledger, hold=unpriced)).spent.cost_usd is None


async def test_requests_do_not_share_ceilings(ledger: Ledger) -> None:
    await admitted(ledger, tokens=400)
    assert (await admitted(ledger, replace(FIRST, request_id="req_2"), tokens=400)).ordinal == 1


async def test_a_good_reply_needs_its_text_and_an_attempt_needs_to_exist(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    with pytest.raises(InvalidInput, match="output"):
        await ledger.attempts.settle(opened.attempt_id, Outcome.OK, usage=ACTUAL)
    for unknown in ("req_1.2", "req_1", "", "req_1.01"):
        with pytest.raises(InvalidInput, match="not in the ledger"):
            await ledger.attempts.settle(unknown, Outcome.NOT_SENT)


async def test_a_damaged_reply_is_booked_all_the_same(ledger: Ledger) -> None:
    opened = await admitted(ledger)
    settled = await ledger.attempts.settle(
        opened.attempt_id, Outcome.OK, usage=ACTUAL, **(GOOD | {"output": "a\udc00"})
    )
    assert settled.output is not None
    assert await ledger.contents.get("acme", settled.output) == "a\ufffd"


async def test_many_calls_opened_at_once_stay_under_the_ceiling(ledger: Ledger) -> None:
    results = await asyncio.gather(
        *(admitted(ledger, replace(FIRST, turn=turn), tokens=2_000, attempts=50) for turn in range(1, 31)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Opened) for result in results) == 5
    assert {type(result) for result in results} == {Opened, LimitExceeded}
    assert (await ledger.attempts.totals("req_1")).usage.total_tokens == 2_000
