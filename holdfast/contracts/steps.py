"""Input and result of every step. Results are what the workflow history keeps, so they are small."""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from pydantic import Field

from holdfast.contracts.answer import LimitReached, Status
from holdfast.contracts.approval import DecisionReceipt
from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.plan import Guards
from holdfast.contracts.request import Limits, Request
from holdfast.contracts.spending import SpendScopes
from holdfast.contracts.usage import FinishReason, Usage


class Step(StrEnum):
    """The steps a request walks through, in order."""

    SANITIZE = "sanitize"
    RECALL = "recall"
    RETRIEVE = "retrieve"
    ROUTE = "route"
    GENERATE = "generate"
    ENQUEUE = "enqueue"
    """A call is put in line for its deployment's next batch."""
    EXTEND = "extend"
    """A person let the request go past a budget."""
    VALIDATE = "validate"
    EQUIP = "equip"
    """The tools of the run are looked up and fixed."""
    VET = "vet"
    """The calls that a model asked for are looked at."""
    CALL_TOOL = "call_tool"
    BRIEF = "brief"
    """A delegate's work is made a request of."""
    TRANSCRIBE = "transcribe"
    """What came of calls is put into what the model is shown next."""
    NOTE = "note"
    """What happened to an approval is written down for reports, and whom to tell."""
    NOTIFY = "notify"
    """Somebody is told."""
    APPROVE = "approve"
    DELIVER = "deliver"


class Cause(StrEnum):
    """Why another deployment is asked."""

    OUTAGE = "outage"
    """It failed, was unreachable or too slow."""
    THROTTLED = "throttled"
    """It has no room at the moment; waiting helps."""
    CONTEXT_WINDOW = "context_window"
    CONTENT_POLICY = "content_policy"
    BUDGET = "budget"
    """It costs more than a budget has left."""
    UNSURE = "unsure"
    """Its valid reply was below the agent's confidence threshold."""


class SanitizeInput(Contract):
    """What `sanitize` works on."""

    request_id: str
    tenant: str
    input: ContentRef
    guards: Guards
    conversation: ContentRef | None = None


class Sanitized(Contract):
    """The input made safe to show to models, logs and people."""

    masked: ContentRef
    """Normalised text with placeholders; equals the input's reference when nothing had to change."""
    placeholders: dict[str, int] = Field(default_factory=dict)
    """How many distinct values of each kind were masked, e.g. `{"EMAIL": 2}`."""
    conversation: ContentRef | None = None
    """The conversation, sanitized with the same placeholders."""
    refusal: str | None = None
    """Why the input is refused; the run then ends without a model call."""


class RecallInput(Contract):
    """What identifies an exact answer."""

    tenant: str
    plan_version: str
    masked: ContentRef
    """The sanitized question. A conversation's digest is part of `plan_version` for this purpose."""


class Recalled(Contract):
    """An earlier validated answer to the identical question of the same tenant and agent version, if any."""

    content: ContentRef | None = None
    passages: ContentRef | None = None
    from_request: str | None = None
    """The request that produced it."""


class RetrieveInput(Contract):
    """A knowledge query."""

    tenant: str
    collection: str
    query: ContentRef
    limit: int


class Passage(Contract):
    """A piece of a source document. Kept in the content store as a JSON list; never in a history."""

    source: str
    start: int
    """First character in the source, in code points."""
    end: int
    text: str
    score: float
    """Cosine similarity to the query, -1 to 1."""


class Retrieved(Contract):
    """What the knowledge store returned."""

    passages: ContentRef
    """JSON array of `Passage`, best first."""
    count: int
    top_score: float = 0.0


class RouteInput(Contract):
    """Which deployments are possible."""

    deployments: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    """Deployments that this run has already given up on."""
    request: Request | None = None
    """What is asked, for constraints and budgets."""
    question: ContentRef | None = None
    """The sanitized question."""
    conversation: ContentRef | None = None
    passages: ContentRef | None = None
    turn: int = 1
    cause: Cause | None = None
    """Why this is not the first choice."""


class Routed(Contract):
    """The deployment to call, or why there is none."""

    deployment: str | None = None
    reason: str
    """One line for the trace: what was chosen and what was skipped."""
    in_process: bool = False
    """Whether the deployment answers within this process, so that no queue has to be passed."""
    call_timeout: timedelta = timedelta(minutes=10)
    """Longest one call of the deployment may take."""
    heartbeat_timeout: timedelta = timedelta(seconds=20)
    """Silence after which the calling worker is taken for dead."""
    batch: bool = False
    """Whether the call goes through the provider's batch API."""


class Violation(Contract):
    """One thing wrong with a model's reply."""

    path: str
    """JSON Pointer (RFC 6901) into the reply; empty for the whole."""
    message: str


