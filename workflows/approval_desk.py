"""The desk where a request waits for people: asks the pure core, checks edits, remembers what was decided.

An update and a signal both end here, so a decision means the same whichever way it came. One desk is for one question;
`next` is the desk for the following one.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from holdfast import approval
from holdfast.contracts import (
    Approval,
    ApprovalKind,
    ApprovalRule,
    Carried,
    ContentRef,
    Decision,
    DecisionKind,
    DecisionReceipt,
    EventKind,
    PlannedCall,
    Request,
    Step,
    Validated,
    ValidateInput,
    VetInput,
    Vetted,
)
from holdfast.errors import DecisionRefused
from workflows import steps

MAX_EARLY = 20
"""Decisions kept that came by signal before the question was asked."""
MAX_EARLY_CHARACTERS = 100_000
"""Length of their texts together: a run that starts over carries them, and an engine's payload has 2 MB."""
MAX_REFUSALS = 50
"""Refused signals that the run sheet tells of. It is written anew with every line, so thousands of them would keep the
run from ever being read again."""

HOLDS_NUL = "actor, reason or roles hold a NUL character"


class Question(NamedTuple):
    """What people are asked."""

    content: ContentRef
    rule: ApprovalRule
    kind: ApprovalKind = "output"
    passages: ContentRef | None = None
    subject: str = ""
    why: str = ""
    asked: ContentRef | None = None
    """What the user asked, masked."""
    transcript: ContentRef | None = None
    """What was called before, masked."""


class Untold(NamedTuple):
    """Something that happened and is not noted yet, with the question as it stood afterwards."""

    question: Approval
    happened: approval.Happened


