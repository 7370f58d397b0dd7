"""What workflows take and tell: the argument of a run, what it carries over, and its progress."""

from pydantic import AwareDatetime, Field

from holdfast.contracts.answer import LimitReached, Status
from holdfast.contracts.approval import Approval, Decision, DecisionReceipt
from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.event import Event
from holdfast.contracts.request import Request
from holdfast.contracts.steps import Cause, Violation
from holdfast.contracts.tools import Delegated, Equipped, Origin, PlannedCall, ToolLine, ToolReturned
from holdfast.contracts.usage import FinishReason, Usage


class CallCount(Contract):
    """How often a model asked for the same call."""

    digest: str
    count: int


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
    unread: bool = False
    """Whether nothing was done about it yet."""
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
    best_must_ask: bool | None = None
    """Whether it needs a person's agreement; `None` leaves that to the agent's rule."""
    best_finish_reason: FinishReason = FinishReason.STOP
    """Why the model that wrote it stopped."""
    waits: int = 0
    budget_questions: int = 0
    denial: str = ""
    """What a budget said when it last denied a call."""
    denied: LimitReached | None = None
    """Which limit that was, if the ledger named it."""
    spent: Usage = Usage()
    attempts: int = 0
    events: int = 0
    """How many events the earlier runs told, so that numbering goes on."""
    equipped: Equipped | None = None
    """The run's tools, looked up once."""
    transcript: ContentRef | None = None
    iterations: int = 0
    tool_calls: int = 0
    repeated: tuple[CallCount, ...] = ()
    """How often each call was asked for."""
    tainted: tuple[Origin, ...] = ()
    final: bool = False
    """Whether the model has to answer without further calls."""
    notice: str = ""
    pending: tuple[PlannedCall, ...] = ()
    """Calls of the last reply that are still to be approved or made."""
    released: tuple[PlannedCall, ...] = ()
    """Those of them that people approved."""
    returned: tuple[ToolReturned, ...] = ()
    """What came of the others."""
    delegated: Usage = Usage()
    delegates: tuple[Delegated, ...] = ()
    lines: tuple[ToolLine, ...] = ()
    decisions: tuple[DecisionReceipt, ...] = ()
    """Every decision so far, in order."""
    answered: dict[str, int] = Field(default_factory=dict)
    """Which of `decisions` each update was answered with, by the update's id."""
    agreed: dict[str, Approval] = Field(default_factory=dict)
    """What people approved and is not done yet, by the key of the call."""
    delegated_decisions: tuple[DecisionReceipt, ...] = ()
    """What people decided on requests of delegates that have ended."""
    questions: int = 0
    """Approvals that were settled."""
    edited_call: PlannedCall | None = None
    """The call that an open question is about, as somebody edited it, while others still have to agree."""
    notes: int = 0
    """What was noted of them."""
    placeholders: dict[str, int] = Field(default_factory=dict)
    """How many values of each kind were masked in the input."""
    retrieved_score: float | None = None
    """The best score of the passages."""


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
    """Delegates included."""
    attempts: int
    events: tuple[Event, ...]
    iterations: int = 0
    tool_calls: int = 0
    tools: tuple[ToolLine, ...] = ()
    """Calls of tools and delegates, the last hundred."""
    delegates: tuple[Delegated, ...] = ()
    decisions: tuple[DecisionReceipt, ...] = ()
    tainted: tuple[str, ...] = ()
    catalog: str = ""
    """Digest of the run's tools."""
    asked: ContentRef | None = None
    """What the user asked, once it is masked."""


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
