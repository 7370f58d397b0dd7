"""What passes between the steps that let a model use tools: what it may call, what it asked for, what came of it.

Arguments and results are texts, so they travel as references; a history holds names, digests and one-line summaries.
"""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.conversation import ToolOffer
from holdfast.contracts.plan import ApprovalRule, Guards, Name
from holdfast.contracts.request import Limits, Request
from holdfast.contracts.usage import Usage

Origin = Literal["documents", "tools", "web", "mcp", "delegates"]
"""Where a text comes from that neither the agent's author nor its user wrote. Such a text taints a run."""


class ToolPolicy(Contract):
    """When a call, or the final output, needs people: one `[[approvals]]` table. The first that matches decides."""

    on: str
    """`output`, the name of a tool, or a pattern such as `files__*`."""
    when: str = ""
    """CEL condition; empty is always."""
    rule: ApprovalRule


class Delegate(Contract):
    """Another agent that may be given a part of the work."""

    agent: Name
    description: str
    """What the model is told of it."""

    @property
    def tool(self) -> str:
        """The name under which a model calls it."""
        return f"ask_{self.agent.replace('-', '_')}"[:64]


class Toolbox(Contract):
    """What an agent may use: kept as JSON in the content store, its reference in the plan."""

    tools: tuple[str, ...] = ()
    """Names and patterns as the agent's file has them: `refund`, `files.read_*` (server `files` of MCP)."""
    delegates: tuple[Delegate, ...] = ()
    policies: tuple[ToolPolicy, ...] = ()
    """In their order; those on `output` are not among them."""


class CatalogEntry(Contract):
    """One tool as a run may use it. A JSON array of these is the run's catalog, fixed when the run begins."""

    offer: ToolOffer
    """What the model is shown."""
    source: str
    """`function`, `mcp:<server>` or `delegate:<agent>`."""
    tool: str
    """What the source calls it."""
    digest: str
    """First 16 hexadecimal digits of the SHA-256 of name, description and parameters; a tool that changed is not
    called under its old description."""
    side_effects: bool = True
    idempotent: bool = False
    """Whether a call of unknown outcome may be repeated."""
    origin: Origin | None = "tools"
    """What its results taint a run with; `None` for a tool that returns no foreign text."""
    personal_data: bool = False
    """Whether placeholders in its arguments are restored before it is called."""
    timeout: timedelta = timedelta(seconds=30)
    """Longest one call may take."""
    output_tokens: int = Field(default=2_000, ge=1, le=100_000)
    """Longest result that the model is shown; the rest is cut off and the cut is told."""


class EquipInput(Contract):
    """Asks for the catalog of a run."""

    tenant: str
    agent: str
    toolbox: ContentRef


class Equipped(Contract):
    """The catalog of a run."""

    catalog: ContentRef
    """JSON array of `CatalogEntry`. Its digest pins the run to these tools."""
    count: int
    origins: tuple[Origin, ...] = ()
    missing: tuple[str, ...] = ()
    """MCP servers that did not answer, with the reason, one line each."""


class PlannedCall(Contract):
    """One call that a model asked for, looked at before anything is done."""

    key: str = Field(pattern=r"^\d+\.\d+$")
    """Turn and position in the reply, `3.0`: unique in the request, whatever ids the model gives."""
    id: str
    """The model's own id of the call, which its result has to name."""
    name: str
    """As the model wrote it, at most 64 characters of what a tool's name may hold."""
    kind: Literal["tool", "delegate"] = "tool"
    source: str = ""
    agent: str = ""
    """Of a delegate."""
    arguments: ContentRef | None = None
    """Canonical JSON of the validated arguments, placeholders still in them."""
    digest: str = ""
    """Names tool and arguments: identical calls have the same."""
    problem: str = ""
    """Why it cannot be made, in words for the model and without its own: unknown tool, invalid arguments."""
    side_effects: bool = False
    tainting: Origin | None = None
    """What its result will taint the run with."""
    rule: ApprovalRule | None = None
    """Who has to agree first."""
    why: str = ""
    """Why they have to."""
    shown: ContentRef | None = None
    """What they are shown; set with `rule`."""
    timeout: timedelta = timedelta(seconds=30)
    idempotent: bool = False
    edited: bool = False
    """Whether a person changed the arguments; the model is then told what they were."""


