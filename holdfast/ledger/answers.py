"""Exact answers: what an identical question, masked, to the same version of an agent was answered before."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.contracts import ContentRef
from holdfast.ledger.database import Database
from holdfast.ledger.schema import answers, reference_of, reference_values

RECALL_FOR = timedelta(hours=24)
"""How long an answer may be reused unless the settings say otherwise."""


@dataclass(frozen=True)
class ExactAnswer:
    """A validated answer that may serve again."""

    content: ContentRef
    """The validated text, placeholders still in it."""
    passages: ContentRef | None
    request_id: str
    """The request that produced it."""
    created_at: datetime | None = None
    """When it was stored; reuse does not renew it. `None` before it is stored."""


class Answers:
    """Exact answers by tenant, agent version and masked question."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = database.insert_or_replace(answers)
        self._recall = select(answers).where(
            answers.c.tenant == bindparam("of_tenant"),
            answers.c.plan_version == bindparam("version"),
            answers.c.masked_sha256 == bindparam("masked"),
            answers.c.created_at > bindparam("born_after"),
        )
        self._forget = delete(answers).where(answers.c.tenant == bindparam("of_tenant"))

    async def recall(
        self,
        tenant: str,
        plan_version: str,
        masked_sha256: str,
        *,
        ttl: timedelta = RECALL_FOR,
        now: datetime | None = None,
    ) -> ExactAnswer | None:
        """The stored answer, if there is one younger than `ttl`.

        Args:
            tenant: The asker's tenant.
            plan_version: Version of the agent.
            masked_sha256: Digest of the sanitized question.
            ttl: Greatest age.
            now: The present, UTC; the clock's by default.
        """
        key = {"of_tenant": tenant, "version": plan_version, "masked": masked_sha256}
        born_after = (now or datetime.now(UTC)) - ttl
        async with self._database.read() as reading:
            row = (await reading.execute(self._recall, key | {"born_after": born_after})).one_or_none()
        if row is None:
            return None
        return ExactAnswer(
            content=ContentRef(sha256=row.content_sha256, size=row.content_size),
            passages=reference_of(row.passages_sha256, row.passages_size),
            request_id=row.request_id,
            created_at=row.created_at,
        )

    async def store(
        self,
        tenant: str,
        plan_version: str,
        masked_sha256: str,
        answer: ExactAnswer,
        *,
        now: datetime | None = None,
        connection: AsyncConnection | None = None,
    ) -> None:
        """Keep an answer for reuse. The last one stored counts: it is the freshest, and it outlives an expired one."""
        row = {
            "tenant": tenant,
            "plan_version": plan_version,
            "masked_sha256": masked_sha256,
            "request_id": answer.request_id,
            "created_at": now or datetime.now(UTC),
            **reference_values("content", answer.content),
            **reference_values("passages", answer.passages),
        }
        async with self._database.writing(connection) as writing:
            await writing.execute(self._store, row)

    async def forget(self, tenant: str) -> int:
        """Drop every exact answer of a tenant, as when its documents change.

        Returns:
            How many there were.
        """
        async with self._database.write() as writing:
            return (await writing.execute(self._forget, {"of_tenant": tenant})).rowcount
