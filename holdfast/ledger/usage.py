"""What was spent, by whom and on what: sums over the recorded attempts, exact to the last digit of every price."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, or_, select

from holdfast.contracts import Usage
from holdfast.ledger.attempt import AttemptState
from holdfast.ledger.schema import attempts


class GroupBy(StrEnum):
    """What one line of a report is about."""

    TENANT = "tenant"
    USER = "user"
    AGENT = "agent"
    MODEL = "model"
    DAY = "day"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True)
class UsageLine:
    """What one tenant, user, agent, model, day or deployment consumed."""

    key: str | None
    """Its name; `None` for calls of which it is not known."""
    usage: Usage
    """Everything, calls of unknown outcome at their worst case. One unpriced call makes its cost `None`."""
    cost_usd: Decimal
    """Cost of the calls that have a price."""
    attempts: int
    """Model calls, those that cost nothing included."""
    unpriced_attempts: int
    """Calls without a known price."""
    worst_case: Usage
    """The part of `usage` that no provider has reported: calls that are open, or ended without a report."""
    worst_case_cost_usd: Decimal
    """The part of `cost_usd` that no provider has reported."""
    worst_case_attempts: int


_CLASSES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


def usage_by(
    connection: Connection, by: GroupBy, *, tenant: str | None, since: date | None, until: date | None
) -> tuple[UsageLine, ...]:
    """See `Ledger.usage`."""
    lines: dict[str | None, dict[bool, list[tuple[Usage, int]]]] = defaultdict(lambda: {True: [], False: []})
    for row in connection.execute(_sums(by, tenant, since, until)):
        tokens = {name: int(getattr(row, name)) for name in _CLASSES}
        # Rows of one price are summed by the database, so multiplying gives the exact sum of their decimal texts.
        cost = None if row.cost_usd is None else row.cost_usd * row.calls
        lines[row.key][bool(row.worst)].append((Usage(**tokens, cost_usd=cost), row.calls))
    return tuple(
        _line(key, parts) for key, parts in sorted(lines.items(), key=lambda item: (item[0] is None, item[0] or ""))
    )


def _sums(by: GroupBy, tenant: str | None, since: date | None, until: date | None) -> Select[Any]:
    column = attempts.c[by.value]
    open_or_lost = attempts.c.state.in_((AttemptState.HELD.value, AttemptState.UNKNOWN.value))
    unreported = and_(attempts.c.state == AttemptState.SETTLED.value, attempts.c.measured.is_(False))
    worst = case((or_(open_or_lost, unreported), 1), else_=0)
    sums = select(
        column.label("key"),
        attempts.c.cost_usd,
        worst.label("worst"),
        func.count().label("calls"),
        *(func.sum(attempts.c[name]).label(name) for name in _CLASSES),
    ).group_by(column, attempts.c.cost_usd, worst)
    if tenant is not None:
        sums = sums.where(attempts.c.tenant == tenant)
    if since is not None:
        sums = sums.where(attempts.c.day >= since.isoformat())
    if until is not None:
        sums = sums.where(attempts.c.day <= until.isoformat())
    return sums


def _line(key: str | None, parts: dict[bool, list[tuple[Usage, int]]]) -> UsageLine:
    both = parts[True] + parts[False]
    return UsageLine(
        key=key,
        usage=_total(both),
        cost_usd=_cost(both),
        attempts=sum(calls for _, calls in both),
        unpriced_attempts=sum(calls for usage, calls in both if usage.cost_usd is None),
        worst_case=_total(parts[True]),
        worst_case_cost_usd=_cost(parts[True]),
        worst_case_attempts=sum(calls for _, calls in parts[True]),
    )


def _cost(parts: list[tuple[Usage, int]]) -> Decimal:
    return sum((usage.cost_usd for usage, _ in parts if usage.cost_usd is not None), Decimal(0))


def _total(parts: list[tuple[Usage, int]]) -> Usage:
    return sum((usage for usage, _ in parts), Usage())
