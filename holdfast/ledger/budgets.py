"""Budgets and prepaid credit as their owners see them: set, look at, remove, add money, let one request go past.

A budget counts from the moment it is set; calls that were open by then are not in it. Credit is a budget without a
period whose ceiling is what was paid in, with an append-only list of entries beside it.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from holdfast.contracts import AtLimit, SpendScopes
from holdfast.errors import IdempotencyConflict, InvalidInput
from holdfast.ledger.counters import Counters
from holdfast.ledger.database import Database
from holdfast.ledger.schema import budget_counters, budget_extensions, budgets, credit_entries
from holdfast.spending import MOST_UNITS, Period, ScopeKind, Standing, units_of, usd_of


@dataclass(frozen=True)
class CreditEntry:
    """One line of a tenant's credit account."""

    entry_id: str
    kind: str
    """`grant`, `hold`, `capture` or `release`."""
    cost_usd: Decimal
    change_usd: Decimal
    """What it did to the credit that is available."""
    attempt_id: str | None
    made_by: str | None
    made_at: datetime


class Budgets:
    """Ceilings by tenant, user and session, and prepaid credit by tenant."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters
        self._one = select(budgets).where(
            budgets.c.tenant == bindparam("of_tenant"),
            budgets.c.kind == bindparam("of_kind"),
            budgets.c.name == bindparam("of_name"),
            budgets.c.period == bindparam("of_period"),
        )
        self._insert = insert(budgets)
        self._change = (
            update(budgets)
            .where(budgets.c.id == bindparam("of_id"))
            .values(tokens=bindparam("new_tokens"), cost=bindparam("new_cost"), at_limit=bindparam("new_at_limit"))
        )
        self._remove = delete(budgets).where(budgets.c.id == bindparam("of_id"))
        self._remove_counters = delete(budget_counters).where(budget_counters.c.budget_id == bindparam("of_id"))
        self._enter = database.insert_once(credit_entries)
        self._entry = select(credit_entries).where(
            credit_entries.c.tenant == bindparam("of_tenant"), credit_entries.c.id == bindparam("of_id")
        )
        self._entries = (
            select(credit_entries)
            .where(credit_entries.c.tenant == bindparam("of_tenant"))
            .order_by(credit_entries.c.made_at.desc(), credit_entries.c.id.desc())
        )
        self._extend = database.insert_once(budget_extensions)
        self._extension = select(budget_extensions).where(
            and_(
                budget_extensions.c.request_id == bindparam("of_request"),
                budget_extensions.c.approval == bindparam("of_approval"),
            )
        )

    async def set(
        self,
        tenant: str,
        kind: ScopeKind,
        name: str,
        period: Period,
        *,
        tokens: int | None = None,
        cost_usd: Decimal | None = None,
        at_limit: AtLimit | None = None,
    ) -> Standing:
        """Set a budget's ceilings, or change those of one that exists; what it has seen in its period stays counted.

        Args:
            tenant: The paying party.
            kind: Whose spending: the tenant's, a user's or a session's.
            name: Which tenant, user or session.
            period: After which it begins anew.
            tokens: Most tokens; `None` leaves the ceiling as it is, which is none for a new budget.
            cost_usd: Most dollars; `None` as for `tokens`.
            at_limit: What happens to a call that would go past; `None` leaves it, which is to block for a new budget.

        Returns:
            The budget.

        Raises:
            InvalidInput: There is no ceiling, or one is out of range.
        """
        if kind is ScopeKind.CREDIT:
            raise InvalidInput("Credit is not set but granted: `holdfast budget grant`.", field="kind")
        ceiling = None if cost_usd is None else _checked_usd(cost_usd)
        if tokens is not None and not 0 <= tokens <= MOST_UNITS:
            raise InvalidInput(f"A ceiling in tokens lies between 0 and {MOST_UNITS}.", field="tokens")

        def unit(connection: Connection) -> None:
            found = connection.execute(self._one, _key(tenant, kind, name, period)).one_or_none()
            if found is None:
                if tokens is None and ceiling is None:
                    raise InvalidInput("A budget needs a ceiling: tokens, dollars or both.", field="tokens")
                row = _row(tenant, kind, name, period, tokens, ceiling, at_limit or AtLimit.BLOCK)
                connection.execute(self._insert, row)
                return
            connection.execute(
                self._change,
                {
                    "of_id": found.id,
                    "new_tokens": found.tokens if tokens is None else tokens,
                    "new_cost": found.cost if ceiling is None else ceiling,
                    "new_at_limit": found.at_limit if at_limit is None else at_limit.value,
                },
            )

        await self._database.write(unit, [lock_of(tenant)])
        return next(
            standing
            for standing in await self.list(tenant)
            if (standing.kind, standing.name, standing.period) == (kind, name, period)
        )

    async def list(self, tenant: str | None = None, *, now: datetime | None = None) -> tuple[Standing, ...]:
        """Every budget and credit account, of one tenant or of all, with what its present period has seen."""
        moment = now or datetime.now(UTC)
        return await self._database.read(lambda reading: self._counters.every_standing(reading, tenant, moment))

    async def left(self, scopes: SpendScopes, *, now: datetime | None = None) -> tuple[Standing, ...]:
        """The budgets that a call of these scopes would count against; see `Standing.left_tokens` and `left_usd`.

        Only to look ahead: what is left may be gone when the call is opened.
        """
        moment = now or datetime.now(UTC)
        return await self._database.read(lambda reading: self._counters.standings(reading, scopes, moment))

    async def remove(self, tenant: str, kind: ScopeKind, name: str, period: Period) -> bool:
        """Remove a budget and what it has counted.

        Returns:
            Whether there was one.
        """

        def unit(connection: Connection) -> bool:
            found = connection.execute(self._one, _key(tenant, kind, name, period)).one_or_none()
            if found is not None:
                connection.execute(self._remove_counters, {"of_id": found.id})
                connection.execute(self._remove, {"of_id": found.id})
            return found is not None

        return await self._database.write(unit, [lock_of(tenant)])

    async def grant(self, tenant: str, cost_usd: Decimal, *, entry_id: str, by: str) -> Standing:
        """Add prepaid credit. From its first grant on, a tenant spends what it has paid in and no more.

        Args:
            tenant: Whose credit.
            cost_usd: How much, above zero.
            entry_id: Names the payment; the same one counts once.
            by: Who says so.

        Returns:
            The credit account.

        Raises:
            IdempotencyConflict: The payment was granted before with another amount.
            InvalidInput: The amount is out of range.
        """
        units = _checked_usd(cost_usd)
        if units == 0 or not entry_id or len(entry_id) > 120:
            raise InvalidInput("A grant needs an amount above zero and an id of 1 to 120 characters.", field="cost_usd")
        credit = _key(tenant, ScopeKind.CREDIT, tenant, Period.TOTAL)
        # Beside the ids that calls give their entries.
        full_id = f"grant:{entry_id}"

        def unit(connection: Connection) -> None:
            entry = {
                "tenant": tenant,
                "id": full_id,
                "kind": "grant",
                "cost": units,
                "change": units,
                "attempt_id": None,
                "made_by": by,
                "made_at": datetime.now(UTC),
            }
            if connection.execute(self._enter, entry).rowcount != 1:
                earlier = connection.execute(self._entry, {"of_tenant": tenant, "of_id": full_id}).one()
                if earlier.cost != units:
                    raise IdempotencyConflict(
                        f"Payment {entry_id!r} of tenant {tenant!r} was granted before with {usd_of(earlier.cost):f} "
                        "USD. Give another payment another id."
                    )
                return
            found = connection.execute(self._one, credit).one_or_none()
            if found is None:
                row = _row(tenant, ScopeKind.CREDIT, tenant, Period.TOTAL, None, units, AtLimit.BLOCK)
                connection.execute(self._insert, row)
                return
            if found.cost + units > MOST_UNITS:
                raise InvalidInput(
                    f"Tenant {tenant!r} has been granted {usd_of(found.cost):f} USD, and an account takes no more than "
                    f"{usd_of(MOST_UNITS):f} USD in all.",
                    field="cost_usd",
                )
            changed = {"new_tokens": None, "new_cost": found.cost + units, "new_at_limit": found.at_limit}
            connection.execute(self._change, changed | {"of_id": found.id})

        await self._database.write(unit, [lock_of(tenant)])
        return next(standing for standing in await self.list(tenant) if standing.kind is ScopeKind.CREDIT)

    async def entries(self, tenant: str, *, limit: int = 100) -> tuple[CreditEntry, ...]:
        """The entries of a tenant's credit account, latest first; all of them add up to what is available."""

        def unit(connection: Connection) -> tuple[CreditEntry, ...]:
            rows = connection.execute(self._entries.limit(limit), {"of_tenant": tenant})
            return tuple(
                CreditEntry(
                    row.id, row.kind, usd_of(row.cost), usd_of(row.change), row.attempt_id, row.made_by, row.made_at
                )
                for row in rows
            )

        return await self._database.read(unit)

    async def extend(
        self, request_id: str, *, approval: str, tokens: int = 0, cost_usd: Decimal | None = None, by: str
    ) -> None:
        """Let one request go past the budgets that ask, by at most this much over all its further calls.

        Args:
            request_id: The request.
            approval: Names the decision; the same one counts once.
            tokens: How many tokens past.
            cost_usd: How many dollars past.
            by: Who decided.

        Raises:
            IdempotencyConflict: The decision was recorded before with other amounts.
            InvalidInput: An amount is out of range.
        """
        units = _checked_usd(cost_usd or Decimal(0))
        if not 0 <= tokens <= MOST_UNITS:
            raise InvalidInput(f"An extension in tokens lies between 0 and {MOST_UNITS}.", field="tokens")

        def unit(connection: Connection) -> None:
            row = {
                "request_id": request_id,
                "approval": approval,
                "tokens": tokens,
                "cost": units,
                "granted_by": by,
                "granted_at": datetime.now(UTC),
            }
            if connection.execute(self._extend, row).rowcount == 1:
                return
            earlier = connection.execute(self._extension, {"of_request": request_id, "of_approval": approval}).one()
            if (earlier.tokens, earlier.cost) != (tokens, units):
                raise IdempotencyConflict(
                    f"Decision {approval!r} let request {request_id} go past its budgets by {earlier.tokens} tokens "
                    f"and {usd_of(earlier.cost):f} USD before; it cannot be changed."
                )

        await self._database.write(unit)


