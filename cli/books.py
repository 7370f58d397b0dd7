"""What operators' verbs do with the ledger itself, without a gateway. It loads the ledger, so verbs import it late."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from cli.output import USAGE, Problem
from holdfast.contracts import AtLimit
from holdfast.ledger import GroupBy, Ledger, UsageLine
from holdfast.settings import load_settings
from holdfast.spending import Period, ScopeKind, Standing, usd_of

Result = TypeVar("Result")
Row = dict[str, Any]
"""A line as it is shown and printed as JSON."""


def set_budget(
    tenant: str, user: str, session: str, period: str, *, tokens: int | None, usd: str | None, at_limit: str | None
) -> Row:
    """Set a budget's ceilings, or change those that are named."""
    place = _place(tenant, user, session, period)
    ceiling = None if usd is None else _dollars(usd)
    action = None if at_limit is None else AtLimit(at_limit)
    return _budget(
        _with_ledger(lambda ledger: ledger.budgets.set(*place, tokens=tokens, cost_usd=ceiling, at_limit=action))
    )


def budgets(tenant: str | None) -> list[Row]:
    """Every budget and credit account, of one tenant or of all."""
    return [_budget(standing) for standing in _with_ledger(lambda ledger: ledger.budgets.list(tenant))]


def remove_budget(tenant: str, user: str, session: str, period: str) -> bool:
    """Remove a budget.

    Returns:
        Whether there was one.
    """
    place = _place(tenant, user, session, period)
    return _with_ledger(lambda ledger: ledger.budgets.remove(*place))


def grant(tenant: str, usd: str, payment: str) -> Row:
    """Add prepaid credit; the same payment counts once."""
    amount = _dollars(usd)
    return _budget(_with_ledger(lambda ledger: ledger.budgets.grant(tenant, amount, entry_id=payment, by=_operator())))


def usage(by: str, tenant: str | None, since: str, until: str) -> list[Row]:
    """What was spent, a row for each tenant, user, agent, model, day or deployment."""
    first = _day(since, "--since") if since else None
    last = _day(until, "--until") if until else None
    lines = _with_ledger(lambda ledger: ledger.usage(GroupBy(by), tenant=tenant, since=first, until=last))
    return [_usage(by, line) for line in lines]


def _with_ledger(work: Callable[[Ledger], Awaitable[Result]]) -> Result:
    """Open the ledger that the settings name, do something with it, and close it."""

    async def run() -> Result:
        ledger = await Ledger.open(load_settings().ledger.url)
        try:
            return await work(ledger)
        finally:
            await ledger.aclose()

    return asyncio.run(run())


def _place(tenant: str, user: str, session: str, period: str) -> tuple[str, ScopeKind, str, Period]:
    if user and session:
        raise Problem("A budget is a user's or a session's, not both.", remedy="Leave one out.", exit_code=USAGE)
    if user:
        return tenant, ScopeKind.USER, user, Period(period)
    if session:
        return tenant, ScopeKind.SESSION, session, Period(period)
    return tenant, ScopeKind.TENANT, tenant, Period(period)


def _budget(standing: Standing) -> Row:
    return {
        "tenant": standing.tenant,
        "scope": standing.scope,
        "period": standing.period.value,
        "window": standing.window,
        "tokens": standing.tokens,
        "tokens_spent": standing.spent.tokens,
        "tokens_left": standing.left_tokens,
        "usd": None if standing.cost is None else f"{usd_of(standing.cost):f}",
        "usd_spent": f"{usd_of(standing.spent.cost):f}",
        "usd_left": None if standing.left_usd is None else f"{standing.left_usd:f}",
        "unpriced_calls": standing.spent.unpriced,
        "at_limit": standing.at_limit.value,
        "resets_at": None if standing.resets_at is None else standing.resets_at.isoformat(),
    }


def _usage(by: str, line: UsageLine) -> Row:
    return {
        by: line.key,
        "calls": line.attempts,
        "input_tokens": line.usage.input_tokens,
        "cache_read_tokens": line.usage.cache_read_tokens,
        "cache_write_tokens": line.usage.cache_write_tokens,
        "output_tokens": line.usage.output_tokens,
        "cost_usd": f"{line.cost_usd:f}",
        "unpriced_calls": line.unpriced_attempts,
        "worst_case_calls": line.worst_case_attempts,
        "worst_case_tokens": line.worst_case.total_tokens,
        "worst_case_cost_usd": f"{line.worst_case_cost_usd:f}",
    }


def _dollars(written: str) -> Decimal:
    """An amount as it was written, exact."""
    try:
        amount = Decimal(written)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise Problem(
            f"--usd {written!r} is no amount of dollars.",
            remedy="Write it like --usd 12.50.",
            exit_code=USAGE,
            members={"field": "usd"},
        )
    return amount


def _day(written: str, option: str) -> date:
    """A day as it was written; `today` is one."""
    if written == "today":
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise Problem(
            f"{option} {written!r} is no day.",
            remedy=f"Write it like {option} 2026-11-21, or {option} today; days are in UTC.",
            exit_code=USAGE,
            members={"field": option.lstrip("-")},
        ) from None


def _operator() -> str:
    """Who is at the keyboard, for the record."""
    try:
        return getpass.getuser()[:128]
    except (OSError, KeyError):
        return "operator"
