"""What happened to approvals, in rows for reports: asked, voted, edited, escalated, reminded, decided.

The record of a decision is the workflow's history. These rows say the same in a form that can be summed over months,
and that stays when the engine has deleted the run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Connection, Row, select

from holdfast.contracts import ApprovalHappening
from holdfast.ledger.database import Database
from holdfast.ledger.deliveries import Deliveries, Delivery
from holdfast.ledger.schema import approval_events

_HAPPENINGS: dict[str, ApprovalHappening] = {name: name for name in get_args(ApprovalHappening)}

_SUBJECT = 64
"""Characters of a subject that are kept; a server may call its tools anything."""


@dataclass(frozen=True)
class ApprovalEvent:
    """One thing that happened to one question."""

    tenant: str
    request_id: str
    sequence: int
    """Position among what happened to the request's questions."""
    agent: str
    round: int
    """Which of the request's questions."""
    kind: str
    """`output`, `budget` or `tool`."""
    subject: str
    """Of a `tool` question: the tool."""
    happening: ApprovalHappening
    actor: str | None
    """`None` for what no person did."""
    reason: str | None
    content_sha256: str
    stage: int
    approvers: tuple[str, ...]
    """Who could decide afterwards."""
    deadline: datetime
    at: datetime


class ApprovalEvents:
    """The rows of every tenant."""

    def __init__(self, database: Database, deliveries: Deliveries) -> None:
        self._database = database
        self._deliveries = deliveries
        self._insert = database.insert_once(approval_events)

    async def record(self, event: ApprovalEvent, deliveries: Sequence[Delivery] = ()) -> tuple[str, ...]:
        """Write down what happened and whom to tell, in one transaction. Doing so again changes nothing.

        Returns:
            Ids of the notifications that the first time put in line.
        """
        row = {
            "tenant": event.tenant,
            "request_id": event.request_id,
            "sequence": event.sequence,
            "agent": event.agent,
            "round": event.round,
            "kind": event.kind,
            "subject": event.subject[:_SUBJECT],
            "happening": event.happening,
            "actor": event.actor,
            "reason": event.reason,
            "content_sha256": event.content_sha256,
            "stage": event.stage,
            "approvers": json.dumps(event.approvers, ensure_ascii=False),
            "deadline": event.deadline,
            "at": event.at,
        }

        def unit(connection: Connection) -> tuple[str, ...]:
            if connection.execute(self._insert, row).rowcount == 1:
                return self._deliveries.add_in(connection, deliveries)
            return self._deliveries.known_in(connection, [delivery.id for delivery in deliveries])

        return await self._database.write(unit)

    async def list(
        self,
        tenant: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        *,
        request_id: str | None = None,
    ) -> tuple[ApprovalEvent, ...]:
        """What happened to the tenant's approvals, latest first.

        Args:
            tenant: Whose.
            since: From this moment on.
            until: Before this moment.
            limit: How many rows at most.
            request_id: Only of this request.
        """
        statement = (
            select(approval_events)
            .where(approval_events.c.tenant == tenant)
            .order_by(
                approval_events.c.at.desc(), approval_events.c.request_id.desc(), approval_events.c.sequence.desc()
            )
            .limit(limit)
        )
        if since is not None:
            statement = statement.where(approval_events.c.at >= since)
        if until is not None:
            statement = statement.where(approval_events.c.at < until)
        if request_id is not None:
            statement = statement.where(approval_events.c.request_id == request_id)
        rows = await self._database.read(lambda reading: reading.execute(statement).all())
        return tuple(_event_of(row) for row in rows)


def _event_of(row: Row[Any]) -> ApprovalEvent:
    return ApprovalEvent(
        tenant=row.tenant,
        request_id=row.request_id,
        sequence=row.sequence,
        agent=row.agent,
        round=row.round,
        kind=row.kind,
        subject=row.subject,
        happening=_HAPPENINGS[row.happening],
        actor=row.actor,
        reason=row.reason,
        content_sha256=row.content_sha256,
        stage=row.stage,
        approvers=tuple(json.loads(row.approvers)),
        deadline=row.deadline,
        at=row.at,
    )
