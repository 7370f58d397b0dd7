"""Budgets of tenants, users and sessions: what fits is held in all of them, what does not is held in none."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from holdfast.contracts import AtLimit, FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, IdempotencyConflict, InvalidInput, LimitExceeded, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened
from holdfast.spending import Amount, Period, ScopeKind, Standing, units_of
from tests.ledger.test_stores import finished

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCOPES = SpendScopes(tenant="acme", user="ada", session="chat-7")
KEY = AttemptKey("acme", "req_1", 1)
HOLD = Usage(input_tokens=100, output_tokens=300, cost_usd=Decimal("0.40"))
ACTUAL = Usage(input_tokens=90, output_tokens=60, cost_usd=Decimal("0.15"))
GOOD: dict[str, Any] = {"output": "reply", "finish_reason": FinishReason.STOP, "model": "m"}
UNPRICED = HOLD.model_copy(update={"cost_usd": None})


async def opened(
    ledger: Ledger, request: str = "req_1", *, hold: Usage = HOLD, scopes: SpendScopes = SCOPES, now: datetime = NOON
) -> Opened:
    result = await ledger.attempts.open(
        AttemptKey(scopes.tenant, request, 1),
        deployment="large",
        model="m",
        hold=hold,
        limits=Limits(),
        scopes=scopes,
        now=now,
    )
    assert isinstance(result, Opened)
    return result


async def of_tenant(ledger: Ledger, period: Period = Period.MONTH, **ceilings: Any) -> None:
    await ledger.budgets.set("acme", ScopeKind.TENANT, "acme", period, **ceilings)


async def only(ledger: Ledger, *, now: datetime = NOON) -> Standing:
    (standing,) = await ledger.budgets.list("acme", now=now)
    return standing


async def test_a_call_is_held_and_then_counts_what_it_used(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000, cost_usd=Decimal(1))
    call = await opened(ledger)
    assert (await only(ledger)).spent == Amount(400, units_of(Decimal("0.40")))
    await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    standing = await only(ledger)
    assert standing.spent == Amount(150, units_of(Decimal("0.15")))
    assert (standing.left_tokens, standing.left_usd) == (850, Decimal("0.85"))


async def test_a_call_that_would_go_past_is_refused_unrecorded_with_ceiling_rest_reset_and_remedy(
    ledger: Ledger,
) -> None:
    await ledger.budgets.set("acme", ScopeKind.USER, "ada", Period.MONTH, tokens=700, at_limit=AtLimit.QUEUE)
    await opened(ledger)
    with pytest.raises(BudgetExceeded) as denied:
        await opened(ledger, "req_2")
    assert str(denied.value) == (
        "The budget of user 'ada' is 700 tokens per month, of which 300 tokens are left, and the next model call could "
        "use 400. It resets at 2026-12-01 00:00 UTC. To raise it: "
        "`holdfast budget set --tenant acme --user ada --period month --tokens N`."
    )
    error = denied.value
    assert (error.limit, error.bound, error.needed) == ("tokens", "700", "800")
    assert (error.scope, error.action, error.resets_at) == ("user ada", "queue", datetime(2026, 12, 1, tzinfo=UTC))
    assert await ledger.attempts.list("req_2") == ()
    assert (await only(ledger)).spent.tokens == 400


async def test_a_call_that_just_reaches_the_ceilings_is_admitted(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=800, cost_usd=Decimal("0.80"))
    await opened(ledger)
    await opened(ledger, "req_2")
    assert (await only(ledger)).left_tokens == 0


async def test_a_call_refused_by_one_budget_is_held_in_none(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=10_000)
    await ledger.budgets.set("acme", ScopeKind.USER, "ada", Period.DAY, cost_usd=Decimal(5))
    await ledger.budgets.set("acme", ScopeKind.SESSION, "chat-7", Period.TOTAL, tokens=399)
    with pytest.raises(BudgetExceeded, match=r"session 'chat-7' is 399 tokens in total.*--session chat-7"):
        await opened(ledger)
    assert {standing.spent for standing in await ledger.budgets.list("acme", now=NOON)} == {Amount()}


async def test_budgets_of_others_do_not_count(ledger: Ledger) -> None:
    for kind, name in ((ScopeKind.USER, "grace"), (ScopeKind.SESSION, "chat-8")):
        await ledger.budgets.set("acme", kind, name, Period.MONTH, tokens=0)
    await ledger.budgets.set("globex", ScopeKind.TENANT, "globex", Period.MONTH, tokens=0)
    await ledger.budgets.set("globex", ScopeKind.USER, "ada", Period.MONTH, tokens=0)
    await opened(ledger)
    await opened(ledger, "req_2", scopes=SpendScopes(tenant="acme", user="ada"))


async def test_a_request_cannot_spend_for_another_tenant(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput, match="another tenant"):
        await ledger.attempts.open(
            KEY,
            deployment="d",
            model="m",
            hold=HOLD,
            limits=Limits(),
            scopes=SpendScopes(tenant="globex", user="ada"),
        )


@pytest.mark.parametrize(
    ("actions", "strictest"),
    [
        ((AtLimit.DEGRADE, AtLimit.QUEUE, AtLimit.ASK, AtLimit.BLOCK), AtLimit.BLOCK),
        ((AtLimit.DEGRADE, AtLimit.QUEUE, AtLimit.ASK), AtLimit.ASK),
        ((AtLimit.QUEUE, AtLimit.DEGRADE), AtLimit.QUEUE),
        ((AtLimit.DEGRADE,), AtLimit.DEGRADE),
    ],
)
async def test_of_several_budgets_that_refuse_the_strictest_decides(
    ledger: Ledger, actions: tuple[AtLimit, ...], strictest: AtLimit
) -> None:
    places = (
        (ScopeKind.TENANT, "acme", Period.MONTH),
        (ScopeKind.USER, "ada", Period.DAY),
        (ScopeKind.SESSION, "chat-7", Period.TOTAL),
        (ScopeKind.USER, "ada", Period.MONTH),
    )
    for (kind, name, period), action in zip(places, actions, strict=False):
        await ledger.budgets.set("acme", kind, name, period, tokens=10, at_limit=action)
    with pytest.raises(BudgetExceeded) as denied:
        await opened(ledger)
    assert denied.value.action == strictest


async def test_the_requests_own_ceiling_comes_first(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=10)
    with pytest.raises(LimitExceeded) as denied:
        await ledger.attempts.open(
            KEY, deployment="d", model="m", hold=HOLD, limits=Limits(tokens=10), scopes=SCOPES, now=NOON
        )
    assert not isinstance(denied.value, BudgetExceeded)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.billed is False])
async def test_a_call_that_was_not_billed_gives_its_hold_back(ledger: Ledger, outcome: Outcome) -> None:
    await of_tenant(ledger, tokens=1_000, cost_usd=Decimal(1))
    call = await opened(ledger)
    await ledger.attempts.settle(call.attempt_id, outcome)
    assert (await only(ledger)).spent == Amount()


async def test_a_call_of_unknown_outcome_keeps_its_worst_case(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000)
    call = await opened(ledger)
    await ledger.attempts.settle(call.attempt_id, Outcome.UNKNOWN)
    assert (await only(ledger)).spent.tokens == 400


async def test_a_call_whose_worker_died_keeps_its_worst_case_until_it_reports_after_all(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000)
    lost = await opened(ledger)
    await opened(ledger)
    assert (await only(ledger)).spent.tokens == 800
    await ledger.attempts.settle(lost.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert (await only(ledger)).spent.tokens == 550


async def test_an_overrun_is_charged_even_past_the_ceiling_and_the_next_call_is_refused(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=500)
    call = await opened(ledger)
    await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=Usage(input_tokens=900), **GOOD)
    assert (await only(ledger)).spent.tokens == 900
    assert (await only(ledger)).left_tokens == 0
    with pytest.raises(BudgetExceeded, match="0 tokens are left"):
        await opened(ledger, "req_2", hold=Usage(input_tokens=1))


async def test_settling_twice_counts_once(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000)
    call = await opened(ledger)
    for _ in range(2):
        await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert (await only(ledger)).spent.tokens == 150


@pytest.mark.parametrize(
    ("period", "last", "resets"),
    [
        (Period.DAY, datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)),
        (Period.MONTH, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
async def test_a_budget_begins_anew_with_its_period_and_a_late_settlement_corrects_the_old_one(
    ledger: Ledger, period: Period, last: datetime, resets: datetime
) -> None:
    await of_tenant(ledger, period, tokens=400)
    call = await opened(ledger, now=last)
    assert (await only(ledger, now=last)).resets_at == resets
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_2", now=last)
    await opened(ledger, "req_3", now=resets)
    await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert (await only(ledger, now=last)).spent.tokens == 150
    assert (await only(ledger, now=resets)).spent.tokens == 400


async def test_periods_follow_utc_whatever_the_zone_of_the_clock(ledger: Ledger) -> None:
    await of_tenant(ledger, Period.DAY, tokens=400)
    east = NOON.replace(hour=22).astimezone(ZoneInfo("Asia/Tokyo"))  # the 22nd there
    await opened(ledger, now=east)
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_2")


async def test_a_total_never_resets(ledger: Ledger) -> None:
    await of_tenant(ledger, Period.TOTAL, tokens=400)
    await opened(ledger)
    with pytest.raises(BudgetExceeded) as denied:
        await opened(ledger, "req_2", now=NOON + timedelta(days=4_000))
    assert denied.value.resets_at is None
    assert "resets" not in str(denied.value)


async def test_a_model_without_a_price_is_refused_under_dollars_and_counted_under_tokens(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=10_000)
    await opened(ledger, hold=UNPRICED)
    await of_tenant(ledger, cost_usd=Decimal(100))
    with pytest.raises(BudgetExceeded, match=r"no known price.*models\.toml") as denied:
        await opened(ledger, "req_2", hold=UNPRICED)
    assert (denied.value.limit, denied.value.needed) == ("cost_usd", "unpriced")
    # Nobody knows what the unpriced call has cost, so nobody knows what is left.
    with pytest.raises(BudgetExceeded, match="without a known price was called"):
        await opened(ledger, "req_3")
    assert (await only(ledger)).left_usd == 0


async def test_a_settlement_without_a_price_keeps_the_price_of_the_hold(ledger: Ledger) -> None:
    await of_tenant(ledger, cost_usd=Decimal(1))
    call = await opened(ledger)
    unpriced = ACTUAL.model_copy(update={"cost_usd": None})
    await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=unpriced, **GOOD)
    assert (await only(ledger)).spent == Amount(150, units_of(Decimal("0.40")))


async def test_changing_a_budget_keeps_what_it_has_counted_and_what_was_not_named(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=400, at_limit=AtLimit.ASK)
    await opened(ledger)
    await of_tenant(ledger, cost_usd=Decimal(3))
    standing = await only(ledger)
    assert (standing.tokens, standing.cost, standing.at_limit) == (400, units_of(Decimal(3)), AtLimit.ASK)
    assert standing.spent.tokens == 400


async def test_a_call_held_before_its_budget_was_removed_leaves_the_new_one_alone(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000)
    old = await opened(ledger)
    assert await ledger.budgets.remove("acme", ScopeKind.TENANT, "acme", Period.MONTH)
    assert not await ledger.budgets.remove("acme", ScopeKind.TENANT, "acme", Period.MONTH)
    await of_tenant(ledger, tokens=1_000)
    await opened(ledger, "req_2")
    await ledger.attempts.settle(old.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    assert (await only(ledger)).spent.tokens == 400


@pytest.mark.parametrize("ceilings", [{}, {"tokens": -1}, {"cost_usd": Decimal(-1)}, {"cost_usd": Decimal("Infinity")}])
async def test_a_budget_without_a_sound_ceiling_is_refused(ledger: Ledger, ceilings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await of_tenant(ledger, **ceilings)
    assert await ledger.budgets.list() == ()


async def test_what_is_left_can_be_looked_at_beforehand(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=1_000)
    await ledger.budgets.set("acme", ScopeKind.USER, "grace", Period.DAY, tokens=5)
    await ledger.budgets.set("acme", ScopeKind.USER, "ada", Period.DAY, cost_usd=Decimal(1))
    await opened(ledger)
    left = await ledger.budgets.left(SCOPES, now=NOON)
    assert {(one.scope, one.left_tokens, one.left_usd) for one in left} == {
        ("tenant acme", 600, None),
        ("user ada", None, Decimal("0.6")),
    }


async def test_a_person_may_let_one_request_go_past_by_so_much_over_all_its_calls(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=500, at_limit=AtLimit.ASK)
    await opened(ledger)
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_2")
    for _ in range(2):  # the same decision counts once
        await ledger.budgets.extend("req_2", approval="a" * 64, tokens=400, by="grace")
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_3")
    call = await opened(ledger, "req_2")  # 300 of the 400
    assert (await only(ledger)).spent.tokens == 800
    await ledger.attempts.settle(call.attempt_id, Outcome.NOT_SENT)
    again = await opened(ledger, "req_2")  # a call that cost nothing has used nothing up
    await ledger.attempts.settle(again.attempt_id, Outcome.UNKNOWN)
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_2", hold=Usage(input_tokens=101))
    await opened(ledger, "req_2", hold=Usage(input_tokens=100))
    with pytest.raises(BudgetExceeded):
        await opened(ledger, "req_2", hold=Usage(input_tokens=1))


async def test_a_permission_does_not_open_a_budget_that_blocks_or_prepaid_credit(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=10, at_limit=AtLimit.ASK)
    await ledger.budgets.extend("req_1", approval="a", tokens=1_000, cost_usd=Decimal(9), by="grace")
    await ledger.budgets.set("acme", ScopeKind.USER, "ada", Period.DAY, tokens=10)
    with pytest.raises(BudgetExceeded, match="user 'ada'"):
        await opened(ledger)
    await ledger.budgets.remove("acme", ScopeKind.USER, "ada", Period.DAY)
    await ledger.budgets.grant("acme", Decimal("0.1"), entry_id="p", by="grace")
    with pytest.raises(BudgetExceeded, match="prepaid credit"):
        await opened(ledger)


async def test_a_decision_cannot_be_recorded_again_with_other_amounts(ledger: Ledger) -> None:
    await ledger.budgets.extend("req_1", approval="a", tokens=10, by="grace")
    with pytest.raises(IdempotencyConflict, match="10 tokens"):
        await ledger.budgets.extend("req_1", approval="a", tokens=11, by="grace")


async def test_many_calls_at_once_never_pass_a_ceiling_by_one_token(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=2_000)
    results = await asyncio.gather(*(opened(ledger, f"req_{n}") for n in range(40)), return_exceptions=True)
    assert sum(isinstance(result, Opened) for result in results) == 5
    assert {type(result) for result in results} == {Opened, BudgetExceeded}
    assert (await only(ledger)).spent.tokens == 2_000


async def test_a_dead_attempt_is_marked_even_when_a_budget_refuses_the_new_one(ledger: Ledger) -> None:
    await of_tenant(ledger, tokens=500)
    lost = await opened(ledger)
    with pytest.raises(BudgetExceeded):
        await opened(ledger)
    settled = await ledger.attempts.settle(lost.attempt_id, Outcome.NOT_SENT)
    assert settled.usage == HOLD  # taken for dead, it cannot give its hold back
    assert (await only(ledger)).spent.tokens == 400


async def test_a_request_that_ended_is_corrected_by_a_late_settlement(ledger: Ledger) -> None:
    call = await opened(ledger)
    ended = await ledger.finish(finished())
    assert ended.answer.usage == HOLD
    await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=ACTUAL, **GOOD)
    corrected = await ledger.requests.get("acme", "req_1")
    assert corrected == replace(ended, answer=ended.answer.model_copy(update={"usage": ACTUAL}))
