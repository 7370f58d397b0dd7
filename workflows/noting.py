"""The part of a run that has things told: what happens to its approvals goes on record, and to whoever wants to know.

Telling never fails a request and never holds it up: what is written down here in one step is sent by a run of its own.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast.contracts import (
        Approval,
        ApprovalHappening,
        ContentRef,
        EventKind,
        Noted,
        NoteInput,
        NotifyRun,
        Run,
        Step,
    )
    from workflows.run_state import RunState

NOTES_SINCE = 3
"""The walk from which on approvals are noted."""
MOST_AT_ONCE = 100
"""Notifications of one run; as many as `NotifyRun` takes."""
LONGEST_NOTIFICATION = timedelta(days=40)
"""After which the engine ends the run of notifications; each of them is given up long before."""


class Noting(RunState):
    """Notes, and has sent."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._telling: set[asyncio.Task[None]] = set()

    async def _note(
        self,
        question: Approval,
        happening: ApprovalHappening,
        *,
        actor: str = "",
        reason: str | None = None,
        content: ContentRef | None = None,
        at: datetime | None = None,
        recorded: bool = False,
    ) -> None:
        """Put what happened to an approval on record, and tell whoever wants to know.

        A record that cannot be made is told on the run sheet; nothing is raised but the run's cancellation, and then
        the record is made all the same.

        Args:
            question: As it stands afterwards.
            happening: What happened.
            actor: Who did it; empty for what no person did.
            reason: Free text of the actor.
            content: What it was about, if not the question's content.
            at: When; the present by default.
            recorded: Whether the note is made only once all that led to it is in the history.
        """
        request = self._request
        if request.walk < NOTES_SINCE:
            return
        self._keep(notes=self._state.notes + 1)
        note = NoteInput(
            tenant=request.tenant,
            agent=request.plan.agent,
            root=request.root,
            approval=question,
            happening=happening,
            sequence=self._state.notes,
            actor=actor,
            reason=reason,
            content_sha256=(content or question.content).sha256,
            at=at or workflow.now(),
        )
        await self._to_its_end(self._write_down(note, recorded=recorded))

    async def _send(self, deliveries: Sequence[str]) -> None:
        """Have notifications sent that are in the ledger, by a run that outlives this one."""
        await workflow.wait_condition(lambda: not self._telling)
        if deliveries:
            await self._to_its_end(self._start(deliveries))

    async def _to_its_end(self, work: Coroutine[None, None, None]) -> None:
        """Await work that goes on when the run is cancelled meanwhile."""
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        await asyncio.shield(task)

    async def _write_down(self, note: NoteInput, *, recorded: bool) -> None:
        summary = f"approval {note.happening}"
        try:
            if recorded:
                noted = await steps.recorded(Step.NOTE, note, Noted, summary, self._request, self._remaining())
            else:
                noted = await steps.local(Step.NOTE, note, Noted, summary, self._remaining())
        except steps.StepFailure as error:
            self._tell(EventKind.STEP_FAILED, Step.NOTE, f"approval {note.happening}: {error.reason}")
        else:
            await self._start(noted.deliveries)

    async def _start(self, deliveries: Sequence[str]) -> None:
        for first in range(0, len(deliveries), MOST_AT_ONCE):
            some = tuple(deliveries[first : first + MOST_AT_ONCE])
            try:
                await workflow.start_child_workflow(
                    "NotificationWorkflow",
                    NotifyRun(tenant=self._request.tenant, deliveries=some),
                    id=f"notify-{some[0]}",
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                    cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                    execution_timeout=LONGEST_NOTIFICATION,
                    static_summary=f"notifications: {len(some)}",
                )
            except WorkflowAlreadyStartedError:
                continue
            except FailureError as error:
                self._tell(EventKind.STEP_FAILED, Step.NOTIFY, f"not sent: {type(error).__name__}")
