"""Approvals as a pure reducer: who may decide, how many, until when, on what, who is asked next, and what else happens.

No clock, no I/O, no engine: `step(state, tick) -> (state, commands)`. The workflow feeds it decisions and the passing
of time, sleeps until `due`, and carries out its commands; `refusal` is the same rule as a question, for validators that
must not change anything.

What holds for any sequence of ticks: content is released by people only when as many different people as the quorum
asks, each entitled when they said so, agreed on exactly that content; an edit takes nobody's agreement over; a refused
decision changes nothing; and time settles every question at the last deadline of its chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.contracts import (
    Approval,
    ApprovalHappening,
    ContentRef,
    Decision,
    DecisionKind,
    DecisionReceipt,
    Vote,
)
from holdfast.errors import DecisionRefused

NOBODY = "deadline"
"""The actor of a decision that the rule took because no person did."""

ROLE = "role:"
"""How a name among approvers begins that stands for everyone with a role."""

EVERYONE = "*"


@dataclass(frozen=True)
class Decided:
    """A person decided. `edited` is the validated new content of an edit."""

    decision: Decision
    at: datetime
    edited: ContentRef | None = None


@dataclass(frozen=True)
class TimePassed:
    """It is this late: reminders, the deadline of those who are asked, or the request's own may have come."""

    at: datetime


ApprovalTick = Decided | TimePassed


@dataclass(frozen=True)
class Release:
    """Let this content pass."""

    content: ContentRef
    by: str


@dataclass(frozen=True)
class Withhold:
    """Do not let it pass."""

    by: str
    reason: str


@dataclass(frozen=True)
class Lapse:
    """The request's own time is up: nobody decided, and neither does the rule."""


Verdict = Release | Withhold | Lapse


@dataclass(frozen=True)
class Happened:
    """Something for the record, and for whoever wants to be told."""

    happening: ApprovalHappening
    at: datetime
    actor: str = ""
    """Empty for what no person did."""
    reason: str | None = None
    content: ContentRef | None = None


ApprovalCommand = Verdict | Happened


@dataclass(frozen=True)
class ApprovalState:
    """A question, and what was said to it."""

    approval: Approval
    until: datetime | None = None
    """The request's own deadline, at which the question ends without a decision."""
    receipts: tuple[DecisionReceipt, ...] = ()
    """Every decision that was accepted, in order."""
    verdict: Verdict | None = None
    asked_before: frozenset[str] = frozenset()
    """Digests that other questions of the request were about: a decision on one of them has to name its question."""

    @property
    def receipt(self) -> DecisionReceipt | None:
        """The decision that settled it."""
        return self.receipts[-1] if self.receipts and self.receipts[-1].final else None

    @property
    def missing(self) -> int:
        """How many more people have to approve the content as it is."""
        return max(0, self.approval.rule.quorum - len(_agreeing(self.approval)))


def ask(approval: Approval, until: datetime, asked_before: Sequence[str] = ()) -> ApprovalState:
    """Open a question: its deadline is that of the rule's own approvers, and never behind the request's.

    Args:
        approval: With any deadline.
        until: The request's own deadline.
        asked_before: Digests of what the request's earlier questions were about.
    """
    deadline = min(approval.opened_at + approval.rule.within, until)
    opened = approval.model_copy(update={"deadline": deadline})
    opened = opened.model_copy(update={"reminded": _reminders_due(opened, approval.opened_at)})
    return ApprovalState(opened, until, asked_before=frozenset(asked_before))


def due(state: ApprovalState) -> datetime:
    """When time has to be told next: at the next reminder or at the deadline."""
    approval = state.approval
    return min([*_reminder_moments(approval)[approval.reminded :], approval.deadline])


def is_named(approvers: Sequence[str], actor: str, roles: Sequence[str]) -> bool:
    """Whether somebody with these roles is among the approvers."""
    named = EVERYONE in approvers or (actor in approvers and not actor.startswith(ROLE))
    return named or any(ROLE + role in approvers for role in roles)


def may_decide(approval: Approval, actor: str, roles: Sequence[str]) -> bool:
    """Whether somebody with these roles can still say something to a question, as far as the rule goes."""
    if actor == approval.requested_by and not approval.rule.requester_may_decide:
        return False
    voted = any(vote.actor == actor for vote in _agreeing(approval))
    return is_named(approval.approvers, actor, roles) and not voted


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
    return (
        _closed(state, now)
        or _not_entitled(state.approval, decision)
        or _other_content(state, decision)
        or _not_possible(state, decision, edit_checked)
    )


