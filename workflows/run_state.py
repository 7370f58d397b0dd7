"""What every part of a request's run works on: its state, its run sheet, and starting over with a short history."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from holdfast import loop
    from holdfast.contracts import Carried, EventKind, Progress, Routed, Run, SpendScopes, Status, Step
    from workflows.approval_desk import ApprovalDesk
    from workflows.run_sheet import RunSheet


class RunState:
    """State is set when the object is made, because a decision may arrive before the first line of the run.

    Args:
        run: The request, and what an earlier run of it carried over.
    """

    def __init__(self, run: Run) -> None:
        request, carried = run.request, run.carried or Carried(masked=run.request.input)
        self._request = request
        self._resumed = run.carried is not None
        self._loop = loop.LoopState(
            request.plan.deployments,
            request.limits.repairs,
            request.limits.attempts,
            asks=request.plan.approval is not None,
            fallbacks=request.plan.fallbacks,
            escalation=request.plan.escalation,
            rests=request.walk > 1,
            may_extend=request.plan.budget_approval is not None,
            excluded=carried.excluded,
            resting=carried.resting,
            cause=carried.cause,
            answered_by=carried.deployment,
            turn=carried.turn,
            calls=carried.calls,
            repairs=carried.repairs,
            mending=carried.mending or (request.walk == 1 and carried.turn > 1),
            waits=carried.waits,
            best=carried.best,
            best_deployment=carried.best_deployment,
            output=carried.output,
            finish_reason=carried.finish_reason,
            violations=carried.violations,
            content=carried.content,
        )
        self._state = carried
        """What a successor run would need; replaced, never changed, as the walk goes on."""
        self._desk = ApprovalDesk(request, self._tell, carried.approval, carried.early)
        self._route: Routed | None = None
        self._last_call = ""
        self._confidence: float | None = None
        self._status = Status.WAITING if carried.approval else Status.RUNNING
        self._sheet = RunSheet(request, told=carried.events)

    async def _start_over_if_long(self, calls: int | None = None) -> None:
        """Continue as new once the engine suggests it, with every handler finished and every decision kept."""
        if not workflow.info().is_continue_as_new_suggested():
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._desk.verdict is not None:
            return
        state = self._loop
        self._keep(
            approval=self._desk.question,
            early=self._desk.early,
            excluded=state.excluded,
            resting=state.resting,
            cause=state.cause,
            deployment=state.answered_by,
            turn=state.turn,
            calls=state.calls if calls is None else calls,
            repairs=state.repairs,
            mending=state.mending,
            waits=state.waits,
            best=state.best,
            best_deployment=state.best_deployment,
            output=state.output,
            finish_reason=state.finish_reason,
            violations=state.violations,
            events=self._sheet.told,
        )
        # The engine carries search attributes over by itself, the memo it drops.
        workflow.continue_as_new(Run(request=self._request, carried=self._state), memo=workflow.memo())

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the request stands."""
        return Progress(
            request_id=self._request.id,
            status=self._status,
            step=self._sheet.step,
            approval=self._desk.question if self._status is Status.WAITING else None,
            spent=self._state.spent,
            attempts=self._state.attempts,
            events=tuple(self._sheet.events),
        )

    @property
    def _scopes(self) -> SpendScopes:
        request = self._request
        return SpendScopes(tenant=request.tenant, user=request.user, session=request.session)

    @property
    def _recallable(self) -> bool:
        """Whether the question alone identifies the answer, and holds nobody's personal data."""
        return self._request.plan.recall and not self._state.private and self._request.conversation is None

    def _remaining(self) -> timedelta:
        return self._request.deadline_at - workflow.now()

    def _keep(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def _done(self, step: Step, summary: str) -> None:
        self._tell(EventKind.STEP_FINISHED, step, summary)

    def _tell(self, kind: EventKind, name: str, summary: str) -> None:
        self._sheet.tell(kind, str(name), summary, workflow.now())
        workflow.set_current_details(self._sheet.markdown(self._status, self._state.spent, self._state.attempts))
