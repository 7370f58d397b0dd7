"""Paid calls, recorded before they are made: the worst case is held when an attempt opens, and settled when it ends.

No provider offers idempotency, so a call whose worker died may or may not have been billed. The ledger therefore never
forgets an opened attempt: until it is known better, its worst case counts against the request's ceilings.

```
held ──settle, billed──────────▶ settled   counts its actual usage, even if above the hold
  ├────settle, not billed──────▶ released  counts nothing
  ├────settle, billing unknown─▶ unknown   counts the worst case, for good
  └────the turn is opened again▶ unknown   its worker is taken for dead; if that worker settles after all with an
                                           actual usage, the attempt becomes settled, otherwise the worst case stays
```
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast import budget
from holdfast.contracts import ContentRef, FinishReason, Limits, Usage
from holdfast.errors import IdempotencyConflict, InvalidInput, LimitExceeded, Outcome
from holdfast.ledger.contents import Contents
from holdfast.ledger.database import Database
from holdfast.ledger.schema import attempts, reference_of, reference_values, usage_of, usage_values

NOTHING = Usage()
"""What a released attempt counts: no tokens, no money."""


_SETTLEMENT_COLUMNS = (
    "state",
    "outcome",
    "answered_by",
    "finish_reason",
    "output_sha256",
    "output_size",
    "response_id",
    "error_code",
    "settled_at",
    "settlement_sha256",
)


class AttemptState(StrEnum):
    """Where an attempt stands; see the module's diagram."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AttemptKey:
    """Which reply of which request an attempt is for. Attempts of one turn are repetitions of each other."""

    tenant: str
    request_id: str
    turn: int


@dataclass(frozen=True)
class Totals:
    """What a request has spent: settled attempts as billed, open and unknown ones at their worst case."""

    usage: Usage
    attempts: int
    """Model calls, whatever became of them."""


@dataclass(frozen=True)
class Opened:
    """Permission to make one call."""

    attempt_id: str
    ordinal: int
    """The call's number within the request, from 1."""
    spent: Usage
    """What the request has spent, this attempt's hold included."""


@dataclass(frozen=True)
class Recorded:
    """The turn was answered before; there is nothing to call and nothing to pay."""

    attempt_id: str
    output: ContentRef
    finish_reason: FinishReason
    model: str
    usage: Usage
    totals: Totals


@dataclass(frozen=True)
class Settled:
    """An attempt whose books are closed."""

    attempt_id: str
    state: AttemptState
    usage: Usage
    """What the attempt counts from now on."""
    output: ContentRef | None
    totals: Totals


@dataclass(frozen=True)
class Attempt:
    """One recorded call, for reading."""

    attempt_id: str
    tenant: str
    turn: int
    ordinal: int
    deployment: str
    model: str
    """The model asked for."""
    state: AttemptState
    hold_tokens: int
    hold_cost_usd: Decimal | None
    usage: Usage
    """What it counts: see `Totals`."""
    outcome: Outcome | None
    answered_by: str | None
    """The model as the provider reported it."""
    finish_reason: FinishReason | None
    output: ContentRef | None
    response_id: str | None
    error_code: str | None
    opened_at: datetime
    settled_at: datetime | None


