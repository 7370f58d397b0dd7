"""Budgets of tenants, users and sessions, and prepaid credit: calendar, whole-number money, and who is refused.

Pure arithmetic. The ledger applies it inside the transaction that admits a call.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, localcontext
from enum import StrEnum

from holdfast.contracts import AtLimit, Usage
from holdfast.errors import BudgetExceeded

UNIT_DIGITS = 10
UNITS_PER_USD = 10**UNIT_DIGITS
"""Money in budgets is whole numbers of 1e-10 USD: exact for any price with up to four decimals per million tokens.
A price with more decimals is rounded up, by less than one unit per call. A 64-bit counter reaches 922 million USD."""
MOST_UNITS = 10**18
"""The largest ceiling, and the most that one call counts: 100 million USD, or that many tokens."""


class ScopeKind(StrEnum):
    """Whose spending a budget bounds."""

    TENANT = "tenant"
    USER = "user"
    SESSION = "session"
    CREDIT = "credit"
    """What a tenant has paid in advance."""


class Period(StrEnum):
    """How long a budget lasts before it begins anew, by the calendar in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def window(self, now: datetime) -> str:
        """The name of the period that a moment lies in: `2026-11-21`, `2026-11` or `total`."""
        moment = now.astimezone(UTC)
        match self:
            case Period.DAY:
                return f"{moment:%Y-%m-%d}"
            case Period.MONTH:
                return f"{moment:%Y-%m}"
            case Period.TOTAL:
                return "total"

    def ends(self, now: datetime) -> datetime | None:
        """When the period that a moment lies in ends and the next begins; `None` when it never does."""
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self:
            case Period.DAY:
                return midnight + timedelta(days=1)
            case Period.MONTH:
                return (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
            case Period.TOTAL:
                return None


@dataclass(frozen=True)
class Amount:
    """Spending in whole numbers, which a database can add and compare without losing any."""

    tokens: int = 0
    cost: int = 0
    """In units of `UNITS_PER_USD`, rounded up."""
    unpriced: int = 0
    """Calls whose price nobody knows."""

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.cost + other.cost, self.unpriced + other.unpriced)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.cost - other.cost, self.unpriced - other.unpriced)


NOTHING = Amount()


@dataclass(frozen=True)
class Standing:
    """A budget and what its present period has seen."""

    budget_id: str
    tenant: str
    kind: ScopeKind
    name: str
    """The tenant, user or session; for credit, the tenant."""
    period: Period
    window: str
    tokens: int | None
    """Ceiling, `None` for none."""
    cost: int | None
    """Ceiling in units, `None` for none."""
    at_limit: AtLimit
    spent: Amount
    resets_at: datetime | None

    @property
    def left_tokens(self) -> int | None:
        """Tokens left, at least 0; `None` without a ceiling."""
        return None if self.tokens is None else max(0, self.tokens - self.spent.tokens)

    @property
    def left_usd(self) -> Decimal | None:
        """Dollars left, at least 0; `None` without a ceiling. After a call without a price, none are left."""
        if self.cost is None:
            return None
        return Decimal(0) if self.spent.unpriced else usd_of(max(0, self.cost - self.spent.cost))

    @property
    def scope(self) -> str:
        """Whose budget, for people."""
        return f"{self.kind.value} {self.name}"

    def excess(self, hold: Amount) -> Amount:
        """By how much a call would go past; zero where it would not. An unpriced call under dollars is past them."""
        if self.cost is None:
            cost = unpriced = 0
        else:
            cost = min(hold.cost, max(0, self.spent.cost + hold.cost - self.cost))
            unpriced = hold.unpriced + self.spent.unpriced
        tokens = 0
        if self.tokens is not None:
            tokens = min(hold.tokens, max(0, self.spent.tokens + hold.tokens - self.tokens))
        return Amount(tokens, cost, unpriced)


def units_of(usd: Decimal) -> int:
    """Dollars as whole units, rounded up, so that what is counted is never below what is owed."""
    with localcontext(prec=100, rounding=ROUND_CEILING):
        return min(int((usd * UNITS_PER_USD).to_integral_value()), MOST_UNITS)


