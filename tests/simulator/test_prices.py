"""Dollars on the bill: exact, per model, by kind of token, and absent where a model has no price."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bill import Bill
from simulator.fields import BehaviourError
from simulator.prices import Price, Prompt
from simulator.program import Profile
from simulator.server import Simulator

PRICE = Price(Decimal("3"), Decimal("15"), Decimal("0.3"), Decimal("3.75"))
MESSAGES = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
async def priced() -> AsyncIterator[tuple[Simulator, httpx.AsyncClient]]:
    profile = Profile.read({"models": {"m": {"price": {"input": 0.15, "output": "0.60", "cache_read": 0.075}}}})
    async with (
        Simulator(profile=profile) as simulator,
        httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client,
    ):
        yield simulator, client


async def test_a_model_with_a_price_costs_exactly_its_tokens(priced: tuple[Simulator, httpx.AsyncClient]) -> None:
    simulator, client = priced
    for _ in range(3):
        await client.post("/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
    bill = simulator.bill()
    expected = (Decimal("0.15") * bill["input_tokens"] + Decimal("0.60") * bill["output_tokens"]) / 1_000_000
    assert Decimal(bill["cost_usd"]) == Decimal(bill["models"]["m"]["cost_usd"]) == expected
    assert sum(Decimal(entry["cost_usd"]) for entry in bill["entries"]) == expected


async def test_a_model_without_a_price_has_no_cost_and_neither_has_the_whole(
    priced: tuple[Simulator, httpx.AsyncClient],
) -> None:
    simulator, client = priced
    for model in ("m", "unpriced"):
        await client.post("/v1/chat/completions", json={"model": model, "messages": MESSAGES})
    bill = simulator.bill()
    assert "cost_usd" in bill["models"]["m"]
    assert "cost_usd" not in bill["models"]["unpriced"]
    assert "cost_usd" not in bill


def test_each_kind_of_token_has_its_price() -> None:
    assert PRICE.cost(Prompt(1_000_000), 0) == Decimal("3")
    assert PRICE.cost(Prompt(0, 1_000_000), 0) == Decimal("0.3")
    assert PRICE.cost(Prompt(0, 0, 1_000_000), 0) == Decimal("3.75")
    assert PRICE.cost(Prompt(0), 1_000_000) == Decimal("15")
    assert PRICE.cost(Prompt(1), 1, batch=True) == Decimal("0.000009")


counts = st.integers(0, 10**7)


@given(st.lists(st.tuples(counts, counts, counts, counts, st.booleans(), st.sampled_from("ab")), max_size=20))
def test_the_total_is_the_exact_sum_of_the_entries(calls: list[tuple[int, int, int, int, bool, str]]) -> None:
    bill = Bill(price=lambda _: PRICE)
    for fresh, read, written, output, batch, model in calls:
        bill.produce(bill.accept("x", model, None, Prompt(fresh, read, written), batch=batch), output)
    shown = bill.as_json()
    total = sum((Decimal(entry["cost_usd"]) for entry in shown["entries"]), Decimal(0))
    assert Decimal(shown.get("cost_usd", "0")) == total
    assert sum((Decimal(model["cost_usd"]) for model in shown["models"].values()), Decimal(0)) == total


def test_prices_of_the_cache_are_those_of_input_unless_given() -> None:
    price = Profile.read({"default": {"price": {"input": 2, "output": 8}}}).price("any")
    assert price == Price(Decimal(2), Decimal(8), Decimal(2), Decimal(2))


@pytest.mark.parametrize(
    "price", [3, {"input": 1}, {"input": 1, "output": "x"}, {"input": 1, "output": -1}, {"input": 1, "output": True},
              {"input": 1, "output": 1, "cached": 1}, {"input": "NaN", "output": 1}]
)  # fmt: skip
def test_a_price_that_is_none_is_refused(price: Any) -> None:
    with pytest.raises(BehaviourError, match="USD per million"):
        Profile.read({"default": {"price": price}})
