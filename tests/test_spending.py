"""The arithmetic of budgets: money loses nothing, periods follow the calendar, the strictest budget decides."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from holdfast.contracts import AtLimit, Usage
from holdfast.errors import BudgetExceeded
from holdfast.spending import (
    MOST_UNITS,
    NOTHING,
    Amount,
    Period,
    ScopeKind,
    Standing,
    admit,
    amount_of,
    units_of,
    usd_of,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001 - made aware


def budget(
    tokens: int | None = None,
    cost: int | None = None,
    spent: Amount = NOTHING,
    at_limit: AtLimit = AtLimit.BLOCK,
    name: str = "acme",
) -> Standing:
    return Standing(
        "budget_1", "acme", ScopeKind.TENANT, name, Period.TOTAL, "total", tokens, cost, at_limit, spent, None
    )


@given(st.decimals(0, 1_000_000, places=10))
def test_money_with_ten_decimals_is_exact(usd: Decimal) -> None:
    assert usd_of(units_of(usd)) == usd


@given(st.decimals(0, 1_000_000, allow_nan=False, allow_infinity=False))
def test_other_money_is_rounded_up_by_less_than_a_unit(usd: Decimal) -> None:
    assert 0 <= usd_of(units_of(usd)) - usd < Decimal("1e-10")


def test_a_sum_too_large_to_count_counts_as_the_largest() -> None:
    assert units_of(Decimal("1e40")) == MOST_UNITS
    assert amount_of(Usage(input_tokens=10**30, cost_usd=Decimal("1e40"))) == Amount(MOST_UNITS, MOST_UNITS)


def test_no_price_is_not_no_cost() -> None:
    assert amount_of(Usage(input_tokens=3, cost_usd=None)) == Amount(3, 0, 1)


@given(MOMENTS)
def test_a_period_ends_where_the_next_one_begins(now: datetime) -> None:
    for period in (Period.DAY, Period.MONTH):
        end = period.ends(now)
        assert end is not None
        assert end > now
        assert period.window(end) > period.window(now) == period.window(end - timedelta(microseconds=1))


@given(MOMENTS, st.integers(-12, 14))
def test_a_period_is_the_same_in_every_zone(now: datetime, hours: int) -> None:
    elsewhere = now.astimezone(timezone(timedelta(hours=hours)))
    for period in Period:
        assert (period.window(elsewhere), period.ends(elsewhere)) == (period.window(now), period.ends(now))


@given(
    st.lists(
        st.builds(
            budget,
            tokens=st.none() | st.integers(0, 100),
            cost=st.none() | st.integers(0, 100),
            spent=st.builds(Amount, st.integers(0, 150), st.integers(0, 150), st.integers(0, 1)),
            at_limit=st.sampled_from(AtLimit),
        ),
        max_size=4,
    ),
    st.builds(Amount, st.integers(0, 60), st.integers(0, 60), st.integers(0, 1)),
    st.builds(Amount, st.integers(0, 60), st.integers(0, 60)),
)
def test_a_call_is_admitted_only_if_it_passes_nothing_or_a_person_permits_what_it_passes(
    budgets: list[Standing], hold: Amount, permitted: Amount
) -> None:
    order = [AtLimit.BLOCK, AtLimit.ASK, AtLimit.QUEUE, AtLimit.DEGRADE]
    passed = [one for one in budgets if one.excess(hold) != NOTHING]
    verdict = admit(budgets, hold, permitted)
    if isinstance(verdict, BudgetExceeded):
        assert any(one.at_limit.value == verdict.action for one in passed)
        stricter = [one for one in passed if order.index(one.at_limit) < order.index(AtLimit(verdict.action))]
        assert all(one.at_limit is AtLimit.ASK for one in stricter)  # and a person permitted those
        return
    assert all(one.at_limit is AtLimit.ASK for one in passed)
    assert verdict.tokens <= permitted.tokens
    assert verdict.cost <= permitted.cost
    for one in budgets:
        after = one.spent + hold
        if one.tokens is not None and hold.tokens:
            assert after.tokens <= max(one.tokens, one.spent.tokens) + verdict.tokens
        if one.cost is not None and hold.cost:
            assert after.cost <= max(one.cost, one.spent.cost) + verdict.cost
            assert not after.unpriced


def test_a_name_with_odd_characters_is_quoted_in_the_remedy() -> None:
    denied = admit([budget(tokens=1, name="a; rm -rf /")], Amount(2))
    assert isinstance(denied, BudgetExceeded)
    assert "'a; rm -rf /'" in str(denied)
