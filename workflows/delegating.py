"""The part of a run that gives work to other agents: each delegate is a request of its own, run as a child of this one.

A delegate gets a part of the budget and of the time that are left, carved out before it starts; cancelling this run
cancels it. It never fails this run: whatever becomes of it is a result for the model.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    TimeoutError,
    WorkflowAlreadyStartedError,
)

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import budget
    from holdfast.contracts import (
        Answer,
        Briefed,
        BriefInput,
        Delegated,
        EventKind,
        Limits,
        Origin,
        PlannedCall,
        Request,
        Run,
        Status,
        Step,
        ToolReturned,
        Usage,
    )
    from holdfast.errors import LimitExceeded
    from workflows import attributes
    from workflows.people import People
    from workflows.run_sheet import money

GRACE = timedelta(hours=1)
"""Time the engine leaves a delegate's run beyond its own deadline, to end by itself and say why."""


class Delegating(People):
    """Asks delegates, and keeps the accounts of what they spend."""

    def _part_for_each(self, delegates: int) -> Limits | LimitExceeded:
        """What each of the delegates that start together may spend, or why there is nothing to give away."""
        try:
            return budget.carve(self._request.limits, self._spent, max(delegates, 1), self._remaining())
        except LimitExceeded as error:
            return error

    async def _delegate(self, call: PlannedCall, part: Limits | LimitExceeded) -> ToolReturned:
        """Have another agent do a piece of the work.

        Args:
            call: Which agent, and what it is to do.
            part: What it may spend.
        """
        if isinstance(part, LimitExceeded):
            return not_made(call, f"Agent {call.agent!r} was not asked. {part}", "no budget left for it")
        try:
            briefed = await steps.local(
                Step.BRIEF,
                BriefInput(parent=self._request, call=call, limits=part, tainted=self._passed_on),
                Briefed,
                call.agent,
                self._remaining(),
            )
        except steps.StepFailure as error:
            return not_made(call, f"Agent {call.agent!r} could not be asked.", error.reason)
        if briefed.request is None:
            return not_made(call, briefed.problem, "not asked")
        return await self._answer_as_result(call, briefed.request)

    async def _answer_as_result(self, call: PlannedCall, child: Request) -> ToolReturned:
        """Run the delegate's request; whatever way it ends, what it spent is on this run's account."""
        self._account_for(call, child, Answer(request_id=child.id, status=Status.RUNNING))
        self._tell(EventKind.TOOL_STARTED, call.name, f"{call.key}: delegated to {child.plan.agent}, {child.id}")
        try:
            answer = await _answer_of(child, self._request)
        except BaseException:
            # Cancelled before the engine told whether the child began.
            self._account_for(call, child, _unknown(child, Status.CANCELLED, ""))
            raise
        self._account_for(call, child, answer)
        told = f"{answer.status}, {answer.usage.total_tokens} tokens, {money(answer.usage)}"
        if answer.status is Status.COMPLETED and answer.document is not None:
            return ToolReturned(
                key=call.key,
                id=call.id,
                name=call.name,
                ok=True,
                result=answer.document,
                summary=told,
                tainting="delegates" if answer.tainted else None,
                delegate=child.id,
                usage=answer.usage,
            )
        problem = f"Agent {child.plan.agent!r} gave no answer, its request is {answer.status}. {answer.reason or ''}"
        returned = not_made(call, problem.strip(), told, delegate=child.id, usage=answer.usage)
        # Why there is no answer may be told in words that came from outside.
        return returned.model_copy(update={"tainting": "delegates"}) if answer.tainted else returned

    @property
    def _passed_on(self) -> tuple[Origin, ...]:
        """The taint of a delegate's task: what this run may not trust, a delegate's own trust does not admit either."""
        tainted = self._loop.tainted
        return tuple(dict.fromkeys((*tainted, "delegates"))) if self._loop.untrusted else tainted

    def _account_for(self, call: PlannedCall, child: Request, answer: Answer) -> None:
        """Put down how a delegate stands; what it spent counts once, when it has ended."""
        over = answer.status.is_final
        entry = Delegated(
            request_id=child.id,
            agent=child.plan.agent,
            key=call.key,
            ok=answer.status is Status.COMPLETED if over else None,
            status=answer.status.value,
            usage=answer.usage if over else Usage(),
        )
        known = {delegate.request_id: delegate for delegate in self._state.delegates} | {child.id: entry}
        lines = tuple(
            line.model_copy(update={"delegate": child.id}) if line.key == call.key else line
            for line in self._state.lines
        )
        self._keep(delegates=tuple(known.values()), lines=lines)
        if over:
            self._keep(
                delegated=self._state.delegated + answer.usage,
                delegated_decisions=(*self._state.delegated_decisions, *answer.decisions),
            )


async def _answer_of(child: Request, parent: Request) -> Answer:
    """Run a delegate's request to its end; a run that ends without an answer has spent its whole part, as far as known.

    Raises:
        CancelledError: This run was cancelled before the child's had begun.
    """
    try:
        answer: Answer = await workflow.execute_child_workflow(
            "RequestWorkflow",
            Run(request=child),
            id=child.id,
            result_type=Answer,
            parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
            cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            execution_timeout=child.limits.deadline + GRACE,
            task_timeout=workflow.info().task_timeout,
            memo=attributes.pinned(child),
            search_attributes=attributes.found_by(child),
            static_summary=f"{child.plan.agent}: request of {child.user}, delegated by {parent.plan.agent}",
            static_details=f"- delegated by `{parent.id}`, depth {child.depth}",
            priority=steps.priority(child),
        )
    except WorkflowAlreadyStartedError:
        # An operator reset this run to a point before the call: the delegate that it started then is not asked twice.
        return _unknown(child, Status.FAILED, "It was asked before this run was reset.")
    except ChildWorkflowError as error:
        return _ending(child, error.cause)
    return answer


def _ending(child: Request, cause: BaseException | None) -> Answer:
    match cause:
        case ApplicationError(type="RequestFailed", details=[answer, *_]):
            return Answer.model_validate(answer)
        case TimeoutError():
            return _unknown(child, Status.EXPIRED, "The engine ended its run, whose deadline had passed.")
        case CancelledError():
            return _unknown(child, Status.CANCELLED, "It was cancelled.")
        case TerminatedError():
            return _unknown(child, Status.CANCELLED, "An operator of the engine ended its run.")
        case _:
            return _unknown(child, Status.FAILED, "Its run failed; its trace says where.")


def _unknown(child: Request, status: Status, reason: str) -> Answer:
    """An ending that does not tell what was spent: the whole part, because less would be a guess."""
    limits = child.limits
    usage = Usage(input_tokens=limits.tokens, cost_usd=limits.cost_usd)
    return Answer(request_id=child.id, status=status, reason=reason, usage=usage)


def not_made(
    call: PlannedCall, problem: str, summary: str, *, delegate: str = "", usage: Usage | None = None
) -> ToolReturned:
    """A call without a result.

    Args:
        call: Which.
        problem: Why, for the model.
        summary: Why, in one line for people.
        delegate: Request id of the delegate, if one was asked.
        usage: What it spent.
    """
    return ToolReturned(
        key=call.key,
        id=call.id,
        name=call.name,
        ok=False,
        problem=problem,
        summary=summary,
        delegate=delegate,
        usage=usage or Usage(),
    )