class Attempts:
    """The record of paid calls."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        this_request = attempts.c.request_id == bindparam("of_request")
        self._of_request = select(attempts).where(this_request).order_by(attempts.c.ordinal)
        self._insert = insert(attempts)
        self._lose = (
            update(attempts)
            .where(this_request, attempts.c.turn == bindparam("of_turn"), attempts.c.state == AttemptState.HELD.value)
            .values(state=AttemptState.UNKNOWN.value)
        )
        self._settle = (
            update(attempts)
            .where(this_request, attempts.c.ordinal == bindparam("of_ordinal"))
            .values({name: bindparam(name) for name in (*_SETTLEMENT_COLUMNS, *usage_values(NOTHING))})
        )

    async def open(
        self, key: AttemptKey, *, deployment: str, model: str, hold: Usage, limits: Limits
    ) -> Opened | Recorded:
        """Ask to make one call; on return it is recorded and its worst case held.

        Args:
            key: The reply that the call is for.
            deployment: Where the call goes.
            model: The model asked for.
            hold: The most the call can consume (`holdfast.budget.worst_case`).
            limits: The request's ceilings.

        Returns:
            `Recorded` when the turn already has a good reply, else `Opened`. Earlier attempts of the turn that are
            still held are taken for dead and keep counting at their worst case.

        Raises:
            LimitExceeded: A ceiling would be passed; the call is not recorded and must not be made.
        """
        async with self._database.write() as connection:
            rows = await self._rows(connection, key.request_id)
            for row in rows:
                if row.turn == key.turn and row.outcome == Outcome.OK.value and row.state == AttemptState.SETTLED.value:
                    return _recorded(row, rows)
            if any(row.turn == key.turn and row.state == AttemptState.HELD.value for row in rows):
                await connection.execute(self._lose, {"of_request": key.request_id, "of_turn": key.turn})
            totals = _totals(rows)
            denied = _denial(limits, totals, hold)
            if denied is None:
                # Not the count: rows are never deleted, but an ordinal must not be given out twice even if they were.
                ordinal = 1 + (rows[-1].ordinal if rows else 0)
                await connection.execute(self._insert, _held_row(key, ordinal, deployment, model, hold))
        if denied is not None:
            raise denied
        return Opened(_attempt_id(key.request_id, ordinal), ordinal, totals.usage + hold)

    async def settle(
        self,
        attempt_id: str,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        output: str | None = None,
        finish_reason: FinishReason | None = None,
        model: str | None = None,
        response_id: str | None = None,
        error_code: str | None = None,
    ) -> Settled:
        """Close an attempt's books, and store its output, in one transaction.

        Repeating a settlement changes nothing. What counts afterwards follows `outcome.billed`: the actual usage (the
        worst case if none is given), nothing, or the worst case. An attempt already taken for dead never counts less
        than an actual usage says.

        Args:
            attempt_id: From `Opened`.
            outcome: How the call ended.
            usage: What was consumed, priced; recorded as it is, even above the hold.
            output: The reply's text, partial if the stream broke. A lone surrogate in it becomes U+FFFD: a bill must
                be booked even if the reply is damaged.
            finish_reason: Why the model stopped; needed for `ok`.
            model: The model as the provider reported it; needed for `ok`.
            response_id: The provider's name for the response.
            error_code: The provider's code of the failure, never its message.

        Raises:
            IdempotencyConflict: The attempt was settled before, differently; nothing changes.
            InvalidInput: There is no such attempt, or a good outcome comes without its output.
        """
        if outcome is Outcome.OK and (output is None or finish_reason is None or model is None):
            raise InvalidInput(
                f"Attempt {attempt_id} is settled as 'ok' without `output`, `finish_reason` or `model`, without which "
                "its reply could not be given again.",
                field="output",
            )
        request_id, _, number = attempt_id.rpartition(".")
        output, model = _valid(output), _valid(model, 256)
        response_id, error_code = _valid(response_id, 256), _valid(error_code, 128)
        said = [outcome, usage and usage.model_dump_json(), output, finish_reason, model, response_id, error_code]
        settlement = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        async with self._database.write() as connection:
            rows = await self._rows(connection, request_id)
            row = next((row for row in rows if str(row.ordinal) == number), None)
            if row is None:
                raise InvalidInput(f"Attempt {attempt_id[:100]!r} is not in the ledger.", field="attempt_id")
            if row.settlement_sha256 == settlement:
                return _settled(row, rows)
            if row.settled_at is not None:
                raise IdempotencyConflict(
                    f"Attempt {attempt_id} was settled as {row.outcome!r} before and cannot be settled as "
                    f"{outcome.value!r} with other content; the first settlement stands."
                )
            reference = None
            if output is not None:
                reference = await self._contents.put(row.tenant, output, connection=connection)
            state, counted = _verdict(AttemptState(row.state), usage_of(row), outcome, usage)
            await connection.execute(
                self._settle,
                {
                    "of_request": request_id,
                    "of_ordinal": row.ordinal,
                    "state": state.value,
                    "outcome": outcome.value,
                    "answered_by": model,
                    "finish_reason": finish_reason and finish_reason.value,
                    "response_id": response_id,
                    "error_code": error_code,
                    "settled_at": datetime.now(UTC),
                    "settlement_sha256": settlement,
                    **reference_values("output", reference),
                    **usage_values(counted),
                },
            )
        if output is not None:
            self._contents.remember(row.tenant, (output,))
        total = sum((usage_of(other) for other in rows if other is not row), counted)
        return Settled(attempt_id, state, counted, reference, Totals(total, len(rows)))

    async def totals(self, request_id: str, *, connection: AsyncConnection | None = None) -> Totals:
        """What a request has spent so far."""
        async with self._database.reading(connection) as reading:
            return _totals((await reading.execute(self._of_request, {"of_request": request_id})).all())

    async def list(self, request_id: str) -> tuple[Attempt, ...]:
        """Every call of a request, in the order in which they were opened."""
        async with self._database.read() as reading:
            rows = await reading.execute(self._of_request, {"of_request": request_id})
        return tuple(_attempt(row) for row in rows)

    async def _rows(self, connection: AsyncConnection, request_id: str) -> Sequence[Row[Any]]:
        """All attempts of a request, with other transactions on the same request kept out."""
        await self._database.lock(connection, f"holdfast.attempts.{request_id}")
        return (await connection.execute(self._of_request, {"of_request": request_id})).all()


def _verdict(state: AttemptState, worst: Usage, outcome: Outcome, actual: Usage | None) -> tuple[AttemptState, Usage]:
    """Where a settlement leaves an attempt, and what it counts from then on."""
    if outcome.billed:
        # A reply without a usage report was billed something; the worst case is the only safe number.
        return AttemptState.SETTLED, worst if actual is None else actual
    if outcome.billed is False and state is AttemptState.HELD:
        return AttemptState.RELEASED, NOTHING
    return AttemptState.UNKNOWN, worst


def _valid(text: str | None, longest: int | None = None) -> str | None:
    """What a provider said, made storable."""
    return None if text is None else text[:longest].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _denial(limits: Limits, totals: Totals, hold: Usage) -> LimitExceeded | None:
    try:
        budget.check(limits, totals.usage, totals.attempts, hold)
    except LimitExceeded as denied:
        return denied
    return None


def _held_row(key: AttemptKey, ordinal: int, deployment: str, model: str, hold: Usage) -> dict[str, Any]:
    return {
        "request_id": key.request_id,
        "ordinal": ordinal,
        "tenant": key.tenant,
        "turn": key.turn,
        "deployment": deployment,
        "model": model,
        "state": AttemptState.HELD.value,
        "hold_tokens": hold.total_tokens,
        "hold_cost_usd": hold.cost_usd,
        "opened_at": datetime.now(UTC),
        **usage_values(hold),
    }


def _totals(rows: Sequence[Row[Any]]) -> Totals:
    return Totals(sum((usage_of(row) for row in rows), NOTHING), len(rows))


def _recorded(row: Row[Any], rows: Sequence[Row[Any]]) -> Recorded:
    return Recorded(
        attempt_id=_attempt_id(row.request_id, row.ordinal),
        output=ContentRef(sha256=row.output_sha256, size=row.output_size),
        finish_reason=FinishReason(row.finish_reason),
        model=row.answered_by,
        usage=usage_of(row),
        totals=_totals(rows),
    )


def _settled(row: Row[Any], rows: Sequence[Row[Any]]) -> Settled:
    return Settled(
        attempt_id=_attempt_id(row.request_id, row.ordinal),
        state=AttemptState(row.state),
        usage=usage_of(row),
        output=reference_of(row.output_sha256, row.output_size),
        totals=_totals(rows),
    )


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        attempt_id=_attempt_id(row.request_id, row.ordinal),
        tenant=row.tenant,
        turn=row.turn,
        ordinal=row.ordinal,
        deployment=row.deployment,
        model=row.model,
        state=AttemptState(row.state),
        hold_tokens=row.hold_tokens,
        hold_cost_usd=row.hold_cost_usd,
        usage=usage_of(row),
        outcome=Outcome(row.outcome) if row.outcome else None,
        answered_by=row.answered_by,
        finish_reason=FinishReason(row.finish_reason) if row.finish_reason else None,
        output=reference_of(row.output_sha256, row.output_size),
        response_id=row.response_id,
        error_code=row.error_code,
        opened_at=row.opened_at,
        settled_at=row.settled_at,
    )


def _attempt_id(request_id: str, ordinal: int) -> str:
    return f"{request_id}.{ordinal}"