def step(state: ApprovalState, tick: ApprovalTick) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    """Take one decision, or let time pass.

    Raises:
        DecisionRefused: The decision may not be taken; the state is unchanged.
    """
    if isinstance(tick, TimePassed):
        return _pass_time(state, tick.at)
    decision = tick.decision
    if problem := refusal(state, decision, tick.at, edit_checked=tick.edited is not None):
        raise problem
    match decision.decision:
        case DecisionKind.REJECT:
            happened = Happened("rejected", tick.at, decision.actor, decision.reason, state.approval.content)
            return _settle(
                _received(state, decision, tick.at, final=True),
                Withhold(decision.actor, decision.reason or "no reason given"),
                happened,
            )
        case DecisionKind.ESCALATE:
            state, commands = _escalate(state, tick.at, decision.actor, decision.reason)
            return _received(state, decision, tick.at, final=False), commands
        case DecisionKind.EDIT if tick.edited is None:
            raise _no_payload()
        case DecisionKind.EDIT | DecisionKind.APPROVE:
            return _agree(state, decision, tick.at, tick.edited or state.approval.content)


def _agree(
    state: ApprovalState, decision: Decision, at: datetime, content: ContentRef
) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    approval = state.approval
    vote = Vote(actor=decision.actor, content_sha256=content.sha256, at=at, reason=decision.reason)
    changes: dict[str, object] = {"votes": (*approval.votes, vote)}
    edited = content.sha256 != approval.content.sha256
    if edited:
        # What people agreed to is not what would be released now.
        changes = {"votes": (vote,), "content": content, "draft": approval.draft or approval.content}
    state = replace(state, approval=approval.model_copy(update=changes))
    final = state.missing == 0
    state = _received(state, decision, at, final=final)
    happening: ApprovalHappening = "edited" if edited else "approved" if final else "voted"
    happened = Happened(happening, at, decision.actor, decision.reason, content)
    return _settle(state, Release(content, decision.actor), happened) if final else (state, (happened,))


def _pass_time(state: ApprovalState, at: datetime) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    approval = state.approval
    if state.verdict is not None:
        return state, ()
    if state.until is not None and at >= state.until:
        return _settle(state, Lapse(), Happened("closed", at, reason="the request's own time was up"))
    if at >= approval.deadline:
        if approval.stage < len(approval.rule.escalation):
            return _escalate(state, at, "", _undecided(state))
        return _take_default(state, at)
    reminded = _reminders_due(approval, at)
    if reminded <= approval.reminded:
        return state, ()
    state = replace(state, approval=approval.model_copy(update={"reminded": reminded}))
    return state, (Happened("reminded", at, content=approval.content),)


def _escalate(
    state: ApprovalState, at: datetime, actor: str, reason: str | None
) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    """Ask the next people. Their time begins now: what was lost before must not shorten it."""
    approval = state.approval
    deadline = at + approval.rule.escalation[approval.stage].within
    if state.until is not None:
        deadline = min(deadline, state.until)
    approval = approval.model_copy(update={"stage": approval.stage + 1, "deadline": deadline})
    approval = approval.model_copy(update={"reminded": _reminders_due(approval, at)})
    return replace(state, approval=approval), (Happened("escalated", at, actor, reason, approval.content),)


def _take_default(state: ApprovalState, at: datetime) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    approval, why = state.approval, _undecided(state)
    # A default of approving stands for what the model wrote, not for what one of several people put in its place.
    released = approval.rule.default == "approve" and approval.content == (approval.draft or approval.content)
    kind = DecisionKind.APPROVE if released else DecisionKind.REJECT
    receipt = _receipt(approval, kind, NOBODY, at, why)
    state = replace(state, receipts=(*state.receipts, receipt))
    if released:
        return _settle(
            state, Release(approval.content, NOBODY), Happened("approved", at, reason=why, content=approval.content)
        )
    return _settle(state, Withhold(NOBODY, why), Happened("rejected", at, reason=why, content=approval.content))


def _settle(
    state: ApprovalState, verdict: Verdict, happened: Happened
) -> tuple[ApprovalState, tuple[ApprovalCommand, ...]]:
    return replace(state, verdict=verdict), (happened, verdict)


def _received(state: ApprovalState, decision: Decision, at: datetime, *, final: bool) -> ApprovalState:
    """On record: with the content that was decided on, which after an edit is the edited one."""
    receipt = _receipt(state.approval, decision.decision, decision.actor, at, decision.reason)
    receipt = receipt.model_copy(update={"final": final, "missing": 0 if final else state.missing})
    return replace(state, receipts=(*state.receipts, receipt))


def _receipt(
    approval: Approval, kind: DecisionKind, actor: str, at: datetime, reason: str | None = None
) -> DecisionReceipt:
    return DecisionReceipt(
        request_id=approval.request_id,
        decision=kind,
        actor=actor,
        content_sha256=approval.content.sha256,
        decided_at=at,
        kind=approval.kind,
        round=approval.round,
        reason=reason,
    )