class VetInput(Contract):
    """A reply's tool calls, or one call as a person edited it, to be looked at."""

    tenant: str
    request_id: str
    turn: int
    reply: ContentRef | None = None
    """An `AssistantTurn` as JSON."""
    catalog: ContentRef
    toolbox: ContentRef
    most: int = 128
    """Calls beyond this many are left out; `Vetted.left_out` counts them."""
    call: PlannedCall | None = None
    """The call that a person edited."""
    edited: ContentRef | None = None
    edited_text: str | None = None
    """Its new arguments as JSON, as a reference or, by signal, as text."""
    tainted: bool = False
    """Whether conditions count as met, because a tainted run may not skip an approval."""
    run_tainted: bool = False
    """What `tainted` means in a condition: whether the run is, even if its conditions hold nevertheless."""
    spent: Usage = Usage()
    """For conditions."""


class Vetted(Contract):
    """The calls in their order."""

    calls: tuple[PlannedCall, ...]
    left_out: int = 0


class CallToolInput(Contract):
    """One call of one tool."""

    tenant: str
    user: str
    request_id: str
    agent: str
    session: str | None = None
    call: PlannedCall
    catalog: ContentRef


class ToolReturned(Contract):
    """What came of one call, whether it was made or not."""

    key: str
    id: str
    name: str
    ok: bool
    result: ContentRef | None = None
    """What the model will be shown, before masking; for a delegate, its `AnswerDocument` as JSON."""
    problem: str = ""
    """Instead of a result, in words for the model."""
    summary: str = ""
    """One line for people, without any of the text."""
    tokens: int = 0
    """Of the result as it is shown."""
    tainting: Origin | None = None
    repeated: bool = False
    """Whether the result was on record already, so that the tool was not called again."""
    delegate: str = ""
    """Request id of the delegate that answered."""
    usage: Usage = Usage()
    """What a delegate spent."""


class TranscribeInput(Contract):
    """A reply and what came of its calls, to be put into what the model is shown next."""

    tenant: str
    request_id: str
    reply: ContentRef
    results: tuple[ToolReturned, ...]
    transcript: ContentRef | None = None
    passages: ContentRef | None = None
    guards: Guards
    notice: str = ""
    """What the model is told beside the results, such as that a limit is reached."""
    masked: ContentRef | None = None
    """The sanitized question; what its own text spells like a placeholder is not given to another value."""


class Transcribed(Contract):
    """The transcript so far."""

    transcript: ContentRef
    """JSON array of `Turn`: every reply with calls, and the results, masked."""
    passages: ContentRef | None = None
    """The run's passages, those that delegates cited added at the end."""
    private: bool = False
    """Whether the request holds personal data, which is masked now."""
    tokens: int = 0
    """Of the whole transcript."""


class BriefInput(Contract):
    """A delegate's work, to be made a request of."""

    parent: Request
    call: PlannedCall
    limits: Limits
    """What the parent can spare; the delegate's own limits hold too."""
    tainted: tuple[Origin, ...] = ()


class Briefed(Contract):
    """The request of a delegate, or why there is none."""

    request: Request | None = None
    problem: str = ""


class Delegated(Contract):
    """A delegate at work, as a parent knows it."""

    request_id: str
    agent: str
    key: str
    ok: bool | None = None
    """`None` while it works."""
    status: str = "running"
    usage: Usage = Usage()


class ToolLine(Contract):
    """One call as a page shows it."""

    key: str
    name: str
    state: Literal["asking", "running", "done", "failed", "refused"]
    arguments: ContentRef | None = None
    result: ContentRef | None = None
    summary: str = ""
    delegate: str = ""
