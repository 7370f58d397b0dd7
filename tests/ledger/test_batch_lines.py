"""Lines of batches: one beside each attempt, each turn in line once, and where a crash leaves them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from holdfast.contracts import Answer, FinishReason, Limits, SpendScopes, Status, Usage
from holdfast.errors import BudgetExceeded, LimitExceeded, Outcome
from holdfast.ledger import AttemptKey, AttemptState, FinishedRequest, Ledger, LineState, Opened, Recorded
from holdfast.spending import Period, ScopeKind

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOLD = Usage(input_tokens=10, output_tokens=10, cost_usd=Decimal("0.01"))
CALL = '{"request_id": "r"}'


async def enqueue(
    ledger: Ledger, request_id: str = "req_1", *, turn: int = 1, scopes: SpendScopes | None = None, **limits: int
) -> Opened | Recorded:
    return await ledger.attempts.open(
        AttemptKey("acme", request_id, turn),
        deployment="bulk",
        model="m",
        hold=HOLD,
        limits=Limits.model_validate(limits),
        scopes=scopes,
        batched=CALL,
    )


async def standing(ledger: Ledger) -> tuple[Sequence[str], Sequence[str]]:
    queued, under_way = await ledger.batch_lines.queued("bulk", 100), await ledger.batch_lines.under_way("bulk")
    assert await ledger.batch_lines.count("bulk") == (len(queued), len(under_way))
    return [line.attempt_id for line in queued], [line.attempt_id for line in under_way]


async def test_an_attempt_and_its_line_are_opened_together(ledger: Ledger) -> None:
    opened = await enqueue(ledger)
    assert isinstance(opened, Opened)
    (line,) = await ledger.batch_lines.queued("bulk", 10)
    assert (line.attempt_id, line.request_id, line.tenant, line.call) == (opened.attempt_id, "req_1", "acme", CALL)
    assert (line.state, line.sends, line.batch_id, line.abandoned) == (LineState.QUEUED, 0, None, False)
    (attempt,) = await ledger.attempts.list("req_1")
    assert (attempt.state, attempt.usage) == (AttemptState.HELD, HOLD)


async def test_a_refused_attempt_leaves_no_line(ledger: Ledger) -> None:
    with pytest.raises(LimitExceeded):
        await enqueue(ledger, tokens=5)
    await ledger.budgets.set("acme", ScopeKind.TENANT, "acme", Period.TOTAL, tokens=5)
    with pytest.raises(BudgetExceeded):
        await enqueue(ledger, scopes=SpendScopes(tenant="acme", user="ada"))
    assert await standing(ledger) == ([], [])


async def test_a_turn_stands_in_line_once_however_often_and_from_wherever_it_is_put_there(ledger: Ledger) -> None:
    opened = await asyncio.gather(*(enqueue(ledger) for _ in range(20)))
    assert {(one.attempt_id, one.tries) for one in opened if isinstance(one, Opened)} == {("req_1.1", 1)}
    assert await standing(ledger) == (["req_1.1"], [])
    assert (await ledger.attempts.totals("req_1")).attempts == 1


async def test_another_turn_or_an_ended_attempt_has_a_line_of_its_own(ledger: Ledger) -> None:
    await enqueue(ledger)
    await enqueue(ledger, "req_2")
    await ledger.attempts.settle("req_1.1", Outcome.NOT_SENT)
    # The line is not done yet: the request is told before it is.
    again = await enqueue(ledger)
    assert isinstance(again, Opened)
    assert (again.attempt_id, again.tries) == ("req_1.2", 2)
    await ledger.batch_lines.done(["req_1.1"], NOW)
    assert (await standing(ledger))[0] == ["req_2.1", "req_1.2"]


async def test_a_turn_that_was_answered_is_not_put_in_line_again(ledger: Ledger) -> None:
    await enqueue(ledger)
    await ledger.attempts.settle(
        "req_1.1", Outcome.OK, usage=HOLD, output="Yes.", finish_reason=FinishReason.STOP, model="m"
    )
    assert isinstance(await enqueue(ledger), Recorded)


async def test_lines_go_from_the_queue_into_a_batch_and_out_of_it(ledger: Ledger) -> None:
    lines = ledger.batch_lines
    for number in range(3):
        await enqueue(ledger, f"req_{number}")
    assert await lines.begin(["req_0.1", "req_1.1"], "sub", NOW) == {"req_0.1", "req_1.1"}
    assert await standing(ledger) == (["req_2.1"], ["req_0.1", "req_1.1"])
    assert {line.state for line in await lines.under_way("bulk")} == {LineState.SUBMITTING}
    assert await lines.sent("sub", "batch_1", NOW)
    (line, _) = await lines.under_way("bulk")
    assert (line.state, line.batch_id, line.sends, line.submitted_at) == (LineState.SUBMITTED, "batch_1", 1, NOW)
    await lines.done(["req_0.1", "req_1.1"], NOW)
    assert await standing(ledger) == (["req_2.1"], [])


async def test_a_line_is_handed_over_by_one_hand_only(ledger: Ledger) -> None:
    ids = [f"req_{number}.1" for number in range(6)]
    for number in range(6):
        await enqueue(ledger, f"req_{number}")
    begun = await asyncio.gather(*(ledger.batch_lines.begin(ids, f"sub_{hand}", NOW) for hand in range(5)))
    assert sorted(len(some) for some in begun) == [0, 0, 0, 0, 6]


async def test_what_was_surely_not_accepted_waits_for_the_next_batch(ledger: Ledger) -> None:
    lines = ledger.batch_lines
    await enqueue(ledger)
    await lines.begin(["req_1.1"], "sub_1", NOW)
    await lines.put_back("sub_1")
    assert await standing(ledger) == (["req_1.1"], [])
    assert not await lines.sent("sub_1", "batch_1", NOW), "it is not in that batch"
    await lines.begin(["req_1.1"], "sub_2", NOW)
    (line,) = await lines.under_way("bulk")
    assert (line.sends, line.submission) == (2, "sub_2")


async def test_a_batch_that_is_recorded_twice_is_known_and_one_that_was_given_up_is_not(ledger: Ledger) -> None:
    lines = ledger.batch_lines
    for number in range(2):
        await enqueue(ledger, f"req_{number}")
        await lines.begin([f"req_{number}.1"], f"sub_{number}", NOW)
    assert await lines.sent("sub_0", "batch_0", NOW)
    assert await lines.sent("sub_0", "batch_0", NOW + timedelta(seconds=1)), "found, and reported by the late sender"
    (line,) = (line for line in await lines.under_way("bulk") if line.submission == "sub_0")
    assert line.submitted_at == NOW
    await lines.done(["req_1.1"], NOW)
    assert not await lines.sent("sub_1", "batch_1", NOW)


async def test_a_line_whose_request_has_ended_says_so(ledger: Ledger) -> None:
    await enqueue(ledger)
    await enqueue(ledger, "req_2")
    await ledger.finish(
        FinishedRequest(
            tenant="acme",
            user="ada",
            agent="docs",
            plan_version="v1",
            session=None,
            tier="standard",
            answer=Answer(request_id="req_1", status=Status.CANCELLED, usage=Usage(), attempts=0),
            submitted_at=NOW,
            finished_at=NOW,
        )
    )
    queued = await ledger.batch_lines.queued("bulk", 10)
    assert {line.request_id: line.abandoned for line in queued} == {"req_1": True, "req_2": False}


async def test_the_oldest_lines_come_first_and_no_more_than_asked_for(ledger: Ledger) -> None:
    for number in range(5):
        await enqueue(ledger, f"req_{number}")
    assert [line.request_id for line in await ledger.batch_lines.queued("bulk", 3)] == ["req_0", "req_1", "req_2"]
    assert await ledger.batch_lines.queued("other", 3) == ()
