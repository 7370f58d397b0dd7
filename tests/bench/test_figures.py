"""The arithmetic behind the published numbers."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bench.figures import cost_per_million, mean, quantile, spread_ms, table

VALUES = st.lists(st.floats(0, 1_000, allow_nan=False), min_size=1)


@given(VALUES, st.floats(0.01, 1).map(lambda share: round(share, 2)))
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    below, up_to = sum(value < found for value in values), sum(value <= found for value in values)
    wanted = Decimal(str(share)) * len(values)
    assert below < wanted <= up_to


def test_the_99th_percentile_of_a_hundred_values_is_the_second_largest() -> None:
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert quantile(list(range(1, 101)), 1.0) == 100
    assert quantile([7.0], 0.5) == 7


def test_a_spread_is_in_milliseconds_and_empty_without_values() -> None:
    assert spread_ms([0.001, 0.002, 0.003]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0}
    assert spread_ms([]) == {}


def test_the_mean_is_arithmetic() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0


def test_costs_are_exact_to_the_dollar() -> None:
    assert cost_per_million(Decimal("0.0025"), 1) == Decimal(2_500)
    assert cost_per_million(Decimal("1"), 3) == Decimal(333_333)


def test_a_table_has_a_row_for_each_and_blanks_for_what_is_missing() -> None:
    rows: list[dict[str, object]] = [{"path": "a", "cost": 15_000}, {"path": "b"}]
    assert table(["path", "cost"], rows) == "| path | cost |\n| --- | --- |\n| a | 15,000 |\n| b |  |"