class GenerateInput(Contract):
    """One model call. `turn` tells a repair from the call it repairs."""

    request_id: str
    tenant: str
    deployment: str
    turn: int = Field(ge=1)
    question: ContentRef
    instructions: ContentRef
    limits: Limits
    output_schema: ContentRef | None = None
    passages: ContentRef | None = None
    previous: ContentRef | None = None
    """The invalid reply to mend."""
    violations: tuple[Violation, ...] = ()
    """What is wrong with it."""
    last_resort: bool = False
    """No other deployment is left, so waiting beats giving up."""
    conversation: ContentRef | None = None
    """Earlier turns and the client's tools, sanitized."""
    scopes: SpendScopes | None = None
    """Whose budgets the call is charged to."""
    tries: int = Field(default=0, ge=0)
    """Calls of this deployment for this turn before it is given up; 0 leaves that to the engine."""
    agent: str = ""
    streams: bool = False
    """Whether the reply's text may be shown while it is written."""
    heeds_disconnect: bool = False
    """Whether the call is to be broken off soon after its reader has gone."""
    logprobs: bool = False
    """Whether the model is to say how sure it is of each token."""
    catalog: ContentRef | None = None
    """JSON array of `CatalogEntry`: the agent's own tools."""
    transcript: ContentRef | None = None
    """JSON array of `Turn`: the calls made so far for this question, and their results."""
    final: bool = False
    """Whether the model has to answer now, without further calls."""


class Generated(Contract):
    """A model's reply, settled in the ledger."""

    output: ContentRef
    finish_reason: FinishReason
    model: str
    """The model as the provider reported it."""
    usage: Usage
    """This call's own tokens and price."""
    spent: Usage
    """Everything the request has spent so far, this call included, unknown outcomes at their worst case."""
    attempts: int
    """Model calls of the request so far, this one included."""
    confidence: float | None = None
    """Mean probability the model gave its tokens, 0 to 1, if it was asked and said so."""


class ValidateInput(Contract):
    """A reply to check."""

    tenant: str
    output: ContentRef | None = None
    """The reply, in the content store."""
    text: str | None = None
    """The text itself, for an edit that an operator sent by signal; stored before it is checked."""
    finish_reason: FinishReason = FinishReason.STOP
    output_schema: ContentRef | None = None
    passages: ContentRef | None = None
    chat: bool = False
    """Whether a reply that was cut off at its limit, or that calls the client's tools, is valid."""
    confidence_field: str = ""
    """JSON Pointer to the reply's own confidence; empty for none."""
    condition: str = ""
    """CEL condition under which people are asked about the text; empty for none."""
    spent: Usage = Usage()
    """For the condition."""
    retrieved_score: float | None = None
    """For the condition: the best score of the passages."""
    masked: dict[str, int] = Field(default_factory=dict)
    """For the condition: how many values of each kind were masked in the input."""
    confidence: float | None = None
    """For the condition: how sure the model was, where the reply does not say it at `confidence_field`."""


class Validated(Contract):
    """The verdict."""

    ok: bool
    content: ContentRef | None = None
    """The text to deliver when `ok`: the reply itself, or its mended JSON."""
    rung: Literal["as_is", "repaired", "invalid"] = "as_is"
    """Which rung of the repair ladder settled it."""
    violations: tuple[Violation, ...] = ()
    confidence: float | None = None
    """What the reply says of itself at `confidence_field`, 0 to 1."""
    citations: int = 0
    """How many retrieved passages the text cites."""
    condition_met: bool | None = None
    """Whether the condition holds; a condition that cannot be evaluated counts as met."""
    why: str = ""
    """The condition in words for the approver."""


class DeliverInput(Contract):
    """How the run ends."""

    request: Request
    status: Status
    reason: str | None = None
    content: ContentRef | None = None
    passages: ContentRef | None = None
    masked: ContentRef | None = None
    """The sanitized question: half of the key under which the answer can be recalled."""
    private: bool = False
    """Whether placeholders have to be restored."""
    recallable: bool = False
    """Whether the answer may serve an identical question later."""
    deployment: str | None = None
    recalled: bool = False
    decided_by: str | None = None
    finish_reason: FinishReason = FinishReason.STOP
    delegated: Usage = Usage()
    """What delegates spent for the request."""
    delegates: tuple[str, ...] = ()
    """Their request ids."""
    tool_calls: int = 0
    limit: LimitReached | None = None
    decisions: tuple[DecisionReceipt, ...] = ()
    tainted: tuple[str, ...] = ()
    """Origins of outside text that the model was shown."""


class ExtendInput(Contract):
    """A person let a request go past its budgets."""

    request_id: str
    scopes: SpendScopes
    tokens: int
    cost_usd: Decimal | None = None
    by: str
    approval: str
    """Names the decision, so that it counts once."""


class Extended(Contract):
    """The permission is on record."""


class Delivered(Contract):
    """What `deliver` stored, now or, if the request was closed before, then."""

    status: Status
    document: ContentRef | None = None
    usage: Usage
    """Of the request's own calls, without what its delegates spent."""
    attempts: int
    deliveries: tuple[str, ...] = ()
    """Notifications to send, in the ledger."""
