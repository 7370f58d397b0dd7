"""What waits for people, gathered for reading: a line of the list, and everything that is needed to decide.

The content of a question is shown to those who may be asked about it, and to nobody else: until it is released, not
even to the person who asked for it.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pydantic import TypeAdapter

from gateway.context import Gateway
from gateway.earlier_calls import EarlierCalls, earlier_calls
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.pages.payload import Node, Segment, call_line, headline, members_line, node_of, segments
from holdfast.approval import is_named
from holdfast.contracts import Approval, ContentRef, Passage, Usage
from holdfast.errors import ContentMissing
from holdfast.ledger import ApprovalEvent
from holdfast.validation import cited_markers

_PASSAGES = TypeAdapter(list[Passage])

KINDS = {"output": "Answer", "tool": "Tool call", "budget": "Budget"}
"""What is asked for, in one word."""


@dataclass(frozen=True)
class Line:
    """A question in the list."""

    execution: Execution
    approval: Approval
    headline: str
    standing: str
    """Why the reader cannot decide it; empty if the reader can."""

    @property
    def id(self) -> str:
        """The request's id."""
        return self.execution.request_id

    @property
    def kind(self) -> str:
        """What is asked for, in one word."""
        return KINDS[self.approval.kind]

    @property
    def mark(self) -> str:
        """Changes with everything that a page shows of the question."""
        return mark_of(self.approval)

    @property
    def agreed(self) -> int:
        """How many people have approved what waits."""
        return agreed(self.approval)


@dataclass(frozen=True)
class Cited:
    """A passage behind the content."""

    marker: int
    passage: Passage
    cited: bool


@dataclass(frozen=True)
class Question(Line):
    """A question with all that is needed to decide it."""

    content: str | None
    """`None` when it is no longer stored."""
    tree: Node | None
    """The content as JSON, if it is."""
    prose: tuple[Segment, ...]
    """The content as text."""
    editable: str | None
    """What an editor begins with."""
    draft: str | None
    """What it was before somebody edited it."""
    asked: str | None
    """What the user asked."""
    passages: tuple[Cited, ...]
    spent: Usage
    handed: ApprovalEvent | None
    """How it came to these people, if others were asked before and it is on record."""
    before: EarlierCalls
    """What was called before."""

    @property
    def rule_why(self) -> str:
        """What the agent's author says to those who are asked; may be empty."""
        return self.approval.rule.why

    @property
    def why(self) -> str:
        """What led to this question."""
        cause = self.approval.why
        match self.approval.kind:
            case "tool":
                return cause or f"The agent {self.execution.agent!r} may not call {self.approval.subject!r} by itself."
            case "budget":
                return cause or "It would go past a budget whose limit asks people first."
        return cause or f"Every answer of the agent {self.execution.agent!r} waits for a person before it is delivered."

    @property
    def approving(self) -> str:
        """What an approval leads to."""
        match self.approval.kind:
            case "tool":
                return "The tool is called with exactly these arguments."
            case "budget":
                return "The request goes on, past the budget and up to its own limits."
        return "The text is delivered exactly as it is shown."

    @property
    def rejecting(self) -> str:
        """What a rejection leads to."""
        match self.approval.kind:
            case "tool":
                return "The tool is not called. The model is told so, with the reason, and goes on without it."
            case "budget":
                return "The request ends, because it may not go past the budget."
        return "Nothing is delivered, and the request ends as rejected."

    @property
    def arguments(self) -> Node | None:
        """What a tool would be called with."""
        return self.tree.member("arguments") if self.approval.kind == "tool" and self.tree else None

    @property
    def missing(self) -> int:
        """How many more people have to approve."""
        return max(0, self.approval.rule.quorum - self.agreed)

    @property
    def stages(self) -> int:
        """How often the question can be handed on."""
        return len(self.approval.rule.escalation)

    @property
    def may_edit(self) -> bool:
        """Whether another text can be given instead."""
        return self.approval.kind != "budget" and self.editable is not None


def standing(approval: Approval, caller: Caller, now: datetime) -> str:
    """Why a caller cannot decide a question, in words; empty if the caller can."""
    if not is_named(approval.approvers, caller.user, caller.roles):
        return "You are not among those who may decide this."
    if approval.requested_by == caller.user and not approval.rule.requester_may_decide:
        return "You asked for this yourself, so someone else has to decide."
    if any(vote.actor == caller.user and vote.content_sha256 == approval.content.sha256 for vote in approval.votes):
        return "You have approved this; others still have to."
    if now >= approval.deadline:
        return "The time to decide is over; the rule's default is being taken."
    return ""


