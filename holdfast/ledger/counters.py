"""What budgets have seen: counters by budget and period, moved inside the transaction that opens or settles a call.

A call is held in every budget that it counts against, or in none. The hold stays in the period in which it was made:
a call that opens on the 31st and is settled on the 1st corrects the old month. Which counters hold a call stands in the
call's own row, so that a budget that was removed and set anew is not credited with what it never saw.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, insert, or_, select, update

from holdfast.contracts import AtLimit, SpendScopes
from holdfast.errors import BudgetExceeded
from holdfast.ledger.database import Database
from holdfast.ledger.schema import budget_counters, budget_extensions, budgets, credit_entries
from holdfast.spending import NOTHING, Amount, Period, ScopeKind, Standing, admit

_NO_CEILING = 2**63 - 1


class Raced(Exception):
    """Another process moved a counter between the look at it and the hold. Nothing is held; try again."""


@dataclass(frozen=True)
class Hold:
    """A call held in budgets."""

    held_in: str | None
    """The counters, as JSON for the call's row; `None` when there are none."""
    extended: Amount = NOTHING
    """How much of it goes past budgets by a person's permission."""


class Counters:
    """The counters of all budgets. Every method runs inside a transaction."""

    def __init__(self, database: Database) -> None:
        window = case(
            (budgets.c.period == Period.DAY.value, bindparam("day")),
            (budgets.c.period == Period.MONTH.value, bindparam("month")),
            else_=Period.TOTAL.value,
        )
        self._standings = select(
            budgets,
            budget_counters.c.tokens.label("spent_tokens"),
            budget_counters.c.cost.label("spent_cost"),
            budget_counters.c.unpriced.label("spent_unpriced"),
        ).outerjoin(
            budget_counters, and_(budget_counters.c.budget_id == budgets.c.id, budget_counters.c.window == window)
        )
        # The tenant stands in every alternative, so that each is one look-up in the index.
        self._in_scope = self._standings.where(
            or_(
                *(
                    and_(
                        budgets.c.tenant == bindparam("of_tenant"),
                        budgets.c.kind == kind.value,
                        budgets.c.name == bindparam(name),
                    )
                    for kind, name in (
                        (ScopeKind.TENANT, "of_tenant"),
                        (ScopeKind.CREDIT, "of_tenant"),
                        (ScopeKind.USER, "of_user"),
                        (ScopeKind.SESSION, "of_session"),
                    )
                )
            )
        ).order_by(budgets.c.id)
        columns = (budget_counters.c.tokens, budget_counters.c.cost, budget_counters.c.unpriced)
        names = {"budget_id": "of_budget", "window": "of_window"} | {
            column.name: f"add_{column.name}" for column in columns
        }
        charge = database.upsert(budget_counters).values({column: bindparam(name) for column, name in names.items()})
        self._charge = charge.on_conflict_do_update(
            index_elements=list(budget_counters.primary_key),
            set_={column.name: column + charge.excluded[column.name] for column in columns},
            where=and_(
                *(column + charge.excluded[column.name] <= bindparam(f"most_{column.name}") for column in columns)
            ),
        )
        self._correct = (
            update(budget_counters)
            .where(
                budget_counters.c.budget_id == bindparam("of_budget"),
                budget_counters.c.window == bindparam("of_window"),
            )
            .values({column.name: column + bindparam(f"add_{column.name}") for column in columns})
        )
        self._permitted = select(
            func.coalesce(func.sum(budget_extensions.c.tokens), 0), func.coalesce(func.sum(budget_extensions.c.cost), 0)
        ).where(budget_extensions.c.request_id == bindparam("of_request"))
        self._enter = insert(credit_entries)

    def standings(self, connection: Connection, scopes: SpendScopes, now: datetime) -> tuple[Standing, ...]:
        """The budgets that a call of these scopes counts against, and what their present periods have seen."""
        where = {"of_tenant": scopes.tenant, "of_user": scopes.user, "of_session": scopes.session}
        rows = connection.execute(self._in_scope, where | _windows(now)).all()
        return tuple(standing_of(row, now) for row in rows)

    def every_standing(self, connection: Connection, tenant: str | None, now: datetime) -> tuple[Standing, ...]:
        """All budgets, of one tenant or of all."""
        statement = self._standings.order_by(budgets.c.tenant, budgets.c.kind, budgets.c.name, budgets.c.period)
        if tenant is not None:
            statement = statement.where(budgets.c.tenant == tenant)
        return tuple(standing_of(row, now) for row in connection.execute(statement, _windows(now)))

    def hold(
        self,
        connection: Connection,
        standings: Sequence[Standing],
        amount: Amount,
        *,
        request_id: str,
        attempt_id: str,
        used: Amount,
        now: datetime,
    ) -> Hold | BudgetExceeded:
        """Hold a call in all its budgets, or in none.

        Args:
            connection: The transaction, which must be undone if this raises.
            standings: The budgets, from `standings` in the same transaction.
            amount: The call's worst case.
            request_id: Whose extensions apply.
            attempt_id: The call.
            used: What earlier calls of the request have used of its extensions.
            now: The present.

        Raises:
            Raced: A counter moved meanwhile.
        """
        extended = admit(standings, amount)
        if isinstance(extended, BudgetExceeded) and extended.action == AtLimit.ASK.value:
            tokens, cost = connection.execute(self._permitted, {"of_request": request_id}).one()
            permitted = Amount(max(0, int(tokens) - used.tokens), max(0, int(cost) - used.cost))
            extended = admit(standings, amount, permitted)
        if isinstance(extended, BudgetExceeded):
            return extended
        for standing in standings:
            after = standing.spent + amount
            ceilings = {
                # Past its ceiling only by what was admitted above, and only if nobody else came in between.
                "most_tokens": _NO_CEILING if standing.tokens is None else max(standing.tokens, after.tokens),
                "most_cost": _NO_CEILING if standing.cost is None else max(standing.cost, after.cost),
                "most_unpriced": _NO_CEILING if standing.cost is None else after.unpriced,
            }
            charged = connection.execute(self._charge, _moved(standing.budget_id, standing.window, amount) | ceilings)
            if charged.rowcount != 1:
                raise Raced
        credit = next((standing for standing in standings if standing.kind is ScopeKind.CREDIT), None)
        if credit is not None:
            entry = _entry(credit.tenant, "hold", attempt_id, amount.cost, -amount.cost, now)
            connection.execute(self._enter, entry)
        counters = [[standing.budget_id, standing.window, standing.kind.value] for standing in standings]
        return Hold(json.dumps(counters) if counters else None, extended)

    def settle(
        self,
        connection: Connection,
        held_in: str | None,
        *,
        tenant: str,
        attempt_id: str,
        held: Amount,
        counted: Amount,
        released: bool,
        now: datetime,
    ) -> None:
        """Correct every counter that holds a call to what it counts from now on, even above a ceiling.

        Args:
            connection: The transaction.
            held_in: From the call's row.
            tenant: The call's tenant.
            attempt_id: The call.
            held: What the counters hold for it.
            counted: What it counts from now on.
            released: Whether it turned out to cost nothing.
            now: The present.
        """
        if held_in is None:
            return
        counters = sorted(json.loads(held_in))
        difference = counted - held
        if difference != NOTHING:
            # In one order for all, or two transactions could wait for each other on PostgreSQL.
            connection.execute(
                self._correct, [_moved(budget_id, window, difference) for budget_id, window, _ in counters]
            )
        if not any(kind == ScopeKind.CREDIT.value for _, _, kind in counters):
            return
        entries = []
        if not released:
            change = min(0, held.cost - counted.cost)
            entries.append(_entry(tenant, "capture", attempt_id, counted.cost, change, now))
        if counted.cost < held.cost or released:
            rest = held.cost - counted.cost
            entries.append(_entry(tenant, "release", attempt_id, rest, rest, now))
        connection.execute(self._enter, entries)


