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


class ApprovalRule(Contract):
    """Who must agree before an answer leaves, and what happens when nobody does."""

    approvers: tuple[str, ...] = Field(min_length=1)
    """User names that may decide. `"*"` admits every authenticated user of the tenant."""

    within: timedelta = Field(default=timedelta(hours=24), gt=timedelta(0))
    """How long the question stays open."""

    default: Literal["reject", "approve"] = "reject"
    """The decision taken when the deadline passes."""

    requester_may_decide: bool = False
    """Whether the person who asked may also approve (separation of duties says no)."""


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