async def lines(gateway: Gateway, executions: Sequence[Execution], caller: Caller, now: datetime) -> list[Line]:
    """Questions as lines of the list."""
    asked = [(execution, execution.approval) for execution in executions if execution.approval is not None]
    texts = await asyncio.gather(*(text_of(gateway, caller.tenant, approval.content) for _, approval in asked))
    return [
        Line(execution, approval, title(approval, text), standing(approval, caller, now))
        for (execution, approval), text in zip(asked, texts, strict=True)
    ]


async def question(gateway: Gateway, execution: Execution, caller: Caller, now: datetime) -> Question | None:
    """A request's open question; `None` if there is none, or none that this caller is asked."""
    approval = execution.approval
    if approval is None or not is_named(approval.approvers, caller.user, caller.roles):
        return None
    content, draft, asked, passages, transcript = await asyncio.gather(
        *(
            text_of(gateway, caller.tenant, reference)
            for reference in (
                approval.content,
                approval.draft,
                approval.asked,
                approval.passages,
                approval.transcript,
            )
        )
    )
    found = _PASSAGES.validate_json(passages) if passages else []
    tree = node_of(content) if content else None
    marked = set(cited_markers(content or ""))
    return Question(
        execution,
        approval,
        title(approval, content),
        standing(approval, caller, now),
        content=content,
        tree=tree,
        prose=segments(content or "", range(1, len(found) + 1)),
        editable=_editable(approval, content),
        draft=_editable(approval, draft),
        asked=asked,
        passages=tuple(Cited(marker, passage, marker in marked) for marker, passage in enumerate(found, start=1)),
        spent=await spent(gateway, execution),
        handed=await handed(gateway, execution.tenant, approval),
        before=earlier_calls(transcript),
    )


async def text_of(gateway: Gateway, tenant: str, reference: ContentRef | None) -> str | None:
    """A stored text, `None` when it is no longer there."""
    if reference is None:
        return None
    try:
        return await gateway.ledger.contents.get(tenant, reference)
    except ContentMissing:
        return None


async def spent(gateway: Gateway, execution: Execution) -> Usage:
    """What a request has consumed so far."""
    if execution.answer is not None:
        return execution.answer.usage
    usage = (await gateway.ledger.attempts.totals(execution.request_id)).usage
    # The index counts delegates too, but lags behind.
    if execution.cost_usd is not None and usage.cost_usd is not None:
        return usage.model_copy(update={"cost_usd": max(usage.cost_usd, Decimal(execution.cost_usd))})
    return usage


async def handed(gateway: Gateway, tenant: str, approval: Approval) -> ApprovalEvent | None:
    """The escalation that brought a question to those who are asked now; it is on record a moment after it happened."""
    if not approval.stage:
        return None
    events = await gateway.ledger.approval_events.list(tenant, approval.opened_at, request_id=approval.request_id)
    reached = (approval.round, approval.stage)
    return next((one for one in events if one.happening == "escalated" and (one.round, one.stage) == reached), None)


async def outcome(gateway: Gateway, tenant: str, request_id: str) -> ApprovalEvent | None:
    """How the last question of a request that was decided was decided, if that is on record."""
    events = await gateway.ledger.approval_events.list(tenant, request_id=request_id)
    told = next((one for one in events if one.happening not in ("voted", "escalated", "reminded")), None)
    # Of a later question that was withdrawn, or is not told of yet, an earlier one says nothing.
    return told if told and told.happening not in ("opened", "closed") else None


def agreed(approval: Approval) -> int:
    """How many people have approved what waits, not an earlier text."""
    return sum(vote.content_sha256 == approval.content.sha256 for vote in approval.votes)


def title(approval: Approval, content: str | None) -> str:
    """A question in one line."""
    if content is None:
        return approval.subject or "Its text is no longer stored"
    if approval.kind == "tool":
        tree = node_of(content)
        return call_line(approval.subject or "tool", tree.member("arguments") if tree else None)
    tree = node_of(content)
    return members_line(tree) if tree else headline(content)


def mark_of(approval: Approval) -> str:
    """Changes with everything that a page shows of a question."""
    told = [approval.request_id, approval.content.sha256, approval.round, approval.stage, approval.deadline]
    return _digest([*map(str, told), *(vote.actor for vote in approval.votes)])


def version_of(executions: Iterable[Execution], count: int) -> str:
    """Changes with everything that the list shows."""
    return _digest([str(count), *(mark_of(one.approval) for one in executions if one.approval is not None)])


def _editable(approval: Approval, content: str | None) -> str | None:
    if content is None:
        return None
    tree = node_of(content)
    if approval.kind == "tool":
        arguments = tree.member("arguments") if tree else None
        return arguments.written() if arguments else None
    return tree.written() if tree else content


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
