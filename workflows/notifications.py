"""The notifications of one event as a workflow: each of them is tried until it is accepted or given up.

It is a run of its own, so that a receiver that is away for a day keeps no request open. How long to wait between two
attempts is the activity's answer, which knows what the receiver asked for; the engine does the waiting.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from holdfast.contracts import Notified, NotifyInput, NotifyRun, Step
    from workflows import steps
    from workflows.request import BUGS

ONE_ATTEMPT = timedelta(minutes=2)
"""Longer than any exchange with a target may be configured to take."""
ALL_ATTEMPTS = timedelta(days=32)
"""Longer than any notification may be configured to be tried."""


@workflow.defn(name="NotificationWorkflow", failure_exception_types=BUGS)
class NotificationWorkflow:
    """Sends the notifications of one event, all at the same time."""

    def __init__(self) -> None:
        self._ended: dict[str, Notified] = {}

    @workflow.run
    async def run(self, run: NotifyRun) -> tuple[Notified, ...]:
        """Send them.

        Returns:
            What became of each, in their order.
        """
        await asyncio.gather(*(self._tell(NotifyInput(tenant=run.tenant, delivery=one), run) for one in run.deliveries))
        return tuple(self._ended[one] for one in run.deliveries)

    async def _tell(self, given: NotifyInput, run: NotifyRun) -> None:
        try:
            ended = await self._activity(Step.NOTIFY.value, given, ALL_ATTEMPTS)
        except ActivityError:
            ended = await self._activity("bury", given, timedelta(days=7))
        self._ended[given.delivery] = ended
        dead = sum(one.state == "dead" for one in self._ended.values())
        workflow.set_current_details(f"{len(self._ended) - dead} sent, {dead} dead, of {len(run.deliveries)}")

    async def _activity(self, name: str, given: NotifyInput, patience: timedelta) -> Notified:
        result: Notified = await workflow.execute_activity(
            name,
            given,
            task_queue=steps.notify_queue(workflow.info().task_queue),
            result_type=Notified,
            start_to_close_timeout=ONE_ATTEMPT,
            schedule_to_close_timeout=patience,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1),
                maximum_interval=timedelta(minutes=1),
                maximum_attempts=steps.MOST_DISPATCHES,
                non_retryable_error_types=steps.FINAL_ERRORS,
            ),
            summary=f"{name}: {given.delivery}",
        )
        return result