def standing_of(row: Row[Any], now: datetime) -> Standing:
    """A budget from its row joined with its counter's."""
    period = Period(row.period)
    return Standing(
        budget_id=row.id,
        tenant=row.tenant,
        kind=ScopeKind(row.kind),
        name=row.name,
        period=period,
        window=period.window(now),
        tokens=row.tokens,
        cost=row.cost,
        at_limit=AtLimit(row.at_limit),
        spent=Amount(row.spent_tokens or 0, row.spent_cost or 0, row.spent_unpriced or 0),
        resets_at=period.ends(now),
    )


def _windows(now: datetime) -> dict[str, str]:
    return {"day": Period.DAY.window(now), "month": Period.MONTH.window(now)}


def _moved(budget_id: str, window: str, by: Amount) -> dict[str, Any]:
    return {
        "of_budget": budget_id,
        "of_window": window,
        "add_tokens": by.tokens,
        "add_cost": by.cost,
        "add_unpriced": by.unpriced,
    }


def _entry(tenant: str, kind: str, attempt_id: str, cost: int, change: int, now: datetime) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": f"{kind}:{attempt_id}",
        "kind": kind,
        "cost": cost,
        "change": change,
        "attempt_id": attempt_id,
        "made_by": None,
        "made_at": now,
    }