def lock_of(tenant: str) -> str:
    """The lock that keeps changes of a tenant's counters in several processes in one order."""
    return f"holdfast.budgets.{tenant}"


def _checked_usd(cost_usd: Decimal) -> int:
    if not cost_usd.is_finite() or cost_usd < 0 or cost_usd > usd_of(MOST_UNITS):
        raise InvalidInput(f"An amount lies between 0 and {usd_of(MOST_UNITS):f} USD.", field="cost_usd")
    # A ceiling is rounded down and spending up, so that rounding never lets a call through.
    units = units_of(cost_usd)
    return units if usd_of(units) <= cost_usd else units - 1


def _key(tenant: str, kind: ScopeKind, name: str, period: Period) -> dict[str, str]:
    return {"of_tenant": tenant, "of_kind": kind.value, "of_name": name, "of_period": period.value}


def _row(
    tenant: str, kind: ScopeKind, name: str, period: Period, tokens: int | None, cost: int | None, at_limit: AtLimit
) -> dict[str, Any]:
    return {
        "id": f"budget_{secrets.token_hex(12)}",
        "tenant": tenant,
        "kind": kind.value,
        "name": name,
        "period": period.value,
        "tokens": tokens,
        "cost": cost,
        "at_limit": at_limit.value,
        "created_at": datetime.now(UTC),
    }
