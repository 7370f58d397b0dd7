"""Notifications on their way: one row for each target, from the event to its acceptance or the dead-letter list.

```
pending ──accepted──▶ sent
   │  ▲
   │  └──────retried by a person──────┐
   └──given up, or refused for good──▶ dead
```

A row is written in the transaction of what it tells of, so that nothing happens untold and nothing is told that did not
happen. Its id is the same in every attempt: a receiver that has seen it before may pass over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from holdfast.ledger.database import Database
from holdfast.ledger.schema import deliveries


class DeliveryState(StrEnum):
    """Where a notification is."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True)
class Delivery:
    """One notification to one target."""

    id: str
    tenant: str
    request_id: str
    target: str
    """`webhook:<name>` or `email:<user>`; the address is looked up when it is sent."""
    event: str
    payload: str
    """JSON, sent byte for byte."""
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    problem: str | None = None
    """Why the last attempt failed. Names no address and holds no secret."""
    ended_at: datetime | None = None


class Deliveries:
    """Notifications by id, and by state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert_once(deliveries)
        mine = deliveries.c.tenant == bindparam("of_tenant")
        this = (mine, deliveries.c.id == bindparam("of_id"))
        self._get = select(deliveries).where(*this)
        self._tried = (
            update(deliveries)
            .where(*this, deliveries.c.state == DeliveryState.PENDING.value)
            .values(
                state=bindparam("new_state"),
                attempts=deliveries.c.attempts + 1,
                problem=bindparam("new_problem"),
                ended_at=bindparam("new_ended_at"),
            )
            .returning(deliveries)
        )
        self._revive = (
            update(deliveries)
            .where(*this, deliveries.c.state == DeliveryState.DEAD.value)
            .values(state=DeliveryState.PENDING.value, ended_at=None)
        )

    def add_in(self, connection: Connection, added: Sequence[Delivery]) -> tuple[str, ...]:
        """Inside the transaction of what they tell of: put notifications in line; one that is there stays.

        Returns:
            Their ids.
        """
        if added:
            connection.execute(self._insert, [_row_of(delivery) for delivery in added])
        return tuple(delivery.id for delivery in added)

    def known_in(self, connection: Connection, ids: Sequence[str]) -> tuple[str, ...]:
        """Inside a transaction: those of the ids that are in the ledger, in the same order."""
        if not ids:
            return ()
        found = set(connection.execute(select(deliveries.c.id).where(deliveries.c.id.in_(ids))).scalars())
        return tuple(known for known in ids if known in found)

    async def get(self, tenant: str, delivery_id: str) -> Delivery | None:
        """A notification of the tenant, or `None` when there is none of that id or it is another tenant's."""
        key = {"of_tenant": tenant, "of_id": delivery_id}
        row = await self._database.read(lambda reading: reading.execute(self._get, key).one_or_none())
        return None if row is None else _delivery_of(row)

    async def find(self, delivery_id: str) -> Delivery | None:
        """A notification of whichever tenant, for the operator of the installation."""
        statement = select(deliveries).where(deliveries.c.id == delivery_id)
        row = await self._database.read(lambda reading: reading.execute(statement).one_or_none())
        return None if row is None else _delivery_of(row)

    async def tried(
        self, tenant: str, delivery_id: str, state: DeliveryState, now: datetime, *, problem: str | None = None
    ) -> Delivery | None:
        """Record an attempt and what came of it; one that has ended stays as it is.

        Returns:
            The notification as it is now; `None` if there was nothing to record.
        """
        values = {
            "of_tenant": tenant,
            "of_id": delivery_id,
            "new_state": state.value,
            "new_problem": problem,
            "new_ended_at": None if state is DeliveryState.PENDING else now,
        }
        row = await self._database.write(lambda connection: connection.execute(self._tried, values).one_or_none())
        return None if row is None else _delivery_of(row)

    async def revive(self, tenant: str, delivery_id: str) -> bool:
        """Take a notification off the dead-letter list; of several who try, one succeeds."""
        key = {"of_tenant": tenant, "of_id": delivery_id}
        return await self._database.write(lambda connection: connection.execute(self._revive, key).rowcount == 1)

    async def list(
        self,
        *,
        tenant: str | None = None,
        states: Sequence[DeliveryState] = (),
        created_before: datetime | None = None,
        limit: int = 100,
    ) -> tuple[Delivery, ...]:
        """Notifications, latest first.

        Args:
            tenant: Only this one's; `None` is for the operator of the installation.
            states: Only those in one of these; empty is all.
            created_before: Only older ones.
            limit: How many at most.
        """
        statement = select(deliveries).order_by(deliveries.c.created_at.desc(), deliveries.c.id).limit(limit)
        if tenant is not None:
            statement = statement.where(deliveries.c.tenant == tenant)
        if states:
            statement = statement.where(deliveries.c.state.in_([state.value for state in states]))
        if created_before is not None:
            statement = statement.where(deliveries.c.created_at < created_before)
        rows = await self._database.read(lambda reading: reading.execute(statement).all())
        return tuple(_delivery_of(row) for row in rows)


def _row_of(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "tenant": delivery.tenant,
        "request_id": delivery.request_id,
        "target": delivery.target,
        "event": delivery.event,
        "payload": delivery.payload,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "problem": delivery.problem,
        "created_at": delivery.created_at,
        "ended_at": delivery.ended_at,
    }


def _delivery_of(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        tenant=row.tenant,
        request_id=row.request_id,
        target=row.target,
        event=row.event,
        payload=row.payload,
        created_at=row.created_at,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        problem=row.problem,
        ended_at=row.ended_at,
    )
