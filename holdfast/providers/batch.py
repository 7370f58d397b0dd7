"""Calls that may take a day and cost half: what every provider's batch API can do, and how its results are read.

The `custom_id` of a line is the one handle that providers do keep apart for us: the ledger's attempt id belongs there.
Submitting is not idempotent. A submission whose answer got lost may have made a batch.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

from holdfast.errors import InvalidInput, Outcome, ProviderError
from holdfast.providers.classify import classify, classify_transport
from holdfast.providers.exchange import Reply
from holdfast.providers.http import MAX_ERROR_BYTES, MAX_RESPONSE_BYTES, HttpStream, TransportFailure, Upload
from holdfast.providers.pieces import MalformedChunk, mapping, text
from holdfast.providers.protocol import Completed, ModelCall, TextDelta, Timeouts

TIMEOUTS = Timeouts(first_token=timedelta(minutes=5), between_tokens=timedelta(minutes=1), total=timedelta(hours=1))
"""A file of 200 MB has to get through."""

MAX_RESULT_BYTES = 1024 * 1024 * 1024
"""Largest file of results accepted. It is read line by line."""

PAGE = 100
"""Batches in one page of a list."""

CLOCKS_APART = timedelta(minutes=10)
"""How much earlier than our clock says a provider may have made a batch."""

_MOST_PAGES = 100
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


@dataclass(frozen=True)
class BatchApi:
    """Requests to a batch API, failures classified."""

    client: HttpStream
    headers: Mapping[str, str]

    async def object(
        self,
        method: Literal["GET", "POST"],
        url: str,
        subject: str,
        *,
        body: Mapping[str, Any] | None = None,
        upload: Upload | None = None,
    ) -> Mapping[str, Any]:
        """A JSON object.

        Args:
            method: How it is asked for.
            url: Whole address.
            subject: Id of the batch, for messages; a word for it before it has one.
            body: Sent as JSON.
            upload: Sent as a form.

        Raises:
            ProviderError: There was no such answer.
        """
        try:
            async with self.client.request(
                method, url, headers=self.headers, body=body, upload=upload, timeouts=TIMEOUTS
            ) as response:
                raw = await response.read(MAX_RESPONSE_BYTES if response.status == 200 else MAX_ERROR_BYTES)
                if response.status != 200:
                    raise classify(
                        response.status,
                        response.headers,
                        raw,
                        now=datetime.now(UTC),
                        model=subject,
                        subject="Batch",
                    )
        except TransportFailure as failure:
            raise _broken(failure, subject) from None
        if not (found := mapping(_parsed(raw))):
            raise ProviderError(
                f"Batch {subject!r}: the answer is not a JSON object; check the deployment's `base_url`.",
                outcome=Outcome.UNKNOWN,
                status=200,
            )
        return found

    async def pages(
        self, url: str, after: str, made_at: Callable[[Mapping[str, Any]], datetime | None], since: datetime
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """The batches of a list, newest first, back to a moment.

        Args:
            url: Whole address of the list.
            after: The parameter that asks for what follows an id.
            made_at: Reads when a batch was made.
            since: Older ones are not looked at.

        Raises:
            ProviderError: There was no such list.
        """
        cursor = ""
        for _ in range(_MOST_PAGES):
            more = f"&{after}={checked_id(cursor)}" if cursor else ""
            page = await self.object("GET", f"{url}?limit={PAGE}{more}", "list")
            data = page.get("data")
            found = [mapping(one) for one in data if mapping(one)] if isinstance(data, list) else []
            for one in found:
                made = made_at(one)
                if made is not None and made < since - CLOCKS_APART:
                    return
                yield one
            if not found or not page.get("has_more"):
                return
            cursor = text(found[-1].get("id"))

    async def lines(self, url: str, subject: str) -> AsyncGenerator[Mapping[str, Any], None]:
        """The JSON objects of a JSONL file; a line that is none is skipped.

        Raises:
            ProviderError: The file could not be read to its end.
        """
        try:
            async with self.client.request(
                "GET", url, headers=self.headers, timeouts=TIMEOUTS, max_bytes=MAX_RESULT_BYTES
            ) as response:
                if response.status != 200:
                    raw = await response.read(MAX_ERROR_BYTES)
                    raise classify(
                        response.status,
                        response.headers,
                        raw,
                        now=datetime.now(UTC),
                        model=subject,
                        subject="Batch",
                    )
                async for line in response.lines():
                    if found := mapping(_parsed(line)):
                        yield found
        except TransportFailure as failure:
            raise _broken(failure, subject) from None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _broken(failure: TransportFailure, subject: str) -> ProviderError:
    # Whether the answer had begun is no matter here: nothing is generated while it is read.
    return classify_transport(failure.kind, sent=failure.sent, after_first_byte=False, model=subject, subject="Batch")
