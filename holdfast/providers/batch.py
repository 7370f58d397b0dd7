"""Calls that may take a day and cost half: what every provider's batch API can do, and how its results are read.

The `custom_id` of a line is the one handle that providers do keep apart for us: the ledger's attempt id belongs there.
Submitting is not idempotent. A submission whose answer got lost may have made a batch.
"""

import re
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from holdfast.errors import InvalidInput, Outcome, ProviderError
from holdfast.providers.classify import classify
from holdfast.providers.exchange import Reply
from holdfast.providers.pieces import MalformedChunk
from holdfast.providers.protocol import Completed, ModelCall, TextDelta

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

BatchLine = tuple[str, ModelCall]
"""A call and the id under which its result comes back."""


class BatchPhase(StrEnum):
    """How far a batch is."""

    RUNNING = "running"
    ENDED = "ended"
    """Every line has a result, be it that it expired or was cancelled."""
    REFUSED = "refused"
    """The provider took it for malformed; nothing was processed or billed, and there are no results."""


@dataclass(frozen=True)
class BatchState:
    """What the provider says of a batch."""

    id: str
    phase: BatchPhase
    total: int
    succeeded: int
    failed: int
    """Failed, expired or cancelled."""


@dataclass(frozen=True)
class BatchSearch:
    """What a look for a batch found."""

    batch_id: str | None = None
    undecided: bool = False
    """Whether one is there that may be it, which will be known once it has ended."""


@dataclass(frozen=True)
class BatchReply:
    """The whole reply to one line."""

    text: str
    completed: Completed


BatchResult = BatchReply | ProviderError


class BatchProvider(Protocol):
    """A way to have many calls answered later."""

    async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:
        """Hand calls over, and return the batch's id.

        Args:
            lines: The calls.
            name: Kept with the batch where the provider keeps such things, so that `find` can tell it from others.

        Raises:
            InvalidInput: The lines make no batch.
            ProviderError: It was not accepted; with outcome `UNKNOWN`, it may have been.
        """
        ...

    async def poll(self, batch_id: str) -> BatchState:
        """Ask how far it is.

        Raises:
            ProviderError: There was no answer, or not this one.
        """
        ...

    async def find(self, name: str, custom_ids: Collection[str], since: datetime) -> BatchSearch:
        """Look for a batch whose acceptance got lost.

        Args:
            name: As given to `submit`.
            custom_ids: Of its lines.
            since: When it was handed over.

        Raises:
            ProviderError: There was no answer, or not this one.
        """
        ...

    def results(self, batch_id: str) -> AsyncGenerator[tuple[str, BatchResult], None]:
        """Each line's result by its `custom_id`, in any order, once the batch has ended.

        A line of an ended batch that has no result was never processed, and is not billed.

        Raises:
            ProviderError: They could not be read to their end.
        """
        ...

    async def cancel(self, batch_id: str) -> None:
        """Have nothing more processed. What was processed is billed, and has its result. A batch that ended stays.

        Raises:
            ProviderError: The provider did not accept it.
        """
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


def check_lines(lines: Sequence[BatchLine], most: int) -> None:
    """Refuse what cannot be a batch.

    Raises:
        InvalidInput: There are no lines or too many, or an id is unlawful or given twice.
    """
    if not 0 < len(lines) <= most:
        raise InvalidInput(f"A batch holds 1 to {most} calls, not {len(lines)}; split it.")
    ids = [custom_id for custom_id, _ in lines]
    if len(set(ids)) < len(ids):
        raise InvalidInput("Two lines of a batch have the same `custom_id`; use each attempt's own id.")
    if not all(_CUSTOM_ID.fullmatch(custom_id) for custom_id in ids):
        raise InvalidInput("A `custom_id` has 1 to 64 letters, digits, hyphens and underscores.")


def checked_id(batch_id: str) -> str:
    """An id that can stand in an address.

    Raises:
        InvalidInput: It cannot.
    """
    if not _BATCH_ID.fullmatch(batch_id):
        raise InvalidInput("The id of a batch or file has letters, digits, hyphens and underscores only.")
    return batch_id


def read_reply(reply: Reply, body: Any) -> BatchResult:
    """Fold the whole answer of one line.

    Args:
        reply: New, of the API's shape.
        body: The answer as parsed JSON.
    """
    if (error := reply.error_in(body)) is not None:
        return classify(200, {}, error, now=datetime.now(UTC), model=reply.requested)
    try:
        pieces = reply.add(body)
    except MalformedChunk:
        return unreadable(reply.requested)
    if reply.failed:
        return ProviderError(
            f"The reply of {reply.requested!r} in a batch is not whole; what came of it is billed.",
            outcome=Outcome.BROKEN_STREAM,
            status=200,
        )
    return BatchReply("".join(piece.text for piece in pieces if isinstance(piece, TextDelta)), reply.completed())


def unreadable(custom_id: str) -> ProviderError:
    """The result of a line that has one, in no known shape."""
    return ProviderError(
        f"The result of line {custom_id!r} of a batch has an unknown shape; the call may have been billed.",
        outcome=Outcome.UNKNOWN,
    )


def unprocessed(custom_id: str, *, cancelled: bool) -> ProviderError:
    """The result of a line that the provider never came to, and does not bill."""
    return ProviderError(
        f"Line {custom_id!r} of a batch "
        + (
            "was cancelled before it was processed." if cancelled else "expired before it was processed; send it again."
        ),
        outcome=Outcome.NOT_SENT,
        should_retry=False if cancelled else None,
    )