class ApprovalDesk:
    """One question of a request.

    Args:
        request: Whose limits and agent hold.
        tell: Writes a line on the run sheet.
        keep: Puts an accepted decision on record.
        carried: What an earlier run had: an open question, whose deadline stands, and decisions that came early.
    """

    def __init__(
        self,
        request: Request,
        tell: Callable[[EventKind, str, str], None],
        keep: Callable[[DecisionReceipt], None],
        carried: Carried,
    ) -> None:
        self._request = request
        self._tell = tell
        self._keep = keep
        self._rounds = carried.questions
        self._settled = carried.decisions
        """Decisions on other questions, and of earlier runs."""
        self._answered = dict(carried.answered)
        self._state = self._resume(carried.approval) if carried.approval else None
        self._refused = 0
        """Signals about this question that were not taken."""
        self._closed = False
        self._vet: VetInput | None = None
        self.early = carried.early
        self.edited_call = carried.edited_call
        """The call that is asked about, as somebody edited it."""
        self.untold: tuple[Untold, ...] = ()
        """What has still to be noted, in order."""

    @property
    def question(self) -> Approval | None:
        """What is asked, once it is."""
        return self._state.approval if self._state else None

    @property
    def receipt(self) -> DecisionReceipt | None:
        """The decision that settled it, once taken."""
        return self._state.receipt if self._state else None

    @property
    def verdict(self) -> approval.Verdict | None:
        """What came of it, once it is settled."""
        return self._state.verdict if self._state else None

    def carried(self) -> dict[str, object]:
        """The fields of `Carried` that a desk of a later run is made of."""
        return {
            "approval": self.question,
            "early": self.early,
            "questions": self._rounds,
            "edited_call": self.edited_call,
            "answered": self._answered,
        }

    def open(self, question: Question, vet: VetInput | None = None) -> Approval:
        """Ask. A question that is already open stays as it is.

        Args:
            question: What to ask.
            vet: How edited arguments of a call are checked; names the call that is asked about.
        """
        self._vet = vet
        if self._state is None:
            now = workflow.now()
            self._state = approval.ask(
                Approval(
                    request_id=self._request.id,
                    content=question.content,
                    passages=question.passages,
                    rule=question.rule,
                    requested_by=self._request.user,
                    opened_at=now,
                    deadline=now,
                    kind=question.kind,
                    round=self._rounds + 1,
                    subject=question.subject,
                    why=question.why,
                    asked=question.asked,
                    transcript=question.transcript,
                ),
                self._request.deadline_at,
                self._asked_before(self._rounds + 1),
            )
        return self._state.approval

    def time_left(self) -> timedelta:
        """Until time has to be told: the next reminder, or the question's deadline."""
        return approval.due(self._open_state()) - workflow.now()

    def pass_time(self) -> None:
        """A reminder is due, or a deadline passed: the next people are asked, or the rule's default is the verdict."""
        self._take(approval.step(self._open_state(), approval.TimePassed(workflow.now())))

    def next(self) -> "ApprovalDesk":
        """The desk for the next question of the same request; decisions that came early wait for it."""
        carried = Carried(
            masked=self._request.input,
            early=self.early,
            questions=self._rounds + 1,
            decisions=self._receipts,
            answered=self._answered,
        )
        return ApprovalDesk(self._request, self._tell, self._keep, carried)

    def close(self) -> None:
        """Take nothing more: the request is being cancelled, and a decision accepted now would not be carried out."""
        self._closed = True

    def check(self, decision: Decision, update_id: str = "") -> None:
        """Refuse what may not be decided; changes nothing.

        Args:
            decision: What the person sent.
            update_id: By which the engine knows an update; one that an earlier run took is not refused.

        Raises:
            ApplicationError: Of type `DecisionRefused`, its first detail the code.
        """
        if update_id in self._answered:
            return
        if _holds_nul(decision):
            raise _refused(DecisionRefused(f"The decision cannot be taken: {HOLDS_NUL}.", code="invalid_decision"))
        self._check(decision)

    def _check(self, decision: Decision) -> None:
        problem = approval.refusal(None if self._closed else self._state, decision, workflow.now())
        if problem is not None:
            raise _refused(self._already_settled(decision) or problem)

    async def take(self, decision: Decision, update_id: str = "") -> DecisionReceipt:
        """Take a decision; the new text of an edit is validated first.

        Args:
            decision: What the person sent.
            update_id: By which the engine knows an update. Within a run it takes none twice; one that an earlier run
                took gets the same receipt again.

        Raises:
            ApplicationError: As for `check`.
        """
        if update_id in self._answered:
            return self._receipts[self._answered[update_id]]
        self._check(decision)
        edited, call = await self._checked_edit(decision) if decision.decision is DecisionKind.EDIT else (None, None)
        # While an edit was being checked somebody else may have decided, or the request may have been cancelled.
        self._check(decision)
        state = self._open_state()
        try:
            self._take(approval.step(state, approval.Decided(decision, workflow.now(), edited)))
        except DecisionRefused as problem:
            raise _refused(problem) from None
        self.edited_call = call or self.edited_call
        if update_id:
            self._answered[update_id] = len(self._receipts) - 1
        return self._receipts[-1]

    async def take_signal(self, decision: Decision) -> None:
        """Take a decision whose sender hears nothing back; an early one is kept, a refusal goes on the run sheet."""
        if _holds_nul(decision):
            self.refuse_signal(HOLDS_NUL)
            return
        if self._state is None:
            if sum(len(kept.payload_text or "") for kept in (*self.early, decision)) > MAX_EARLY_CHARACTERS:
                self.refuse_signal(f"{decision.actor}: nothing waits yet, and the text is too long to keep")
            elif len(self.early) >= MAX_EARLY:
                self.refuse_signal(f"{decision.actor}: nothing waits yet, and {MAX_EARLY} decisions are kept already")
            else:
                self.early = (*self.early, decision)
            return
        try:
            await self.take(decision)
        except ApplicationError as error:
            self.refuse_signal(f"{decision.actor}: {error.message}")

    def refuse_signal(self, reason: str) -> None:
        """Tell why a signal was not taken; the only place its sender can look is the run sheet."""
        self._refused += 1
        if self._refused == MAX_REFUSALS:
            reason += "; what else is refused is not told any more"
        if self._refused <= MAX_REFUSALS:
            self._tell(EventKind.DECISION_REFUSED, Step.APPROVE, reason)

    async def take_early(self) -> None:
        """Take the decisions that came before the question, in their order."""
        question = self.question
        early, self.early = self.early, ()
        if question is not None and question.kind != "output":
            # What was said about another content is kept for the question that will ask about it.
            self.early = tuple(said for said in early if said.content_sha256 != question.content.sha256)
            early = tuple(said for said in early if said not in self.early)
        for decision in early:
            await self.take_signal(decision)

    async def _checked_edit(self, decision: Decision) -> tuple[ContentRef, PlannedCall | None]:
        """The content of an edit as it will be shown and released, and for a call, the call with it."""
        if self.question is not None and self.question.kind == "tool":
            # A run that has just started over takes decisions before it has asked again, and knows how to check then.
            await workflow.wait_condition(lambda: self._vet is not None or self._closed)
            self._check(decision)
        try:
            if self._vet is not None:
                return await self._checked_call(decision, self._vet)
            return await self._checked_text(decision), None
        except steps.StepFailure as error:
            raise _invalid(f"The edit could not be checked: {error.reason}") from None

    async def _checked_text(self, decision: Decision) -> ContentRef:
        checked = await steps.local(
            Step.VALIDATE,
            ValidateInput(
                tenant=self._request.tenant,
                output=decision.payload,
                text=decision.payload_text if decision.payload is None else None,
                output_schema=self._request.plan.output_schema,
                passages=self.question.passages if self.question else None,
            ),
            Validated,
            f"edit by {decision.actor}",
        )
        if not checked.ok or checked.content is None:
            found = "; ".join(f"{violation.path or 'text'}: {violation.message}" for violation in checked.violations)
            raise _invalid(f"The edited text is not valid: {found}")
        return checked.content

    async def _checked_call(self, decision: Decision, vet: VetInput) -> tuple[ContentRef, PlannedCall]:
        asked = self.edited_call or vet.call
        vetted = await steps.local(
            Step.VET,
            vet.model_copy(
                update={
                    "call": asked,
                    "edited": decision.payload,
                    "edited_text": decision.payload_text if decision.payload is None else None,
                }
            ),
            Vetted,
            f"edit by {decision.actor}",
            takes=steps.LONG,
        )
        call = vetted.calls[0] if len(vetted.calls) == 1 else None
        if call is None or asked is None or call.problem or call.shown is None:
            raise _invalid(f"The edited arguments are not valid: {call.problem if call else 'no call came of them'}")
        if call.rule is not None and not _same_people(call.rule, asked.rule):
            raise _invalid(
                "With the edited arguments the call is under another rule, and other people have to agree: "
                f"{', '.join(call.rule.approvers)}. Reject it with this reason, so that the model asks for that call."
            )
        return call.shown, call

    def _take(self, taken: tuple[approval.ApprovalState, tuple[approval.ApprovalCommand, ...]]) -> None:
        known = len(self._open_state().receipts)
        self._state, commands = taken
        for receipt in self._state.receipts[known:]:
            self._keep(receipt)
            missing = f", {receipt.missing} more to approve" if receipt.missing else ""
            if receipt.decision is not DecisionKind.ESCALATE:
                self._tell(
                    EventKind.DECISION_ACCEPTED,
                    Step.APPROVE,
                    f"{receipt.decision.value} by {receipt.actor}, content {receipt.content_sha256[:12]}{missing}",
                )
        for command in commands:
            if isinstance(command, approval.Happened):
                self.untold = (*self.untold, Untold(self._state.approval, command))
                self._tell_of(command, self._state.approval)

    def _tell_of(self, happened: approval.Happened, question: Approval) -> None:
        people, deadline = ", ".join(question.approvers), f"{question.deadline:%Y-%m-%d %H:%M} UTC"
        if happened.happening == "escalated":
            cause = f"by {happened.actor}" if happened.actor else str(happened.reason)
            self._tell(EventKind.APPROVAL_ESCALATED, Step.APPROVE, f"to {people} until {deadline}, {cause}")
        elif happened.happening == "reminded":
            self._tell(EventKind.APPROVAL_REMINDED, Step.APPROVE, f"{people}: {deadline} is the deadline")

    def _resume(self, question: Approval) -> approval.ApprovalState:
        before = self._asked_before(question.round)
        return approval.ApprovalState(question, self._request.deadline_at, asked_before=frozenset(before))

    def _asked_before(self, round_number: int) -> list[str]:
        return [receipt.content_sha256 for receipt in self._settled if receipt.round != round_number]

    def _already_settled(self, decision: Decision) -> DecisionRefused | None:
        """Better than that nothing, or something else, waits: what was decided on the content that is meant."""
        waits = self.question.content.sha256 if self.question else None
        for receipt in reversed(self._settled):
            if receipt.final and receipt.content_sha256 == decision.content_sha256 != waits:
                return DecisionRefused(
                    f"{receipt.actor!r} already decided {receipt.decision.value!r} on this content at "
                    f"{receipt.decided_at:%Y-%m-%d %H:%M:%S} UTC; a decision is final.",
                    code="already_decided",
                )
        return None

    @property
    def _receipts(self) -> tuple[DecisionReceipt, ...]:
        """Every decision of the request so far, in order."""
        return (*self._settled, *(self._state.receipts if self._state else ()))

    def _open_state(self) -> approval.ApprovalState:
        if self._state is None:
            raise ValueError("Nothing is asked.")
        return self._state


def _holds_nul(decision: Decision) -> bool:
    """Whether the ledger could not hold a decision, and with it not that the request has ended."""
    return any("\0" in text for text in (decision.actor, decision.reason or "", *decision.roles))


def _same_people(one: ApprovalRule, other: ApprovalRule | None) -> bool:
    """Whether two rules ask alike, whatever sentence they give as the reason."""
    return other is not None and one.model_copy(update={"why": ""}) == other.model_copy(update={"why": ""})


def _invalid(message: str) -> ApplicationError:
    return _refused(DecisionRefused(message, code="invalid_edit"))


def _refused(problem: DecisionRefused) -> ApplicationError:
    return ApplicationError(
        str(problem),
        problem.code,
        type=DecisionRefused.__name__,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )
