"""What every part of a request's run works on: its state, its run sheet, and starting over with a short history."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from holdfast import loop
    from holdfast.contracts import (
        Carried,
        DecisionReceipt,
        EventKind,
        Progress,
        Routed,
        Run,
        SpendScopes,
        Status,
        Step,
        Usage,
    )
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
        self._resumed = self._sanitized = run.carried is not None
        self._loop = loop.resume(request, carried)
        self._command: loop.LoopCommand = loop.ChooseDeployment((), ())
        """What the loop commanded last; a run that starts over has not carried it out."""
        self._state = carried
        """What a successor run would need; replaced, never changed, as the walk goes on."""
        self._desk = ApprovalDesk(request, self._tell, self._take_note_of, carried)
        self._route: Routed | None = None
        self._last_call = ""
        self._confidence: float | None = None
        self._why = ""
        """Why people are asked about the answer, if that depends on it."""
        self._status = Status.WAITING if carried.approval else Status.RUNNING
        self._sheet = RunSheet(request, told=carried.events)

    async def _start_over_if_long(self) -> None:
        """Continue as new once the engine suggests it, with every handler finished and every decision kept."""
        if not workflow.info().is_continue_as_new_suggested():
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._desk.verdict is not None or self._desk.untold:
            return
        self._keep(**self._desk.carried(), events=self._sheet.told)
        carried = loop.carry(self._loop, self._command, self._state)
        # The engine carries search attributes over by itself, the memo it drops.
        workflow.continue_as_new(Run(request=self._request, carried=carried), memo=workflow.memo())

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the request stands."""
        state = self._state
        return Progress(
            request_id=self._request.id,
            status=self._status,
            step=self._sheet.step,
            approval=self._desk.question if self._status is Status.WAITING else None,
            spent=self._spent,
            attempts=state.attempts,
            events=tuple(self._sheet.events),
            iterations=self._loop.iterations,
            tool_calls=self._loop.tool_calls,
            tools=state.lines,
            delegates=state.delegates,
            decisions=self._decisions,
            tainted=self._loop.tainted,
            catalog=state.equipped.catalog.sha256 if state.equipped else "",
            asked=state.masked if self._sanitized else None,
        )

    @property
    def _decisions(self) -> tuple[DecisionReceipt, ...]:
        """What people decided on this request and on those of its delegates."""
        return (*self._state.decisions, *self._state.delegated_decisions)

    @property
    def _spent(self) -> Usage:
        """By the request so far, its delegates included."""
        return self._state.spent + self._state.delegated

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

    def _take_note_of(self, receipt: DecisionReceipt) -> None:
        self._keep(decisions=(*self._state.decisions, receipt))

    def _keep(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def _done(self, step: Step, summary: str) -> None:
        self._tell(EventKind.STEP_FINISHED, step, summary)

    def _tell(self, kind: EventKind, name: str, summary: str) -> None:
        self._sheet.tell(kind, str(name), summary, workflow.now())
        workflow.set_current_details(self._sheet.markdown(self._status, self._spent, self._state.attempts))
