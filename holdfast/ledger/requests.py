"""The final row of each request: how it ended, for whom, at what cost."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, or_, select

from holdfast.contracts import Answer, ContentRef, LimitReached, Status, Usage
from holdfast.ledger.database import Database
from holdfast.ledger.schema import (
    USAGE_COLUMNS,
    reference_of,
    reference_values,
    requests,
    usage_of,
    usage_values,
)

_DELEGATED = "delegated_"
"""What the columns begin with that hold the usage of delegates."""


@dataclass(frozen=True)
class FinishedRequest:
    """A request that has ended."""

    tenant: str
    user: str
    agent: str
    plan_version: str
    submitted_at: datetime
    finished_at: datetime
    answer: Answer
    session: str | None = None
    tier: str = "standard"
    input: ContentRef | None = None
    """The question as it came."""
    delegated: Usage | None = None
    """What delegates used of the answer's usage; `None` when there were none."""
    own: Usage | None = None
    """What the request's own calls used, beside `delegated`."""
    deliveries: tuple[str, ...] = ()
    """Ids of the notifications of its end, as `Ledger.finish` put them in line; not told by later reading."""

    @property
    def own_usage(self) -> Usage:
        """What the request's own calls used, which is everything when there were no delegates."""
        return self.answer.usage if self.own is None else self.own


class Requests:
    """Final rows by request id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert_once(requests)
        self._get = select(requests).where(
            requests.c.tenant == bindparam("of_tenant"), requests.c.request_id == bindparam("of_request")
        )
        newest_first = (requests.c.finished_at.desc(), requests.c.request_id.desc())
        self._list = select(requests).where(requests.c.tenant == bindparam("of_tenant")).order_by(*newest_first)
        self._of_session = self._list.where(
            requests.c.user == bindparam("of_user"),
            requests.c.session == bindparam("of_session"),
            requests.c.status == Status.COMPLETED.value,
            requests.c.input_sha256.is_not(None),
            requests.c.document_sha256.is_not(None),
        )
        before = requests.alias("before")
        self._list_before = self._list.join(
            before, and_(before.c.tenant == requests.c.tenant, before.c.request_id == bindparam("before"))
        ).where(
            or_(
                requests.c.finished_at < before.c.finished_at,
                and_(
                    requests.c.finished_at == before.c.finished_at,
                    requests.c.request_id < before.c.request_id,
                ),
            )
        )

    async def finish(self, finished: FinishedRequest) -> bool:
        """Store the final row. The first one stays: a request ends once.

        Returns:
            Whether this call stored it.
        """
        return await self._database.write(lambda connection: self.finish_in(connection, finished))

    def finish_in(self, connection: Connection, finished: FinishedRequest) -> bool:
        """Inside a transaction: see `finish`."""
        answer = finished.answer
        row = {
            "request_id": answer.request_id,
            "tenant": finished.tenant,
            "user": finished.user,
            "agent": finished.agent,
            "plan_version": finished.plan_version,
            "session": finished.session,
            "tier": finished.tier,
            "status": answer.status.value,
            "reason": answer.reason,
            **reference_values("document", answer.document),
            "content_sha256": answer.content_sha256,
            "deployment": answer.deployment,
            "recalled": answer.recalled,
            **usage_values(finished.own_usage),
            "attempts": answer.attempts,
            "decided_by": answer.decided_by,
            "submitted_at": finished.submitted_at,
            "finished_at": finished.finished_at,
            **reference_values("input", finished.input),
            **_delegated_values(finished.delegated),
            "tool_calls": answer.tool_calls,
            "delegates": json.dumps(answer.delegates),
            "limit": answer.limit.model_dump_json() if answer.limit else None,
            "tainted": json.dumps(answer.tainted),
        }
        return connection.execute(self._insert, row).rowcount == 1

    async def get(self, tenant: str, request_id: str) -> FinishedRequest | None:
        """A request of the tenant, or `None` when it has not ended or is not the tenant's."""
        return await self._database.read(lambda reading: self.get_in(reading, tenant, request_id))

    def get_in(self, connection: Connection, tenant: str, request_id: str) -> FinishedRequest | None:
        """Inside a transaction: see `get`."""
        row = connection.execute(self._get, {"of_tenant": tenant, "of_request": request_id}).one_or_none()
        return None if row is None else _finished(row)

    async def list(self, tenant: str, *, limit: int = 50, before: str | None = None) -> tuple[FinishedRequest, ...]:
        """The tenant's ended requests, latest first.

        Args:
            tenant: Whose.
            limit: How many at most.
            before: Id of the last request of the previous page; the list goes on after it.
        """
        statement = self._list if before is None else self._list_before
        key = {"of_tenant": tenant} | ({} if before is None else {"before": before})
        rows = await self._database.read(lambda reading: reading.execute(statement.limit(limit), key).all())
        return tuple(_finished(row) for row in rows)

    async def of_session(self, tenant: str, user: str, session: str, *, limit: int) -> tuple[FinishedRequest, ...]:
        """The latest completed requests of a user's session whose input and document are known, oldest first."""
        key = {"of_tenant": tenant, "of_user": user, "of_session": session}
        rows = await self._database.read(lambda reading: reading.execute(self._of_session.limit(limit), key).all())
        return tuple(_finished(row) for row in reversed(rows))


def _finished(row: Row[Any]) -> FinishedRequest:
    own, delegated = usage_of(row), _delegated_of(row)
    return FinishedRequest(
        tenant=row.tenant,
        user=row.user,
        agent=row.agent,
        plan_version=row.plan_version,
        submitted_at=row.submitted_at,
        finished_at=row.finished_at,
        session=row.session,
        tier=row.tier,
        input=reference_of(row.input_sha256, row.input_size),
        delegated=delegated,
        own=None if delegated is None else own,
        answer=Answer(
            request_id=row.request_id,
            status=Status(row.status),
            reason=row.reason,
            document=reference_of(row.document_sha256, row.document_size),
            content_sha256=row.content_sha256,
            deployment=row.deployment,
            recalled=row.recalled,
            usage=own if delegated is None else own + delegated,
            attempts=row.attempts,
            decided_by=row.decided_by,
            tool_calls=row.tool_calls or 0,
            delegates=tuple(json.loads(row.delegates or "[]")),
            limit=LimitReached.model_validate_json(row.limit) if row.limit else None,
            tainted=tuple(json.loads(row.tainted or "[]")),
        ),
    )


def _delegated_values(usage: Usage | None) -> dict[str, Any]:
    known = {} if usage is None else usage_values(usage)
    return {f"{_DELEGATED}{name}": known.get(name) for name in USAGE_COLUMNS}


def _delegated_of(row: Row[Any]) -> Usage | None:
    # Not the cost, which is null also when a delegate has no price.
    return None if row.delegated_input_tokens is None else usage_of(row, _DELEGATED)
