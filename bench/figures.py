"""The arithmetic of the measurements: quantiles, spreads, costs, and tables in Markdown."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

MILLION = 1_000_000


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (the inverse distribution function).

    Args:
        values: In any order, at least one.
        share: Between 0 and 1.
    """
    ordered = sorted(values)
    # Decimal: in binary, 0.99 of 100 values would be a little more than 99 of them.
    rank = math.ceil(Decimal(str(share)) * len(ordered))
    return ordered[max(rank, 1) - 1]


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, in milliseconds; empty without values."""
    if not seconds:
        return {}
    return {name: round(quantile(seconds, share) * 1000, 1) for name, share in _SHARES.items()}


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def cost_per_million(cost_usd: Decimal, requests: int) -> Decimal:
    """What a million requests like these cost, in whole dollars."""
    return (cost_usd * MILLION / requests).quantize(Decimal(1))


def table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table; a row without a column's value has a blank there."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)
