"""A request as the workflow receives it."""

from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import AwareDatetime, Field

from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.plan import Plan

CURRENT_WALK = 3
"""The walk of newly accepted requests. 1: every failure of a deployment excludes it. 2: causes, escalation, budgets.
3: what happens to approvals is noted for reports and notifications."""

MAX_DEPTH = 4
"""Most agents in a chain of delegation, the first one included."""


class Limits(Contract):
    """Ceilings of one request. They span retries, fallbacks and repairs together."""

    tokens: int = Field(default=50_000, gt=0, le=10_000_000)
    """Most tokens, input and output, that all model calls of the request may consume."""

    cost_usd: Decimal | None = Field(default=None, ge=0, le=100_000)
    """Most US dollars the request may cost; `None` sets no ceiling. With a ceiling, an unpriced model is refused."""

    output_tokens: int = Field(default=1_024, gt=0, le=200_000)
    """Most tokens of one model reply."""

    attempts: int = Field(default=6, gt=0, le=50)
    """Most model calls, counting retries, fallbacks and repairs."""

    repairs: int = Field(default=2, ge=0, le=10)
    """Most times the model is asked to mend an invalid reply."""

    iterations: int = Field(default=10, gt=0, le=100)
    """Most questions to a model that follow on results of tools, and the first one."""

    tool_calls: int = Field(default=32, ge=0, le=1_000)
    """Most calls of tools and delegates."""

    calls_at_once: int = Field(default=8, gt=0, le=64)
    """Most calls of tools and delegates made for one reply."""

    repetitions: int = Field(default=3, gt=0, le=100)
    """Most calls of one tool with the same arguments."""

    deadline: timedelta = Field(default=timedelta(days=2), gt=timedelta(0), le=timedelta(days=365))
    """Time from submission to final answer, waiting for people included."""


class Request(Contract):
    """One accepted request. Small by construction: the input and every other long text is a reference."""

    id: str = Field(pattern=r"^req_[0-9a-z]{8,60}$")
    """The request id; also the workflow id."""

    tenant: str = Field(min_length=1, max_length=64)
    """The paying party; everything stored is keyed by it."""

    user: str = Field(min_length=1, max_length=128)
    """Who asked."""

    plan: Plan
    """The agent's definition, pinned."""

    input: ContentRef
    """The question as it came."""

    limits: Limits
    """Ceilings after merging the agent's with the request's."""

    submitted_at: AwareDatetime
    """When the gateway accepted it, UTC."""

    session: str | None = Field(default=None, max_length=128)
    """Groups requests of one conversation."""

    tier: str = Field(default="standard", max_length=32)
    """Service tier of the caller."""

    conversation: ContentRef | None = None
    """A `Conversation` as JSON: earlier turns and the tools that the client offers."""

    chat: bool = False
    """Whether the client speaks chat: a reply cut off at its limit, or a call of its tools, is then a reply."""

    priority: int = Field(default=3, ge=1, le=5)
    """Its place in every queue, 1 first."""

    weight: float = Field(default=1.0, ge=0.001, le=1_000)
    """The tenant's share beside other tenants of the same priority."""

    batch: bool = False
    """Whether the answer may take hours and should cost less."""

    not_before: AwareDatetime | None = None
    """No model is called before this moment."""

    parent: str | None = None
    """The request that delegated this one."""

    root: str | None = None
    """The request at the top of the chain of delegation."""

    depth: int = Field(default=1, ge=1, le=MAX_DEPTH)
    """Its place in the chain of delegation, 1 for what a client submitted."""

    tainted: tuple[str, ...] = ()
    """Origins of outside text that the request comes with: in what an agent made it of, or in earlier answers of its
    session."""

    walk: int = Field(default=1, ge=1)
    """The version of the walk through the steps that this request is pinned to; see `CURRENT_WALK`."""

    @property
    def deadline_at(self) -> datetime:
        """The moment by which the request must have ended."""
        return self.submitted_at + self.limits.deadline
