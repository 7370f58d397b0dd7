"""Calls on their way through a provider's batch API: one line beside each attempt, from the queue to its result.

```
queued ──handed over──▶ submitting ──the provider named the batch──▶ submitted ──settled, told──▶ done
   ◀────surely not accepted────┤
                               └──────────nobody knows what became of it, told──────────▶ done
```

What a line costs is the attempt's business; a line only says where the call is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, bindparam, func, insert, literal, select, update

from holdfast.ledger.attempt import AttemptKey
from holdfast.ledger.database import Database
from holdfast.ledger.schema import batch_lines, requests

_CHUNK = 500
"""Most ids in one statement; databases bound the number of parameters."""


class LineState(StrEnum):
    """Where a line is."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    """Being handed over; if the process died meanwhile, the provider may have it."""
    SUBMITTED = "submitted"
    DONE = "done"


@dataclass(frozen=True)
class BatchLine:
    """One call."""

    attempt_id: str
    tenant: str
    request_id: str
    deployment: str
    state: LineState
    call: str
    """`GenerateInput` as JSON, of a line that is queued."""
    submission: str | None
    """Our own name for the handing over."""
    sends: int
    """How often it was handed over, failures included."""
    batch_id: str | None
    queued_at: datetime
    submitting_at: datetime | None
    submitted_at: datetime | None
    abandoned: bool = False
    """Whether its request has ended meanwhile, so that nobody waits for the reply."""


class BatchLines:
    """The lines of every deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        ended = select(requests.c.request_id).where(
            requests.c.tenant == batch_lines.c.tenant, requests.c.request_id == batch_lines.c.request_id
        )
        brief = [column for column in batch_lines.columns if column is not batch_lines.c.call]
        mine = batch_lines.c.deployment == bindparam("of_deployment")
        self._queued = (
            select(*brief, batch_lines.c.call, ended.exists().label("abandoned"))
            .where(mine, batch_lines.c.state == LineState.QUEUED.value)
            .order_by(batch_lines.c.queued_at, batch_lines.c.attempt_id)
        )
        # The calls of ten thousand lines are not read at every look.
        under_way = (LineState.SUBMITTING.value, LineState.SUBMITTED.value)
        self._under_way = (
            select(*brief, literal("").label("call"), literal(False).label("abandoned"))
            .where(mine, batch_lines.c.state.in_(under_way))
            .order_by(batch_lines.c.submission, batch_lines.c.attempt_id)
        )

    def waiting_in(self, connection: Connection, key: AttemptKey, deployment: str) -> Sequence[str]:
        """Inside a transaction: the attempts of a turn that are on their way through a batch of the deployment."""
        statement = select(batch_lines.c.attempt_id).where(
            batch_lines.c.request_id == key.request_id,
            batch_lines.c.turn == key.turn,
            batch_lines.c.deployment == deployment,
            batch_lines.c.state != LineState.DONE.value,
        )
        return connection.execute(statement).scalars().all()

    def add_in(
        self, connection: Connection, attempt_id: str, key: AttemptKey, deployment: str, call: str, now: datetime
    ) -> None:
        """Inside the transaction that opens the attempt: put its call in line."""
        connection.execute(
            insert(batch_lines),
            {
                "attempt_id": attempt_id,
                "tenant": key.tenant,
                "request_id": key.request_id,
                "turn": key.turn,
                "deployment": deployment,
                "state": LineState.QUEUED.value,
                "call": call,
                "sends": 0,
                "queued_at": now,
            },
        )

    async def queued(self, deployment: str, most: int) -> tuple[BatchLine, ...]:
        """Lines for the next batch, oldest first."""
        return await self._lines(self._queued.limit(most), deployment)

    async def under_way(self, deployment: str) -> tuple[BatchLine, ...]:
        """Lines that a provider has, or may have, by submission; without their calls."""
        return await self._lines(self._under_way, deployment)

    async def members(self, submission: str) -> frozenset[str]:
        """The attempts of a submission, those that are done included."""
        statement = select(batch_lines.c.attempt_id).where(batch_lines.c.submission == submission)
        return await self._database.read(lambda reading: frozenset(reading.execute(statement).scalars()))

    async def count(self, deployment: str) -> tuple[int, int]:
        """How many lines are queued, and how many are under way."""
        statement = (
            select(batch_lines.c.state, func.count())
            .where(batch_lines.c.deployment == deployment, batch_lines.c.state != LineState.DONE.value)
            .group_by(batch_lines.c.state)
        )
        rows = await self._database.read(lambda reading: reading.execute(statement).all())
        counted = {str(row[0]): int(row[1]) for row in rows}
        queued = counted.pop(LineState.QUEUED.value, 0)
        return queued, sum(counted.values())

    async def begin(self, attempt_ids: Sequence[str], submission: str, now: datetime) -> frozenset[str]:
        """Mark queued lines as being handed over. To be durable before the first byte is sent.

        Returns:
            The lines that were still queued; only they may be sent.
        """
        marks = {"state": LineState.SUBMITTING.value, "submission": submission, "submitting_at": now}

        def unit(connection: Connection) -> frozenset[str]:
            for ids in _chunks(attempt_ids):
                connection.execute(
                    update(batch_lines)
                    .where(batch_lines.c.attempt_id.in_(ids), batch_lines.c.state == LineState.QUEUED.value)
                    .values(sends=batch_lines.c.sends + 1, **marks)
                )
            marked = select(batch_lines.c.attempt_id).where(batch_lines.c.submission == submission)
            return frozenset(connection.execute(marked).scalars())

        return await self._database.write(unit)

    async def sent(self, submission: str, batch_id: str, now: datetime) -> bool:
        """The provider has the lines of a submission.

        Returns:
            Whether any line is on record as being in this batch; otherwise all were given up meanwhile.
        """
        move = self._move(submission, {"state": LineState.SUBMITTED.value, "batch_id": batch_id, "submitted_at": now})
        known = select(func.count()).where(batch_lines.c.submission == submission, batch_lines.c.batch_id == batch_id)

        def unit(connection: Connection) -> bool:
            connection.execute(move)
            return bool(connection.execute(known).scalar_one())

        return await self._database.write(unit)

    async def put_back(self, submission: str) -> None:
        """The provider surely does not have the lines of a submission: queue them again."""
        move = self._move(submission, {"state": LineState.QUEUED.value, "submission": None})
        await self._database.write(lambda connection: connection.execute(move))

    async def done(self, attempt_ids: Iterable[str], now: datetime) -> None:
        """The attempts are settled and their requests were told."""
        ended = list(attempt_ids)

        def unit(connection: Connection) -> None:
            for ids in _chunks(ended):
                connection.execute(
                    update(batch_lines)
                    .where(batch_lines.c.attempt_id.in_(ids))
                    .values(state=LineState.DONE.value, done_at=now)
                )

        if ended:
            await self._database.write(unit)

    def _move(self, submission: str, values: dict[str, Any]) -> Update:
        return (
            update(batch_lines)
            .where(batch_lines.c.submission == submission, batch_lines.c.state == LineState.SUBMITTING.value)
            .values(values)
        )

    async def _lines(self, statement: Select[Any], deployment: str) -> tuple[BatchLine, ...]:
        key = {"of_deployment": deployment}
        rows = await self._database.read(lambda reading: reading.execute(statement, key).all())
        return tuple(_line_of(row) for row in rows)


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _line_of(row: Row[Any]) -> BatchLine:
    return BatchLine(
        attempt_id=row.attempt_id,
        tenant=row.tenant,
        request_id=row.request_id,
        deployment=row.deployment,
        state=LineState(row.state),
        call=row.call,
        submission=row.submission,
        sends=row.sends,
        batch_id=row.batch_id,
        queued_at=row.queued_at,
        submitting_at=row.submitting_at,
        submitted_at=row.submitted_at,
        abandoned=bool(row.abandoned),
    )