def usd_of(units: int) -> Decimal:
    """Units as dollars, exact."""
    return Decimal(units).scaleb(-UNIT_DIGITS).normalize() + Decimal(0)


def amount_of(usage: Usage) -> Amount:
    """What a usage counts in a budget; tokens and dollars each at most `MOST_UNITS`."""
    tokens = min(usage.total_tokens, MOST_UNITS)
    return Amount(tokens, 0, 1) if usage.cost_usd is None else Amount(tokens, units_of(usage.cost_usd))


def admit(standings: Sequence[Standing], hold: Amount, permitted: Amount = NOTHING) -> Amount | BudgetExceeded:
    """Whether a call fits into every budget that it counts against.

    Args:
        standings: The budgets.
        hold: The call's worst case.
        permitted: By how much a person lets the request go past budgets that ask.

    Returns:
        How much of the permission the call uses, or the denial by the strictest budget that would be passed.
    """
    used = NOTHING
    denied: list[Standing] = []
    for standing in standings:
        excess = standing.excess(hold)
        if excess == NOTHING:
            continue
        covered = (
            standing.at_limit is AtLimit.ASK
            and not excess.unpriced
            and excess.tokens <= permitted.tokens
            and excess.cost <= permitted.cost
        )
        if covered:
            used = Amount(max(used.tokens, excess.tokens), max(used.cost, excess.cost))
        else:
            denied.append(standing)
    if not denied:
        return used
    return _denial(min(denied, key=lambda standing: _STRICTEST_FIRST.index(standing.at_limit)), hold)


_STRICTEST_FIRST = (AtLimit.BLOCK, AtLimit.ASK, AtLimit.QUEUE, AtLimit.DEGRADE)


def _denial(budget: Standing, hold: Amount) -> BudgetExceeded:
    excess = budget.excess(hold)
    if excess.tokens:
        limit, bound = "tokens", f"{budget.tokens} tokens"
        left, wanted = f"{budget.left_tokens} tokens", f"use {hold.tokens}"
        needed = str(budget.spent.tokens + hold.tokens)
    else:
        limit, bound = "cost_usd", f"{usd_of(budget.cost or 0):f} USD"
        left, wanted = f"{budget.left_usd or Decimal(0):f} USD", f"cost {usd_of(hold.cost):f}"
        needed = "unpriced" if excess.unpriced else f"{usd_of(budget.spent.cost + hold.cost):f}"
    if hold.unpriced and limit == "cost_usd":
        state = "and this model has no known price, so its cost cannot be bounded"
        remedy = "Set `price` for the deployment in models.toml, or"
    elif budget.spent.unpriced and limit == "cost_usd":
        state = "and a model without a known price was called, so nobody knows what is left of it"
        remedy = "Set `price` for the deployment in models.toml, and"
    else:
        state, remedy = f"of which {left} are left, and the next model call could {wanted}", "To raise it:"
    resets = "" if budget.resets_at is None else f" It resets at {budget.resets_at:%Y-%m-%d %H:%M} UTC."
    if budget.kind is ScopeKind.CREDIT:
        what = f"The prepaid credit of tenant {budget.name!r} is {bound} in all"
        command = f"holdfast budget grant --tenant {shlex.quote(budget.tenant)} --usd X"
    else:
        span = "in total" if budget.period is Period.TOTAL else f"per {budget.period.value}"
        what = f"The budget of {budget.kind.value} {budget.name!r} is {bound} {span}"
        whose = "" if budget.kind is ScopeKind.TENANT else f" --{budget.kind.value} {shlex.quote(budget.name)}"
        ceiling = "--tokens N" if limit == "tokens" else "--usd X"
        command = (
            f"holdfast budget set --tenant {shlex.quote(budget.tenant)}{whose} --period {budget.period.value} {ceiling}"
        )
    return BudgetExceeded(
        f"{what}, {state}.{resets} {remedy} `{command}`.",
        limit=limit,
        bound=bound.partition(" ")[0],
        needed=needed,
        scope=budget.scope,
        action=budget.at_limit.value,
        resets_at=budget.resets_at,
    )
