"""Approvals as a pure reducer: who may decide, until when, on what, and what happens otherwise.

No clock, no I/O, no engine: `step(state, tick) -> (state, commands)`. The workflow feeds it decisions and the deadline
and carries out its commands; `refusal` is the same rule as a question, for validators that must not change anything.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.contracts import Approval, ContentRef, Decision, DecisionKind, DecisionReceipt
from holdfast.errors import DecisionRefused


@dataclass(frozen=True)
class ApprovalState:
    """An approval and, once taken, its decision."""

    approval: Approval
    receipt: DecisionReceipt | None = None


@dataclass(frozen=True)
class Decided:
    """A person decided. `edited` is the validated new content of an edit."""

    decision: Decision
    at: datetime
    edited: ContentRef | None = None


@dataclass(frozen=True)
class DeadlinePassed:
    """Nobody decided in time."""

    at: datetime


ApprovalTick = Decided | DeadlinePassed


@dataclass(frozen=True)
class Release:
    """Deliver this content."""

    content: ContentRef
    by: str


@dataclass(frozen=True)
class Withhold:
    """Do not deliver."""

    by: str
    reason: str


ApprovalCommand = Release | Withhold

NOBODY = "deadline"
"""The actor of a decision that the rule took because no person did."""


def refusal(
    state: ApprovalState | None, decision: Decision, now: datetime, *, edit_checked: bool = False
) -> DecisionRefused | None:
    """Why a decision may not be taken, or `None` when it may.

    Args:
        state: The approval; `None` when none is open.
        decision: What the person sent.
        now: The current time, aware.
        edit_checked: The new content of an edit is already validated and need not be in the decision.
    """
    if state is None:
        return DecisionRefused(
            "This request is not waiting for a decision. List what is: `holdfast approvals list`.", code="not_open"
        )
    approval, rule = state.approval, state.approval.rule
    if state.receipt is not None:
        return DecisionRefused(
            f"{state.receipt.actor!r} already decided {state.receipt.decision.value!r} at "
            f"{state.receipt.decided_at:%Y-%m-%d %H:%M:%S} UTC; a decision is final.",
            code="already_decided",
        )
    if now >= approval.deadline:
        return DecisionRefused(
            f"The approval closed at {approval.deadline:%Y-%m-%d %H:%M:%S} UTC; ask again with a new request.",
            code="too_late",
        )
    if "*" not in rule.approvers and decision.actor not in rule.approvers:
        return DecisionRefused(
            f"{decision.actor!r} is not among the approvers of this request: {', '.join(rule.approvers)}.",
            code="not_named",
        )
    if decision.actor == approval.requested_by and not rule.requester_may_decide:
        return DecisionRefused(
            f"{decision.actor!r} asked the question and the agent's rule has someone else decide "
            "(`requester_may_decide = true` would allow it).",
            code="own_request",
        )
    if decision.content_sha256 != approval.content.sha256:
        return DecisionRefused(
            f"The decision names content {decision.content_sha256[:12]}, but what waits is "
            f"{approval.content.sha256[:12]}; read it again and decide on that.",
            code="other_content",
        )
    if decision.decision is DecisionKind.EDIT and approval.kind == "budget":
        return DecisionRefused(
            "A request to go past a budget can be approved or rejected, not edited; change the budget itself with "
            "`holdfast budget set`.",
            code="no_edit",
        )
    if decision.decision is DecisionKind.EDIT and not (
        edit_checked or decision.payload is not None or (decision.payload_text or "").strip()
    ):
        return DecisionRefused("An edit needs the new text in `payload`.", code="no_payload")
    return None


def step(state: ApprovalState, tick: ApprovalTick) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    """Take one decision, or let the deadline take the rule's default.

    Raises:
        DecisionRefused: The decision may not be taken; the state is unchanged.
    """
    approval = state.approval
    if isinstance(tick, DeadlinePassed):
        if state.receipt is not None:
            return state, ()
        kind = DecisionKind(approval.rule.default)
        state = replace(state, receipt=_receipt(approval, kind, NOBODY, approval.content, tick.at))
        if kind is DecisionKind.APPROVE:
            return state, (Release(approval.content, NOBODY),)
        return state, (Withhold(NOBODY, f"nobody decided before {approval.deadline:%Y-%m-%d %H:%M:%S} UTC"),)

    decision = tick.decision
    if problem := refusal(state, decision, tick.at, edit_checked=tick.edited is not None):
        raise problem
    content = tick.edited if decision.decision is DecisionKind.EDIT and tick.edited else approval.content
    state = replace(state, receipt=_receipt(approval, decision.decision, decision.actor, content, tick.at))
    if decision.decision is DecisionKind.REJECT:
        return state, (Withhold(decision.actor, decision.reason or "no reason given"),)
    return state, (Release(content, decision.actor),)


def _receipt(approval: Approval, kind: DecisionKind, actor: str, content: ContentRef, at: datetime) -> DecisionReceipt:
    return DecisionReceipt(
        request_id=approval.request_id, decision=kind, actor=actor, content_sha256=content.sha256, decided_at=at
    )
