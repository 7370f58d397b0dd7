"""The final row of each request: how it ended, for whom, at what cost."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, or_, select

from holdfast.contracts import Answer, ContentRef, Status
from holdfast.ledger.database import Database
from holdfast.ledger.schema import reference_of, reference_values, requests, usage_of, usage_values


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
            **usage_values(answer.usage),
            "attempts": answer.attempts,
            "decided_by": answer.decided_by,
            "submitted_at": finished.submitted_at,
            "finished_at": finished.finished_at,
            **reference_values("input", finished.input),
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
        answer=Answer(
            request_id=row.request_id,
            status=Status(row.status),
            reason=row.reason,
            document=reference_of(row.document_sha256, row.document_size),
            content_sha256=row.content_sha256,
            deployment=row.deployment,
            recalled=row.recalled,
            usage=usage_of(row),
            attempts=row.attempts,
            decided_by=row.decided_by,
        ),
    )
