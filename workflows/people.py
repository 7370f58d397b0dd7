"""The part of a run that waits for people: on an answer, on a call of a tool, or on going past a budget.

An update and a signal hand decisions to the same desk; what a decision means is in `holdfast.approval`.
"""

import asyncio
import builtins
import json
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

with workflow.unsafe.imports_passed_through():
    from holdfast import approval, loop
    from holdfast.contracts import (
        Approval,
        ContentRef,
        Decision,
        DecisionReceipt,
        EventKind,
        Extended,
        ExtendInput,
        PlannedCall,
        Run,
        Status,
        Step,
        Validated,
        ValidateInput,
        VetInput,
    )
    from workflows import attributes, steps
    from workflows.approval_desk import Question, Untold
    from workflows.noting import NOTES_SINCE, Noting


class People(Noting):
    """Asks, waits, and takes decisions."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._published: Approval | None = None
        """The question as the search attributes and the memo show it."""
        self._writing = False
        """Whether notes are being made beside the waiting."""
        self._writer: asyncio.Task[None] | None = None

    async def _ask(self, content: ContentRef) -> loop.LoopTick:
        """Ask whether the answer may leave."""
        self._keep(content=content)
        return answer_tick(await self._decision_on(self._about_output(content)))

    async def _ask_about_call(self, call: PlannedCall) -> loop.LoopTick:
        """Ask whether a tool may be called; people may change its arguments."""
        toolbox, equipped = self._request.plan.toolbox, self._state.equipped
        if call.rule is None or call.shown is None or toolbox is None or equipped is None:
            raise ValueError(f"People are to be asked about call {call.key}, but nothing says whom, or about what.")
        rule = call.rule
        if rule.default == "approve" and call.side_effects and self._loop.holds_back:
            # Nobody's silence agrees to what a text from outside may have asked for.
            rule = rule.model_copy(update={"default": "reject"})
        question = Question(
            call.shown,
            rule,
            "tool",
            subject=call.name,
            why=call.why,
            asked=self._state.masked,
            transcript=self._state.transcript,
        )
        vet = VetInput(
            tenant=self._request.tenant,
            request_id=self._request.id,
            turn=int(call.key.split(".")[0]),
            catalog=equipped.catalog,
            toolbox=toolbox,
            call=call,
            tainted=not self._loop.conditions_hold,
            run_tainted=bool(self._loop.untrusted),
            spent=self._spent,
        )
        verdict = await self._decision_on(question, vet)
        desk, self._desk = self._desk, self._desk.next()
        match verdict:
            case approval.Release():
                if desk.question is not None:
                    self._keep(agreed={**self._state.agreed, call.key: desk.question})
                return loop.CallReleased(desk.edited_call or call)
            case approval.Withhold(by=approval.NOBODY, reason=reason):
                return loop.CallWithheld(call.key, reason)
            case approval.Withhold(by=by, reason=reason):
                return loop.CallWithheld(call.key, f"{by}: {reason}")
        return loop.DeadlinePassed()

    async def _ask_for_budget(self, reason: str) -> loop.LoopTick:
        """Ask whether the request may go past a budget; what is shown to the approvers says how far."""
        request, rule = self._request, self._request.plan.budget_approval
        if rule is None:
            raise ValueError("The loop asked for a decision on a budget, but the agent has no rule for it.")
        shown = await steps.local(
            Step.VALIDATE,
            ValidateInput(tenant=request.tenant, text=f"May this request go past a budget? {reason}"),
            Validated,
            "the question about the budget",
            self._remaining(),
        )
        if shown.content is None:
            raise ValueError("The question about the budget was not stored.")
        verdict = await self._decision_on(
            Question(
                shown.content,
                rule,
                "budget",
                why="a budget is used up",
                asked=self._state.masked,
                transcript=self._state.transcript,
            )
        )
        return await self._after_budget(verdict, reason)

    async def _after_budget(self, verdict: approval.Verdict, reason: str) -> loop.LoopTick:
        """Carry out what was decided on going past a budget."""
        request = self._request
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

    async def _decision_on(self, question: Question, vet: VetInput | None = None) -> approval.Verdict:
        """Wait until people, or the rule's default, have decided, or the request's own deadline came first."""
        fresh = self._desk.question is None
        opened = self._open(question, vet)
        if fresh:
            await self._note(opened, "opened")
        await self._desk.take_early()
        while self._desk.verdict is None:
            self._show_change()
            left = self._desk.time_left()
            if left <= timedelta(0):
                self._desk.pass_time()
                continue
            try:
                await workflow.wait_condition(
                    lambda: (
                        self._desk.verdict is not None
                        or self._desk.question != self._published
                        or workflow.info().is_continue_as_new_suggested()
                    ),
                    timeout=left,
                    timeout_summary="approval deadline",
                )
            except builtins.TimeoutError:
                continue
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(lambda: not self._writing)
                await self._start_over_if_long()
        verdict = self._desk.verdict
        if not isinstance(verdict, approval.Lapse):
            self._status = Status.RUNNING
            workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.RUNNING)])
            if self._request.walk < NOTES_SINCE:
                await self._sleep_on_it()
        await workflow.wait_condition(lambda: not self._writing)
        await self._note_all(self._desk.untold)
        return verdict

    def _about_output(self, content: ContentRef) -> Question:
        rule = self._request.plan.approval
        if rule is None:
            raise ValueError("The loop asked for a decision on output, but the agent has no rule for it.")
        state = self._state
        return Question(
            content,
            rule,
            "output",
            state.passages,
            why=self._why,
            asked=state.masked,
            transcript=state.transcript,
        )

    def _open(self, question: Question, vet: VetInput | None = None) -> Approval:
        opened = self._desk.open(question, vet)
        self._status = Status.WAITING
        self._publish_question(opened, attributes.STATUS.value_set(Status.WAITING))
        self._tell(
            EventKind.APPROVAL_OPENED,
            Step.APPROVE,
            f"waiting for {', '.join(opened.approvers)} until {opened.deadline:%Y-%m-%d %H:%M} UTC, "
            f"content {opened.content.sha256[:12]}",
        )
        return opened

    def _show_change(self) -> None:
        """Something happened that settles nothing: show how the question stands now, and have it noted."""
        question = self._desk.question
        if question is not None and question != self._published:
            self._publish_question(question)
        if self._desk.untold and not self._writing:
            self._writing = True
            self._writer = asyncio.create_task(self._note_in_order())

    async def _stop_asking(self, reason: str) -> None:
        """Take no more decisions, and note of a question that is still open that it ends without one."""
        self._desk.close()
        await workflow.wait_condition(lambda: not self._writing)
        await self._note_all(self._desk.untold)
        if self._desk.question is not None and self._desk.verdict is None:
            await self._note(self._desk.question, "closed", reason=reason)

    async def _close_question(self) -> loop.LoopTick | None:
        """The run asked about a budget before it started over, and is about to see whether it has room by now.

        What was decided until now is carried out; a question that nobody has answered is withdrawn.

        Returns:
            That the request may not go past the budget, if somebody has decided so.
        """
        decided, noted = self._desk.verdict is not None, self._request.walk >= NOTES_SINCE
        if self._desk.question is None or (decided and not noted):  # older walks carry it out when they ask again
            return None
        await self._stop_asking("the run began anew and looks again whether the budget has room")
        self._status = Status.RUNNING
        if noted:
            workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.RUNNING)])
        if (verdict := self._desk.verdict) is None:
            self._desk = self._desk.next()
            return None
        tick = await self._after_budget(verdict, self._loop.denial)
        return None if isinstance(tick, loop.BudgetExtended) else tick

    def _publish_question(self, question: Approval, *more: SearchAttributeUpdate[Any]) -> None:
        self._published = question
        workflow.upsert_search_attributes(
            [
                *more,
                attributes.APPROVERS.value_set(list(question.approvers)),
                attributes.APPROVAL_DEADLINE.value_set(question.deadline),
            ]
        )
        workflow.upsert_memo({"approval": question})

    async def _sleep_on_it(self) -> None:
        """End the task, in walks that make no notes: a decision is in the history only once its task has ended."""
        await workflow.sleep(timedelta(milliseconds=1), summary="the decision is on record")

    async def _note_in_order(self) -> None:
        """Note what happens to a question that stays open, beside the waiting, so that no decision waits for a note."""
        try:
            while some := self._desk.untold:
                if self._request.walk < NOTES_SINCE:
                    await self._sleep_on_it()
                await self._note_all(some)
        finally:
            self._writing = False

    async def _note_all(self, some: tuple[Untold, ...]) -> None:
        """Note what happened, in order.

        The first note begins only once all of it is in the history. So a decision whose note is made cannot be lost any
        more, whatever dies, and nothing acts on it before.
        """
        for number, (question, happened) in enumerate(some):
            # Taken off before it is noted: a note is made even if the run is cancelled meanwhile.
            self._desk.untold = self._desk.untold[1:]
            await self._note(
                question,
                happened.happening,
                actor=happened.actor,
                reason=happened.reason,
                content=happened.content,
                at=happened.at,
                recorded=number == 0,
            )

    @workflow.update(name="decide")
    async def decide(self, decision: Decision) -> DecisionReceipt:
        """Approve, edit, reject or escalate what waits."""
        return await self._desk.take(decision, _update_id())

    @decide.validator
    def _may_decide(self, decision: Decision) -> None:
        # Refused here, a decision leaves no trace in the history.
        self._desk.check(decision, _update_id())

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
        except (ValueError, TypeError, RecursionError):
            count = len(given)
            self._desk.refuse_signal(
                f"a decision is one argument, not {count}" if count != 1 else "a decision is JSON, and not bytes"
            )
        else:
            await self._desk.take_signal(decision)


def answer_tick(verdict: approval.Verdict) -> loop.LoopTick:
    """What a verdict on the answer means to the loop."""
    match verdict:
        case approval.Release(content=released):
            return loop.Approved(released)
        case approval.Withhold(by=by, reason=reason):
            return loop.Rejected(f"Rejected by {by}: {reason}")
    return loop.DeadlinePassed()


def _update_id() -> str:
    """The id under which the engine knows the update that is being handled."""
    update = workflow.current_update_info()
    return update.id if update is not None else ""
