"""Exact answers: what an identical question, masked, to the same version of an agent was answered before.

An answer's age counts from when it was stored, and reuse does not renew it: a wrong answer that is asked for every
minute would otherwise live for ever. There is one row for each question, and rows that are too old to serve are deleted
as new ones come in.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select

from holdfast.contracts import ContentRef
from holdfast.ledger.database import Database
from holdfast.ledger.schema import answer_epochs, answers, reference_of, reference_values

RECALL_FOR = timedelta(hours=24)
"""How long an answer may be reused unless the settings say otherwise."""
PRUNE_EVERY = timedelta(minutes=1)
"""How often a process that stores answers deletes those that are too old."""


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
    document: ContentRef | None = None
    """The answer as that request's client read it."""


class Answers:
    """Exact answers by tenant, agent version and question.

    Args:
        database: Where they are.
        recall_for: Greatest age at which an answer may serve; older ones are deleted.
    """

    def __init__(self, database: Database, *, recall_for: timedelta = RECALL_FOR) -> None:
        self._database = database
        self._recall_for = recall_for
        self._pruned_at: datetime | None = None
        self._store = database.insert_or_replace(answers)
        of_agent = (
            answers.c.tenant == bindparam("of_tenant"),
            answers.c.plan_version == bindparam("version"),
            answers.c.created_at > bindparam("born_after"),
        )
        self._recall = select(answers).where(*of_agent, answers.c.masked_sha256 == bindparam("digest"))
        self._recall_input = (
            select(answers)
            .where(*of_agent, answers.c.input_sha256 == bindparam("digest"), answers.c.document_sha256.is_not(None))
            .order_by(answers.c.created_at.desc())
            .limit(1)
        )
        self._forget = delete(answers).where(answers.c.tenant == bindparam("of_tenant"))
        self._prune = delete(answers).where(answers.c.created_at <= bindparam("born_before"))
        self._epoch = select(answer_epochs.c.epoch).where(answer_epochs.c.tenant == bindparam("of_tenant"))
        self._next_epoch = (
            database.upsert(answer_epochs)
            .values(tenant=bindparam("the_tenant"), epoch=1)
            .on_conflict_do_update(index_elements=[answer_epochs.c.tenant], set_={"epoch": answer_epochs.c.epoch + 1})
        )

    async def recall(
        self,
        tenant: str,
        plan_version: str,
        masked_sha256: str,
        *,
        ttl: timedelta | None = None,
        now: datetime | None = None,
    ) -> ExactAnswer | None:
        """The stored answer to a sanitized question, if there is one that is young enough.

        Args:
            tenant: The asker's tenant.
            plan_version: Version of the agent.
            masked_sha256: Digest of the sanitized question.
            ttl: Greatest age, if it is to be less than the ledger's.
            now: The present, UTC; the clock's by default.
        """
        return await self._look_up(self._recall, tenant, plan_version, masked_sha256, ttl, now)

    async def recall_input(
        self,
        tenant: str,
        plan_version: str,
        input_sha256: str,
        *,
        ttl: timedelta | None = None,
        now: datetime | None = None,
    ) -> ExactAnswer | None:
        """The stored answer to an input that came before exactly as it is, with the document that was delivered.

        Args:
            tenant: The asker's tenant.
            plan_version: Version of the agent.
            input_sha256: Digest of the input before anything was done to it.
            ttl: Greatest age, if it is to be less than the ledger's.
            now: The present, UTC; the clock's by default.
        """
        return await self._look_up(self._recall_input, tenant, plan_version, input_sha256, ttl, now)

    async def store(
        self,
        tenant: str,
        plan_version: str,
        masked_sha256: str,
        answer: ExactAnswer,
        *,
        input_sha256: str | None = None,
        now: datetime | None = None,
    ) -> None:
        """Keep an answer for reuse. The last one stored counts: it is the freshest, and it outlives an expired one."""
        moment = now or datetime.now(UTC)
        await self._database.write(
            lambda connection: self.store_in(
                connection, tenant, plan_version, masked_sha256, answer, input_sha256=input_sha256, now=moment
            )
        )

    def store_in(
        self,
        connection: Connection,
        tenant: str,
        plan_version: str,
        masked_sha256: str,
        answer: ExactAnswer,
        *,
        input_sha256: str | None,
        now: datetime,
    ) -> None:
        """Inside a transaction: see `store`."""
        row = {
            "tenant": tenant,
            "plan_version": plan_version,
            "masked_sha256": masked_sha256,
            "request_id": answer.request_id,
            "created_at": now,
            "input_sha256": input_sha256,
            **reference_values("content", answer.content),
            **reference_values("passages", answer.passages),
            **reference_values("document", answer.document),
        }
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_EVERY:
            connection.execute(self._prune, {"born_before": now - self._recall_for})
            self._pruned_at = now
        connection.execute(self._store, row)

    async def forget(self, tenant: str) -> int:
        """Drop every exact answer of a tenant, as when its documents change, and begin its next epoch.

        Returns:
            How many there were.
        """

        def unit(connection: Connection) -> int:
            connection.execute(self._next_epoch, {"the_tenant": tenant})
            return connection.execute(self._forget, {"of_tenant": tenant}).rowcount

        return await self._database.write(unit)

    async def epoch(self, tenant: str) -> int:
        """How often the tenant's answers were dropped. Whoever keeps answers in memory drops them when it changes."""
        found = await self._database.read(
            lambda reading: reading.execute(self._epoch, {"of_tenant": tenant}).scalar_one_or_none()
        )
        return found or 0

    async def _look_up(
        self, statement: Any, tenant: str, version: str, digest: str, ttl: timedelta | None, now: datetime | None
    ) -> ExactAnswer | None:
        age = self._recall_for if ttl is None else ttl
        born_after = (now or datetime.now(UTC)) - age
        key = {"of_tenant": tenant, "version": version, "digest": digest, "born_after": born_after}
        row = await self._database.read(lambda reading: reading.execute(statement, key).one_or_none())
        return None if row is None else _answer(row)


def _answer(row: Row[Any]) -> ExactAnswer:
    return ExactAnswer(
        content=ContentRef(sha256=row.content_sha256, size=row.content_size),
        passages=reference_of(row.passages_sha256, row.passages_size),
        request_id=row.request_id,
        created_at=row.created_at,
        document=reference_of(row.document_sha256, row.document_size),
    )
