"""Reports of what was spent: exact, complete, and honest about what nobody reported."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import Outcome
from holdfast.ledger import AttemptKey, GroupBy, Ledger, Opened

HOLD = Usage(input_tokens=100, output_tokens=300, cost_usd=Decimal("0.40"))
MONDAY, TUESDAY = datetime(2026, 11, 16, 23, 59, tzinfo=UTC), datetime(2026, 11, 17, tzinfo=UTC)
GOOD: dict[str, Any] = {"output": "reply", "finish_reason": FinishReason.STOP, "model": "m"}


async def call(
    ledger: Ledger,
    request: str,
    outcome: Outcome | None = Outcome.OK,
    usage: Usage | None = None,
    *,
    tenant: str = "acme",
    user: str = "ada",
    agent: str | None = "docs",
    deployment: str = "large",
    model: str = "big-1",
    hold: Usage = HOLD,
    now: datetime = MONDAY,
) -> None:
    opened = await ledger.attempts.open(
        AttemptKey(tenant, request, 1),
        deployment=deployment,
        model=model,
        hold=hold,
        limits=Limits(),
        scopes=SpendScopes(tenant=tenant, user=user),
        agent=agent,
        now=now,
    )
    assert isinstance(opened, Opened)
    if outcome is not None:
        await ledger.attempts.settle(opened.attempt_id, outcome, usage=usage, **GOOD)


def used(tokens: int, cost: str) -> Usage:
    return Usage(input_tokens=tokens, cache_read_tokens=1, output_tokens=2, cost_usd=Decimal(cost))


async def test_spending_is_summed_by_each_thing_one_may_ask_for(ledger: Ledger) -> None:
    await call(ledger, "req_1", usage=used(10, "0.1"))
    await call(ledger, "req_2", usage=used(20, "0.2"), user="grace", agent="chat", now=TUESDAY)
    await call(ledger, "req_3", usage=used(30, "0.3"), tenant="globex", deployment="small", model="little-1")
    expected = {
        GroupBy.TENANT: {"acme": "0.3", "globex": "0.3"},
        GroupBy.USER: {"ada": "0.4", "grace": "0.2"},
        GroupBy.AGENT: {"docs": "0.4", "chat": "0.2"},
        GroupBy.MODEL: {"big-1": "0.3", "little-1": "0.3"},
        GroupBy.DEPLOYMENT: {"large": "0.3", "small": "0.3"},
        GroupBy.DAY: {"2026-11-16": "0.4", "2026-11-17": "0.2"},
    }
    for by, costs in expected.items():
        lines = await ledger.usage(by)
        assert {line.key: line.cost_usd for line in lines} == {key: Decimal(cost) for key, cost in costs.items()}
    (line,) = await ledger.usage(GroupBy.USER, tenant="globex")
    assert (line.key, line.usage, line.attempts) == ("ada", used(30, "0.3"), 1)


async def test_days_are_counted_from_the_first_to_the_last(ledger: Ledger) -> None:
    await call(ledger, "req_1", usage=used(10, "0.1"))
    await call(ledger, "req_2", usage=used(20, "0.2"), now=TUESDAY)
    for since, until, cost in (
        (date(2026, 11, 17), None, "0.2"),
        (None, date(2026, 11, 16), "0.1"),
        (date(2026, 11, 16), date(2026, 11, 17), "0.3"),
    ):
        (line,) = await ledger.usage(GroupBy.TENANT, since=since, until=until)
        assert line.cost_usd == Decimal(cost)


async def test_what_no_provider_reported_is_told_apart(ledger: Ledger) -> None:
    await call(ledger, "req_1", usage=used(10, "0.1"))
    await call(ledger, "req_2", Outcome.UNKNOWN)
    await call(ledger, "req_3", None)  # open, or its worker is dead
    await call(ledger, "req_4", Outcome.BROKEN_STREAM)  # billed, nobody knows how much
    await call(ledger, "req_5", Outcome.OVERLOADED)
    (line,) = await ledger.usage(GroupBy.TENANT)
    assert (line.attempts, line.worst_case_attempts, line.worst_case) == (5, 3, HOLD + HOLD + HOLD)
    assert (line.cost_usd, line.worst_case_cost_usd) == (Decimal("1.3"), Decimal("1.2"))


async def test_cost_is_exact_however_many_digits_a_price_has(ledger: Ledger) -> None:
    for number, cost in enumerate(("0.0000001", "0.3", "1E-12", "123456789.000000000001", "0.0000001")):
        await call(ledger, f"req_{number}", usage=used(1, cost))
    (line,) = await ledger.usage(GroupBy.TENANT)
    assert line.cost_usd == Decimal("123456789.300000200002")


async def test_an_unpriced_call_is_not_free(ledger: Ledger) -> None:
    unpriced = HOLD.model_copy(update={"cost_usd": None})
    await call(ledger, "req_1", usage=unpriced, hold=unpriced)
    await call(ledger, "req_2", usage=used(10, "0.1"))
    (line,) = await ledger.usage(GroupBy.TENANT)
    assert (line.usage.cost_usd, line.cost_usd, line.unpriced_attempts) == (None, Decimal("0.1"), 1)


async def test_what_has_no_name_comes_last(ledger: Ledger) -> None:
    await call(ledger, "req_1", usage=used(10, "0.1"), agent=None)
    await call(ledger, "req_2", usage=used(10, "0.1"))
    assert [line.key for line in await ledger.usage(GroupBy.AGENT)] == ["docs", None]
