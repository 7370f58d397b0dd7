"""What tokens cost."""

import socket
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from holdfast.contracts import Usage
from holdfast.deployments import Deployment
from holdfast.prices import Price, Prices

AT = datetime(2026, 11, 1, tzinfo=UTC)
MILLION = 1_000_000


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


def test_a_listed_model_costs_its_list_price(prices: Prices) -> None:
    usage = Usage(input_tokens=MILLION, output_tokens=MILLION)
    assert prices.cost("openai", "gpt-4o-mini", usage, AT) == Decimal("0.75")


def test_a_dated_name_of_a_model_has_the_same_price(prices: Prices) -> None:
    usage = Usage(input_tokens=1_000, output_tokens=10)
    assert prices.cost("openai", "gpt-4o-mini-2024-07-18", usage, AT) == Decimal("0.000156")


def test_cached_tokens_are_priced_once_and_at_their_own_rate(prices: Prices) -> None:
    plain = prices.cost("anthropic", "claude-sonnet-4-5", Usage(input_tokens=1_000), AT)
    read = prices.cost("anthropic", "claude-sonnet-4-5", Usage(cache_read_tokens=1_000), AT)
    write = prices.cost("anthropic", "claude-sonnet-4-5", Usage(cache_write_tokens=1_000), AT)
    assert (plain, read, write) == (Decimal("0.003"), Decimal("0.0003"), Decimal("0.00375"))
    mixed = Usage(input_tokens=1_000, cache_read_tokens=1_000, cache_write_tokens=1_000)
    assert prices.cost("anthropic", "claude-sonnet-4-5", mixed, AT) == Decimal("0.00705")


def test_the_price_is_the_one_in_force_when_the_call_was_made(prices: Prices) -> None:
    usage = Usage(input_tokens=MILLION)
    before = prices.cost("openai", "o3", usage, datetime(2025, 6, 1, tzinfo=UTC))
    after = prices.cost("openai", "o3", usage, datetime(2025, 7, 1, tzinfo=UTC))
    assert (before, after) == (Decimal(10), Decimal(2))


@pytest.mark.parametrize(("provider", "model"), [("openai", "sim-large"), ("nobody", "gpt-4o"), ("", "")])
def test_an_unknown_model_is_unpriced(prices: Prices, provider: str, model: str) -> None:
    assert prices.cost(provider, model, Usage(input_tokens=1), AT) is None


def test_a_model_listed_without_a_rate_is_unpriced_and_not_free(prices: Prices) -> None:
    embedding = ("aws", "amazon.titan-embed-text-v1")
    assert prices.cost(*embedding, Usage(input_tokens=MILLION), AT) == Decimal("0.1")
    assert prices.cost(*embedding, Usage(input_tokens=1, output_tokens=1), AT) is None
    assert prices.cost("azure", "phi-4-reasoning:free", Usage(input_tokens=1), AT) is None


def test_a_configured_price_wins_and_is_exact(prices: Prices) -> None:
    price = Price(Decimal("0.50"), Decimal("1.50"), cache_read_usd_per_million=Decimal(0))
    usage = Usage(input_tokens=3, cache_read_tokens=1_000, cache_write_tokens=2, output_tokens=1)
    assert prices.cost("openai", "gpt-4o", usage, AT, override=price) == Decimal("0.000004")


def test_a_configured_price_of_zero_is_free_and_not_unpriced(prices: Prices) -> None:
    free = Price(Decimal(0), Decimal(0))
    assert prices.cost("extractive", "extractive-1", Usage(input_tokens=9, output_tokens=9), AT, override=free) == 0


def test_prices_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a price look-up opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert Prices().cost("openai", "gpt-4o", Usage(input_tokens=1), AT) is not None
    assert Prices().cost("openai", "not-a-model", Usage(input_tokens=1), AT) is None


@pytest.mark.parametrize("vendor", ["google", "gemini", "vertexai", "xai", "Azure", "litellm"])
def test_a_deployment_may_name_a_price_list_as_its_package_does(vendor: str) -> None:
    made = Deployment(provider="openai", base_url="http://127.0.0.1:1/v1", model="m", vendor=vendor)
    assert made.price_list == vendor
