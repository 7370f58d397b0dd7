"""The arithmetic of ceilings."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import budget
from holdfast.contracts import Limits, Usage
from holdfast.errors import LimitExceeded
from holdfast.prices import Price

SPENT = Usage(input_tokens=300, output_tokens=100, cost_usd=Decimal("0.40"))
LIMITS = Limits(tokens=1_000, cost_usd=Decimal(1), attempts=3, output_tokens=500)

tokens = st.integers(0, 5_000)
dollars = st.decimals(0, 10, places=4)
few, cents = st.integers(0, 250), st.decimals(0, Decimal("0.7"), places=2)
usages = st.builds(Usage, input_tokens=few, cache_read_tokens=few, output_tokens=few, cost_usd=cents)


@given(tokens, tokens, dollars, dollars, st.none() | dollars, st.none() | dollars, st.data())
def test_no_usage_within_a_calls_bounds_costs_more_than_its_worst_case(
    prompt: int,
    reply: int,
    input_rate: Decimal,
    output_rate: Decimal,
    read_rate: Decimal | None,
    write_rate: Decimal | None,
    data: st.DataObject,
) -> None:
    if read_rate is not None:
        read_rate = min(read_rate, input_rate)
    price = Price(input_rate, output_rate, read_rate, write_rate)
    hold = budget.worst_case(prompt, reply, price.cost)
    read = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - read))
    actual = Usage(
        input_tokens=prompt - read - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=data.draw(st.integers(0, reply)),
    )
    assert hold.total_tokens == prompt + reply
    assert hold.cost_usd is not None
    assert price.cost(actual) <= hold.cost_usd


def test_an_unpriced_worst_case_is_unpriced_and_not_free() -> None:
    assert budget.worst_case(10, 20, lambda usage: None) == Usage(input_tokens=10, output_tokens=20, cost_usd=None)


def test_what_remains_is_counted_from_what_was_spent() -> None:
    assert budget.remaining(LIMITS, SPENT, 1) == budget.Remaining(tokens=600, cost_usd=Decimal("0.60"), attempts=2)
    assert budget.remaining(Limits(tokens=100, attempts=1), SPENT, 2) == budget.Remaining(0, None, 0)


def test_after_an_unpriced_call_no_dollars_remain_under_a_ceiling() -> None:
    unpriced = SPENT.model_copy(update={"cost_usd": None})
    assert budget.remaining(LIMITS, unpriced).cost_usd == 0


@pytest.mark.parametrize(("prompt", "wanted", "fitted"), [(50, 400, 400), (50, 900, 500), (350, 400, 250), (599, 9, 1)])
def test_a_reply_limit_shrinks_to_what_the_ceilings_leave(prompt: int, wanted: int, fitted: int) -> None:
    assert budget.fit_output_tokens(LIMITS, SPENT, prompt, wanted) == fitted


@pytest.mark.parametrize("prompt", [600, 5_000])
def test_a_prompt_that_leaves_no_room_for_a_reply_is_refused(prompt: int) -> None:
    with pytest.raises(LimitExceeded) as denied:
        budget.fit_output_tokens(LIMITS, SPENT, prompt, 100)
    assert (denied.value.limit, denied.value.bound, denied.value.needed) == ("tokens", "1000", str(401 + prompt))


@given(usages, usages, st.integers(0, 5))
def test_a_call_is_admitted_exactly_when_its_worst_case_fits_every_ceiling(
    spent: Usage, hold: Usage, attempts: int
) -> None:
    left = budget.remaining(LIMITS, spent, attempts)
    assert left.cost_usd is not None
    assert hold.cost_usd is not None
    assert spent.cost_usd is not None
    fits = (
        left.attempts >= 1
        and spent.total_tokens + hold.total_tokens <= 1_000
        and spent.cost_usd + hold.cost_usd <= Decimal(1)
    )
    if fits:
        budget.check(LIMITS, spent, attempts, hold)
    else:
        with pytest.raises(LimitExceeded):
            budget.check(LIMITS, spent, attempts, hold)


def test_a_refusal_names_ceiling_bound_and_need() -> None:
    hold = Usage(input_tokens=10, cost_usd=Decimal("0.70"))
    with pytest.raises(LimitExceeded, match=r"1\.10 USD.*ceiling is 1 USD") as denied:
        budget.check(LIMITS, SPENT, 0, hold)
    assert (denied.value.limit, denied.value.bound, denied.value.needed) == ("cost_usd", "1", "1.10")


def test_a_free_model_may_be_called_under_a_ceiling_of_zero_dollars() -> None:
    budget.check(Limits(cost_usd=Decimal(0)), Usage(), 0, Usage(input_tokens=10))


@pytest.mark.parametrize("unpriced", ["hold", "spent"])
def test_an_unpriced_call_is_refused_under_a_ceiling_in_dollars_with_the_remedy(unpriced: str) -> None:
    free, unknown = Usage(), Usage(cost_usd=None)
    spent, hold = (unknown, free) if unpriced == "spent" else (free, unknown)
    with pytest.raises(LimitExceeded, match=r"price.*models\.toml") as denied:
        budget.check(LIMITS, spent, 0, hold)
    assert (denied.value.limit, denied.value.needed) == ("cost_usd", "unpriced")
    budget.check(Limits(), spent, 0, hold)


def test_the_arithmetic_loads_nothing_that_a_workflow_may_not() -> None:
    script = (
        "import sys, holdfast.budget; "
        "print([name for name in ('sqlalchemy', 'genai_prices', 'httpx', 'tiktoken') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
