"""What a request ends with."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from holdfast.contracts.approval import DecisionReceipt
from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef, Sha256
from holdfast.contracts.conversation import ToolCall
from holdfast.contracts.usage import FinishReason, Usage


class Status(StrEnum):
    """Where a request stands. The value is also the search attribute `HoldfastStatus`."""

    RUNNING = "running"
    WAITING = "waiting"
    """Held for a person's decision."""
    COMPLETED = "completed"
    REJECTED = "rejected"
    """A person, or the deadline of an approval, said no."""
    REFUSED = "refused"
    """A guard refused the input."""
    DENIED = "denied"
    """A budget or attempt ceiling would have been exceeded."""
    EXPIRED = "expired"
    """The request's own deadline passed."""
    FAILED = "failed"
    """No deployment could answer, or no reply could be made valid."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the request."""
        return self not in (Status.RUNNING, Status.WAITING)


class Citation(Contract):
    """Points from an answer to the characters of a source that support it."""

    marker: int = Field(ge=1)
    """The number in the answer's text, as in `[1]`."""

    source: str
    """The document, as the person who ingested it named it (a path relative to the ingested root)."""

    start: int = Field(ge=0)
    """First character of the cited passage in the source, counted in Unicode code points."""

    end: int = Field(ge=0)
    """One past the last character."""

    quote: str = ""
    """The passage's text."""


class AnswerDocument(Contract):
    """The answer as the client reads it. Kept in the content store, never in a workflow history."""

    text: str
    """The answer with placeholders restored. For an agent with an output schema, JSON text."""

    tool_calls: tuple[ToolCall, ...] = ()
    """Calls of the client's own tools that the model asks for instead of, or beside, the text."""

    citations: tuple[Citation, ...] = ()
    """Sources the text refers to, in the order of their markers."""


class LimitReached(Contract):
    """The limit that ended a request."""

    limit: str
    """`tokens`, `cost_usd`, `attempts`, `repairs`, `iterations`, `tool_calls`, `repetitions` or `deadline`."""
    value: str
    """What it had come to, or would have with the next step."""
    bound: str


class Answer(Contract):
    """The workflow's result: how the request ended and where its text is."""

    request_id: str
    status: Status
    reason: str | None = None
    """For any status but `completed`: what happened, and what the caller can do."""
    document: ContentRef | None = None
    """An `AnswerDocument` as JSON; only for `completed`."""
    content_sha256: Sha256 | None = None
    """Digest of the text that was validated and, if a rule asked for it, approved."""
    deployment: str | None = None
    """Deployment that wrote the answer; `None` when it was recalled."""
    recalled: bool = False
    """Whether an earlier identical request supplied the answer."""
    usage: Usage = Usage(cost_usd=Decimal(0))
    """Everything the request consumed, failed attempts included, at the recorded worst case where unknown."""
    attempts: int = 0
    """Model calls made."""
    finish_reason: FinishReason = FinishReason.STOP
    """Why the model stopped."""
    decided_by: str | None = None
    """Who approved, edited or rejected, if anyone."""
    tool_calls: int = 0
    """Calls of tools and delegates made."""
    delegates: tuple[str, ...] = ()
    """Request ids of the delegates that worked for it."""
    limit: LimitReached | None = None
    """Which limit ended it, if one did."""
    tainted: tuple[str, ...] = ()
    """Origins of outside text that its model was shown."""
    decisions: tuple[DecisionReceipt, ...] = ()
    """What people decided, on the request and on those of its delegates; each names its request."""
