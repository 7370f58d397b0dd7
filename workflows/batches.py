"""The batches of one deployment as a workflow: gathers calls for a while, has them sent, and looks for their results.

What is where is in the ledger, so a run carries nothing over to the next one, and ends when nothing is left to do.
"""

import builtins
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from holdfast.contracts import BatchRun, BatchStand
    from workflows import steps
    from workflows.request import BUGS

FIRST_LOOK = 16
"""The first look at a batch comes after this part of the longest time between two."""


@workflow.defn(name="BatchWorkflow", failure_exception_types=BUGS)
class BatchWorkflow:
    """Sends and collects, until no call waits and none is under way."""

    def __init__(self) -> None:
        self._woken = True

    @workflow.signal(name="lines_wait")
    def wake(self) -> None:
        """A call was put in line."""
        self._woken = True

    @workflow.run
    async def run(self, run: BatchRun) -> None:
        """Serve the deployment."""
        # An earlier run may have left batches behind: what is where, the first sending tells.
        stand, wait = BatchStand(), run.poll / FIRST_LOOK
        while self._woken or stand.queued or stand.under_way:
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(run)
            if self._woken or stand.queued:
                await workflow.sleep(max(run.collect, stand.wait or run.collect), summary="calls gather")
                # From here on a call that comes may be too late for this batch.
                self._woken = False
                stand, wait = await self._step("submit_batch", run), run.poll / FIRST_LOOK
            if stand.under_way:
                try:
                    await workflow.wait_condition(lambda: self._woken, timeout=wait, timeout_summary="next look")
                except builtins.TimeoutError:
                    wait = min(wait * 2, run.poll)
                stand = await self._step("collect_batches", run)

    async def _step(self, name: str, run: BatchRun) -> BatchStand:
        stand: BatchStand = await workflow.execute_activity(
            name,
            run,
            result_type=BatchStand,
            start_to_close_timeout=timedelta(hours=2),
            schedule_to_close_timeout=timedelta(days=7),
            heartbeat_timeout=run.heartbeat,
            retry_policy=RetryPolicy(
                maximum_interval=timedelta(minutes=1),
                maximum_attempts=steps.MOST_DISPATCHES,
                non_retryable_error_types=steps.FINAL_ERRORS,
            ),
            summary=f"{name.partition('_')[0]}: {run.deployment}",
        )
        workflow.set_current_details(
            f"**{run.deployment}**: {stand.queued} calls wait for the next batch, {stand.under_way} are in batches"
        )
        return stand
