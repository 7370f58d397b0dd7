"""The part of a run that waits for people: on an answer, or on going past a budget.

An update and a signal hand decisions to the same desk; what a decision means is in `holdfast.approval`.
"""

import builtins
import json
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from holdfast import approval, loop
    from holdfast.contracts import (
        ContentRef,
        Decision,
        DecisionReceipt,
        EventKind,
        Extended,
        ExtendInput,
        Status,
        Step,
        Validated,
        ValidateInput,
    )
    from workflows import attributes, steps
    from workflows.approval_desk import Kind
    from workflows.run_state import RunState


class People(RunState):
    """Asks, waits, and takes decisions."""

    async def _ask(self, content: ContentRef) -> loop.LoopTick:
        self._keep(content=content)
        match await self._decision_on(content, "output"):
            case approval.Release(content=released):
                return loop.Approved(released)
            case approval.Withhold(by=by, reason=reason):
                return loop.Rejected(f"Rejected by {by}: {reason}")
        return loop.DeadlinePassed()

    async def _ask_for_budget(self, reason: str) -> loop.LoopTick:
        """Ask whether the request may go past a budget; what is shown to the approvers says how far."""
        request = self._request
        shown = await steps.local(
            Step.VALIDATE,
            ValidateInput(tenant=request.tenant, text=f"May this request go past a budget? {reason}"),
            Validated,
            "the question about the budget",
            self._remaining(),
        )
        if shown.content is None:
            raise ValueError("The question about the budget was not stored.")
        verdict = await self._decision_on(shown.content, "budget")
        number, self._desk = self._desk.question.round if self._desk.question else 1, self._desk.next()
        match verdict:
            case approval.Release(by=by):
                await steps.local(
                    Step.EXTEND,
                    ExtendInput(
                        request_id=request.id,
                        scopes=self._scopes,
                        tokens=request.limits.tokens,
                        cost_usd=request.limits.cost_usd,
                        by=by,
                        approval=f"{request.id}.{number}",
                    ),
                    Extended,
                    f"released by {by}",
                    self._remaining(),
                )
                self._done(Step.EXTEND, f"{by} let the request go past its budgets, up to its own limits")
                return loop.BudgetExtended()
            case approval.Withhold(by=by, reason=why):
                return loop.BudgetKept(f"{reason} {by} did not let the request go past it: {why}")
        return loop.DeadlinePassed()

    async def _decision_on(self, content: ContentRef, kind: Kind) -> approval.ApprovalCommand | None:
        """Wait until people, or the rule's default, have decided; `None` when the request's own deadline came first."""
        self._open(content, kind)
        await self._desk.take_early()
        while self._desk.verdict is None:
            left = self._desk.time_left()
            if left <= timedelta(0):
                if self._remaining() <= timedelta(0):
                    return None
                self._desk.lapse()
                break
            try:
                await workflow.wait_condition(
                    lambda: self._desk.verdict is not None or workflow.info().is_continue_as_new_suggested(),
                    timeout=left,
                    timeout_summary="approval deadline",
                )
            except builtins.TimeoutError:
                continue
            await self._start_over_if_long()
        self._status = Status.RUNNING
        workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.RUNNING)])
        # An update is in the history only once its workflow task is: end the task before anything acts on the decision.
        await workflow.sleep(timedelta(milliseconds=1), summary="the decision is on record")
        return self._desk.verdict

    def _open(self, content: ContentRef, kind: Kind) -> None:
        question = self._desk.open(content, self._state.passages if kind == "output" else None, kind)
        self._status = Status.WAITING
        workflow.upsert_search_attributes(
            [
                attributes.STATUS.value_set(Status.WAITING),
                attributes.APPROVERS.value_set(list(question.rule.approvers)),
                attributes.APPROVAL_DEADLINE.value_set(question.deadline),
            ]
        )
        workflow.upsert_memo({"approval": question})
        self._tell(
            EventKind.APPROVAL_OPENED,
            Step.APPROVE,
            f"waiting for {', '.join(question.rule.approvers)} until {question.deadline:%Y-%m-%d %H:%M} UTC, "
            f"content {content.sha256[:12]}",
        )

    @workflow.update(name="decide")
    async def decide(self, decision: Decision) -> DecisionReceipt:
        """Approve, edit or reject what waits."""
        return await self._desk.take(decision)

    @decide.validator
    def _may_decide(self, decision: Decision) -> None:
        # Refused here, a decision leaves no trace in the history.
        self._desk.check(decision)

    @workflow.signal(name="decide")
    async def decide_by_signal(self, *given: Any) -> None:
        """The same, for `temporal workflow signal` and the Web UI; a refusal is told in the run sheet."""
        # Typed by hand, so read here: what the engine cannot read it drops in silence, and a missing or a second
        # argument would be a fault of this code, which ends the run.
        try:
            (decision,) = given
            decision = Decision.model_validate_json(json.dumps(decision))
        except ValidationError as error:
            self._desk.refuse_signal(
                "; ".join(
                    f"`{'.'.join(str(part) for part in problem['loc']) or 'decision'}`: {problem['msg']}"
                    for problem in error.errors(include_input=False, include_url=False)
                )
            )
        except ValueError:
            self._desk.refuse_signal(f"a decision is one argument, not {len(given)}")
        else:
            await self._desk.take_signal(decision)
