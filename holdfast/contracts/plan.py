"""The part of an agent's definition that a run is pinned to.

A request carries its plan, so that a change of the agent's file never alters a request that is already under way.
Only what the workflow itself decides on is here; texts (instructions, schema) are references.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""A name a person types: an agent, a deployment, a collection."""


Strategy = Literal["ordered", "balanced", "cheapest", "fastest", "complexity"]
"""`ordered`: as the agent lists them. The others rank by free capacity, price, latency, or what the question needs."""


class EscalationStage(Contract):
    """Who is asked next when nobody has decided in time."""

    approvers: tuple[str, ...] = Field(min_length=1)
    """As in `ApprovalRule`."""

    within: timedelta = Field(gt=timedelta(0))
    """How long these people have."""


class ApprovalRule(Contract):
    """Who must agree before an answer leaves or a tool is called, and what happens when nobody does."""

    approvers: tuple[str, ...] = Field(min_length=1)
    """User names and roles (`role:finance`) that may decide. `"*"` admits every authenticated user of the tenant."""

    within: timedelta = Field(default=timedelta(hours=24), gt=timedelta(0))
    """How long the question stays open, or with an escalation, how long these people have."""

    quorum: int = Field(default=1, ge=1, le=10)
    """How many different people must approve the same content. One rejection is enough to reject."""

    escalation: tuple[EscalationStage, ...] = Field(default=(), max_length=5)
    """Who is asked next, in order, each when the time of those before is over or one of them escalates."""

    reminders: tuple[timedelta, ...] = Field(default=(), max_length=5)
    """How long before each stage's deadline those who may decide are reminded."""

    default: Literal["reject", "approve"] = "reject"
    """The decision taken when the deadline passes."""

    requester_may_decide: bool = False
    """Whether the person who asked may also approve (separation of duties says no)."""

    why: str = Field(default="", max_length=300)
    """What the agent's author tells those who are asked, in one line."""


class Fallbacks(Contract):
    """Deployments to go to when the listed ones cannot help, by what stood in the way."""

    outage: tuple[Name, ...] = ()
    """After failures, timeouts and slow first tokens, behind the agent's own list."""

    context_window: tuple[Name, ...] = ()
    """When prompt and reply do not fit."""

    content_policy: tuple[Name, ...] = ()
    """When a provider's filter or the model itself refused."""

    budget: tuple[Name, ...] = ()
    """When a budget whose `at_limit` is `degrade` is used up."""


class Escalation(Contract):
    """When a valid reply is not sure enough, and who is asked then."""

    below: float = Field(gt=0, le=1)
    """A confidence under this asks the next deployment."""

    to: tuple[Name, ...] = Field(min_length=1)
    """Deployments to ask, in order."""

    field: str = Field(default="", pattern=r"^(/.+)?$")
    """JSON Pointer (RFC 6901) to a number in the reply, 0 to 1; empty takes the mean probability of its tokens."""


class Taint(Contract):
    """What text from outside may lead a run to. Anything such text could say is assumed to have been said."""

    trust: tuple[Literal["documents", "tools", "web", "mcp", "delegates"], ...] = ()
    """Origins that do not taint."""

    side_effects: Literal["refuse", "allow"] = "refuse"
    """Whether a tainted run may call a tool with side effects that no person approves."""

    skip_approvals: bool = False
    """Whether the conditions of approvals hold in a tainted run; otherwise people are always asked."""


class Guards(Contract):
    """What `sanitize` does to the input."""

    mask: bool = True
    """Replace e-mail addresses, phone numbers, payment cards and IBANs by reversible placeholders."""

    refuse: tuple[str, ...] = ()
    """Regular expressions; an input that matches one, whatever its case, is refused."""


class Plan(Contract):
    """What the workflow needs to know of an agent."""

    agent: Name
    """The agent's name."""

    version: str
    """Digest of everything that defines the agent: file, prompt, schema. First 16 hexadecimal digits of a SHA-256."""

    deployments: tuple[Name, ...] = Field(min_length=1)
    """Model deployments in the order to try them."""

    instructions: ContentRef
    """The system prompt."""

    output_schema: ContentRef | None = None
    """JSON Schema the answer must satisfy; `None` for free text."""

    collection: Name | None = None
    """Knowledge collection to retrieve from; `None` for no retrieval."""

    passages: int = Field(default=6, ge=1, le=50)
    """How many passages to retrieve."""

    approval: ApprovalRule | None = None
    """Rule on the final answer; `None` delivers without asking."""

    guards: Guards = Guards()
    """Input guards."""

    recall: bool = True
    """Whether an identical question may be answered from an earlier, identical one."""

    strategy: Strategy = "ordered"
    """How one of several usable deployments is chosen."""

    regions: tuple[str, ...] = ()
    """Regions that may see the request; empty admits all."""

    fallbacks: Fallbacks = Fallbacks()
    """Where to go from `deployments`, by cause."""

    escalation: Escalation | None = None
    """When to ask a better deployment after a valid reply."""

    intents: ContentRef | None = None
    """JSON array of the agent's intents: questions that a handler answers instead of a model."""

    budget_approval: ApprovalRule | None = None
    """Who may let a request go past a budget whose `at_limit` is `ask`; `None` treats it as `block`."""

    on_disconnect: Literal["finish", "cancel"] = "finish"
    """What becomes of the request when the client that reads its answer goes away."""

    approval_when: str = ""
    """CEL condition under which `approval` is asked for; empty is always."""

    toolbox: ContentRef | None = None
    """A `Toolbox` as JSON; `None` for an agent without tools and delegates."""

    taint: Taint = Taint()
    """What text from outside may lead the run to."""
