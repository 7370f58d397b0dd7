"""What workflows take and tell: the argument of a run, what it carries over, and its progress."""

from pydantic import AwareDatetime, Field

from holdfast.contracts.answer import Status
from holdfast.contracts.approval import Approval, Decision
from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.event import Event
from holdfast.contracts.request import Request
from holdfast.contracts.steps import Cause, Violation
from holdfast.contracts.usage import FinishReason, Usage


class Carried(Contract):
    """State a run hands to its successor when its history has grown too long (continue-as-new)."""

    masked: ContentRef
    private: bool = False
    """Whether the input held personal data, which keeps the answer out of recall."""
    passages: ContentRef | None = None
    excluded: tuple[str, ...] = ()
    turn: int = 0
    calls: int = 0
    repairs: int = 0
    output: ContentRef | None = None
    """The last reply, still to be validated or mended."""
    finish_reason: FinishReason = FinishReason.STOP
    violations: tuple[Violation, ...] = ()
    content: ContentRef | None = None
    """Validated content, still to be approved."""
    deployment: str | None = None
    recalled: bool = False
    approval: Approval | None = None
    """An open question; its deadline is not renewed."""
    early: tuple[Decision, ...] = ()
    """Decisions that came by signal before the question was asked."""
    conversation: ContentRef | None = None
    """The sanitized conversation."""
    resting: tuple[str, ...] = ()
    cause: Cause | None = None
    """Why the next deployment is chosen, if it is not the first."""
    mending: bool = False
    best: ContentRef | None = None
    """Valid content that was not sure enough to be delivered without asking a better deployment."""
    best_deployment: str | None = None
    waits: int = 0
    spent: Usage = Usage()
    attempts: int = 0
    events: int = 0
    """How many events the earlier runs told, so that numbering goes on."""


class Run(Contract):
    """The one argument of `RequestWorkflow`."""

    request: Request
    carried: Carried | None = None


class Progress(Contract):
    """The reply to the query `progress`."""

    request_id: str
    status: Status
    step: str
    """The step under way, or the last one."""
    approval: Approval | None = None
    """The open question, while the status is `waiting`."""
    spent: Usage
    attempts: int
    events: tuple[Event, ...]


class SourceText(Contract):
    """A document to index, its text in the content store."""

    source: str = Field(min_length=1, max_length=1_024)
    text: ContentRef


class IngestRun(Contract):
    """The one argument of `IngestWorkflow`: documents of one tenant for one collection."""

    tenant: str
    collection: str
    documents: tuple[SourceText, ...] = Field(max_length=500)


class Unreadable(Contract):
    """A document that was not indexed, and why."""

    source: str
    reason: str


class Ingested(Contract):
    """What ingestion did. Sources that failed do not keep the others out."""

    sources: int = 0
    passages: int = 0
    unreadable: tuple[Unreadable, ...] = ()
    finished_at: AwareDatetime | None = None
