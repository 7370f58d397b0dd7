"""Paid calls as the ledger tells of them: how they are named, where they stand, what they count."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from holdfast.contracts import ContentRef, FinishReason, Usage
from holdfast.errors import Outcome
from holdfast.ledger.schema import reference_of, usage_of

NOTHING = Usage()
"""What a released attempt counts: no tokens, no money."""


class AttemptState(StrEnum):
    """Where an attempt stands; see the diagram of `attempts`."""

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
    tries: int = 1
    """Calls of this deployment for this turn, this one included."""


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
    user: str | None = None
    session: str | None = None
    agent: str | None = None


def totals_of(rows: Sequence[Row[Any]]) -> Totals:
    """What the attempts of a request count together."""
    return Totals(sum((usage_of(row) for row in rows), NOTHING), len(rows))


def tries_of(rows: Sequence[Row[Any]], key: AttemptKey, deployment: str) -> int:
    """Calls of a deployment for a turn so far."""
    return sum(row.turn == key.turn and row.deployment == deployment for row in rows)


def waiting_of(
    attempt_ids: Collection[str], key: AttemptKey, deployment: str, rows: Sequence[Row[Any]]
) -> Opened | None:
    """The attempt that is still to be settled among those that go through a batch, told again."""
    for row in rows:
        attempt_id = attempt_id_of(row.request_id, row.ordinal)
        if attempt_id in attempt_ids and row.state == AttemptState.HELD.value:
            return Opened(attempt_id, row.ordinal, totals_of(rows).usage, tries_of(rows, key, deployment))
    return None


def recorded_of(row: Row[Any], rows: Sequence[Row[Any]]) -> Recorded:
    """A good reply from its row, beside all rows of the request."""
    return Recorded(
        attempt_id=attempt_id_of(row.request_id, row.ordinal),
        output=ContentRef(sha256=row.output_sha256, size=row.output_size),
        finish_reason=FinishReason(row.finish_reason),
        model=row.answered_by,
        usage=usage_of(row),
        totals=totals_of(rows),
    )


def settled_of(row: Row[Any], rows: Sequence[Row[Any]]) -> Settled:
    """A closed attempt from its row, beside all rows of the request."""
    return Settled(
        attempt_id=attempt_id_of(row.request_id, row.ordinal),
        state=AttemptState(row.state),
        usage=usage_of(row),
        output=reference_of(row.output_sha256, row.output_size),
        totals=totals_of(rows),
    )


def attempt_of(row: Row[Any]) -> Attempt:
    """An attempt from its row."""
    return Attempt(
        attempt_id=attempt_id_of(row.request_id, row.ordinal),
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
        user=row.user,
        session=row.session,
        agent=row.agent,
    )


def attempt_id_of(request_id: str, ordinal: int) -> str:
    """The name of the n-th attempt of a request."""
    return f"{request_id}.{ordinal}"