def _closed(state: ApprovalState, now: datetime) -> DecisionRefused | None:
    approval, rule = state.approval, state.approval.rule
    if receipt := state.receipt:
        return DecisionRefused(
            f"{receipt.actor!r} already decided {receipt.decision.value!r} at "
            f"{receipt.decided_at:%Y-%m-%d %H:%M:%S} UTC; a decision is final.",
            code="already_decided",
        )
    if state.verdict is None and now < approval.deadline:
        return None
    if state.verdict is None and approval.stage < len(rule.escalation) and now < (state.until or now):
        asked = ", ".join(rule.escalation[approval.stage].approvers)
        return DecisionRefused(
            f"The time of {', '.join(approval.approvers)} ended at {approval.deadline:%Y-%m-%d %H:%M:%S} UTC; the "
            f"question goes to {asked}.",
            code="too_late",
        )
    return DecisionRefused(
        f"The approval closed at {approval.deadline:%Y-%m-%d %H:%M:%S} UTC; ask again with a new request.",
        code="too_late",
    )


def _not_entitled(approval: Approval, decision: Decision) -> DecisionRefused | None:
    if not is_named(approval.approvers, decision.actor, decision.roles):
        since = " since it was escalated" if approval.stage else ""
        return DecisionRefused(
            f"{decision.actor!r} is not among the approvers of this request{since}: {', '.join(approval.approvers)}.",
            code="not_named",
        )
    if decision.actor == approval.requested_by and not approval.rule.requester_may_decide:
        return DecisionRefused(
            f"{decision.actor!r} asked the question and the agent's rule has someone else decide "
            "(`requester_may_decide = true` would allow it).",
            code="own_request",
        )
    return None


def _other_content(state: ApprovalState, decision: Decision) -> DecisionRefused | None:
    approval = state.approval
    if decision.content_sha256 != approval.content.sha256:
        return DecisionRefused(
            f"The decision names content {decision.content_sha256[:12]}, but what waits is "
            f"{approval.content.sha256[:12]}; read it again and decide on that.",
            code="other_content",
        )
    if decision.round is None and decision.content_sha256 in state.asked_before:
        return DecisionRefused(
            "The request asked about the same content before, and the decision does not say which question it means; "
            f"read it again and decide with `round` {approval.round}.",
            code="other_content",
        )
    if decision.round is not None and decision.round != approval.round:
        return DecisionRefused(
            f"The decision is about question {decision.round} of the request, but what waits is question "
            f"{approval.round}; read it again and decide on that.",
            code="other_content",
        )
    return None


def _not_possible(state: ApprovalState, decision: Decision, edit_checked: bool) -> DecisionRefused | None:
    approval, kind = state.approval, decision.decision
    earlier = next((vote for vote in _agreeing(approval) if vote.actor == decision.actor), None)
    if earlier is not None and kind is not DecisionKind.ESCALATE:
        return DecisionRefused(
            f"{decision.actor!r} already approved this content at {earlier.at:%Y-%m-%d %H:%M:%S} UTC, and a person "
            f"decides once; it still needs {state.missing} more to approve, or one to reject.",
            code="already_voted",
        )
    if kind is DecisionKind.ESCALATE and approval.stage >= len(approval.rule.escalation):
        return DecisionRefused(
            "Nobody is left to escalate to: the agent's rule names no further approvers. Approve or reject, or let "
            "the deadline pass.",
            code="no_escalation",
        )
    if kind is DecisionKind.EDIT and approval.kind == "budget":
        return DecisionRefused(
            "A request to go past a budget can be approved or rejected, not edited; change the budget itself with "
            "`holdfast budget set`.",
            code="no_edit",
        )
    has_text = edit_checked or decision.payload is not None or (decision.payload_text or "").strip()
    return _no_payload() if kind is DecisionKind.EDIT and not has_text else None


def _no_payload() -> DecisionRefused:
    return DecisionRefused("An edit needs the new text in `payload`.", code="no_payload")


def _agreeing(approval: Approval) -> tuple[Vote, ...]:
    return tuple(vote for vote in approval.votes if vote.content_sha256 == approval.content.sha256)


def _undecided(state: ApprovalState) -> str:
    by, rule = f"before {state.approval.deadline:%Y-%m-%d %H:%M:%S} UTC", state.approval.rule
    agreed = len(_agreeing(state.approval))
    return f"{agreed} of {rule.quorum} people approved it {by}" if agreed else f"nobody decided {by}"


def _reminder_moments(approval: Approval) -> list[datetime]:
    return sorted(approval.deadline - before for before in approval.rule.reminders)


def _reminders_due(approval: Approval, at: datetime) -> int:
    return sum(moment <= at for moment in _reminder_moments(approval))
