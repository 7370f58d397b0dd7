"""The desk where a request waits for people: asks the pure core, checks edits, remembers what was decided.

An update and a signal both end here, so a decision means the same whichever way it came.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from holdfast import approval
from holdfast.contracts import (
    Approval,
    ContentRef,
    Decision,
    DecisionKind,
    DecisionReceipt,
    EventKind,
    Request,
    Step,
    Validated,
    ValidateInput,
)
from holdfast.errors import DecisionRefused
from workflows import steps

Kind = Literal["output", "budget"]

MAX_EARLY = 20
"""Decisions kept that came by signal before the question was asked."""
MAX_EARLY_CHARACTERS = 100_000
"""Length of their texts together: a run that starts over carries them, and an engine's payload has 2 MB."""


class ApprovalDesk:
    """One request's approval.

    Args:
        request: Names the rule.
        tell: Writes a line on the run sheet.
        question: An approval that an earlier run had opened; its deadline stands.
        early: Decisions that came before the question.
        rounds: Questions that this request has asked before.
    """

    def __init__(
        self,
        request: Request,
        tell: Callable[[EventKind, str, str], None],
        question: Approval | None,
        early: tuple[Decision, ...],
        rounds: int = 0,
    ) -> None:
        self._request = request
        self._tell = tell
        self._state = approval.ApprovalState(question) if question else None
        self.early = early
        self.verdict: approval.ApprovalCommand | None = None
        self._closed = False
        self._rounds = rounds

    @property
    def question(self) -> Approval | None:
        """What is asked, once it is."""
        return self._state.approval if self._state else None

    @property
    def receipt(self) -> DecisionReceipt | None:
        """The decision, once taken."""
        return self._state.receipt if self._state else None

    def open(self, content: ContentRef, passages: ContentRef | None, kind: Kind = "output") -> Approval:
        """Ask whether the content may leave, or whether the request may go past a budget as the content says.

        A question that is already open stays as it is.
        """
        if self._state is None:
            plan = self._request.plan
            rule = plan.approval if kind == "output" else plan.budget_approval
            if rule is None:
                raise ValueError(f"The loop asked for a decision on {kind}, but the agent has no rule for it.")
            now = workflow.now()
            self._state = approval.ApprovalState(
                Approval(
                    request_id=self._request.id,
                    content=content,
                    passages=passages,
                    rule=rule,
                    requested_by=self._request.user,
                    opened_at=now,
                    deadline=min(now + rule.within, self._request.deadline_at),
                    kind=kind,
                    round=self._rounds + 1,
                )
            )
        return self._state.approval

    def time_left(self) -> timedelta:
        """Until the question closes."""
        if self._state is None:
            raise ValueError("Nothing is asked.")
        return self._state.approval.deadline - workflow.now()

    def lapse(self) -> None:
        """The deadline passed: the rule's default is the verdict."""
        if self._state is None:
            raise ValueError("Nothing is asked.")
        self._settle(approval.step(self._state, approval.DeadlinePassed(workflow.now())))

    def next(self) -> "ApprovalDesk":
        """The desk for the next question of the same request; decisions that came early wait for it."""
        return ApprovalDesk(self._request, self._tell, None, self.early, self._rounds + 1)

    def close(self) -> None:
        """Take nothing more: the request is being cancelled, and a decision accepted now would not be carried out."""
        self._closed = True

    def check(self, decision: Decision) -> None:
        """Refuse what may not be decided; changes nothing.

        Raises:
            ApplicationError: Of type `DecisionRefused`, its first detail the code.
        """
        if problem := approval.refusal(None if self._closed else self._state, decision, workflow.now()):
            raise _refused(problem)

    async def take(self, decision: Decision) -> DecisionReceipt:
        """Take a decision; the new text of an edit is validated first.

        Raises:
            ApplicationError: As for `check`.
        """
        self.check(decision)
        edited = await self._checked_edit(decision) if decision.decision is DecisionKind.EDIT else None
        # While an edit was being checked somebody else may have decided, or the request may have been cancelled.
        self.check(decision)
        if self._state is None:
            raise ValueError("An approval that was open a moment ago is gone.")
        try:
            return self._settle(approval.step(self._state, approval.Decided(decision, workflow.now(), edited)))
        except DecisionRefused as problem:
            raise _refused(problem) from None

    async def take_signal(self, decision: Decision) -> None:
        """Take a decision whose sender hears nothing back; an early one is kept, a refusal goes on the run sheet."""
        if self._state is None:
            if sum(len(kept.payload_text or "") for kept in (*self.early, decision)) > MAX_EARLY_CHARACTERS:
                self.refuse_signal(f"{decision.actor}: nothing waits yet, and the text is too long to keep")
                return
            self.early = (*self.early, decision)[:MAX_EARLY]
            return
        try:
            await self.take(decision)
        except ApplicationError as error:
            self.refuse_signal(f"{decision.actor}: {error.message}")

    def refuse_signal(self, reason: str) -> None:
        """Tell why a signal was not taken; the only place its sender can look is the run sheet."""
        self._tell(EventKind.DECISION_REFUSED, Step.APPROVE, reason)

    async def take_early(self) -> None:
        """Take the decisions that came before the question, in their order."""
        question = self.question
        early, self.early = self.early, ()
        if question is not None and question.kind == "budget":
            # What was said about another content is kept for the question that will ask about it.
            self.early = tuple(said for said in early if said.content_sha256 != question.content.sha256)
            early = tuple(said for said in early if said not in self.early)
        for decision in early:
            await self.take_signal(decision)

    async def _checked_edit(self, decision: Decision) -> ContentRef:
        try:
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
        except steps.StepFailure as error:
            problem = DecisionRefused(f"The edit could not be checked: {error.reason}", code="invalid_edit")
            raise _refused(problem) from None
        if not checked.ok or checked.content is None:
            found = "; ".join(f"{violation.path or 'text'}: {violation.message}" for violation in checked.violations)
            raise _refused(DecisionRefused(f"The edited text is not valid: {found}", code="invalid_edit"))
        return checked.content

    def _settle(self, taken: tuple[approval.ApprovalState, tuple[approval.ApprovalCommand, ...]]) -> DecisionReceipt:
        self._state, commands = taken
        receipt = self._state.receipt
        if receipt is None:
            raise ValueError("A decision without a receipt.")
        (self.verdict,) = commands
        self._tell(
            EventKind.DECISION_ACCEPTED,
            Step.APPROVE,
            f"{receipt.decision.value} by {receipt.actor}, content {receipt.content_sha256[:12]}",
        )
        return receipt


def _refused(problem: DecisionRefused) -> ApplicationError:
    return ApplicationError(
        str(problem),
        problem.code,
        type=DecisionRefused.__name__,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )
