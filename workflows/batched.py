"""The part of a run that waits for a reply out of a provider's batch, which may take a day."""

import builtins
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, TimeoutError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from holdfast.contracts import BatchNews, Enqueued, EventKind, Generated, GenerateInput, Run, Step
    from workflows import steps
    from workflows.working import Working

PATIENCE = timedelta(hours=1)
"""Silence after which the call is asked for again: that costs nothing, and starts the batches' run if it is gone."""


class Batched(Working):
    """Puts calls in line, and hears what became of them."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._heard: dict[str, BatchNews] = {}

    async def _reply_from_batch(self, call: GenerateInput) -> Generated:
        """The reply to a call.

        Raises:
            StepFailure: There is none: the call could not be put in line, it failed, or the request's time is up.
        """
        while True:
            enqueued = await steps.local(
                Step.ENQUEUE, call, Enqueued, f"a batch of {call.deployment}", self._remaining()
            )
            if enqueued.reply is not None:
                return enqueued.reply
            news = await self._news_of(enqueued.attempt_id)
            if news is None:
                continue
            if news.reply is not None:
                return news.reply
            cause = ApplicationError(news.reason, type=news.outcome, non_retryable=True)
            if not news.again or enqueued.tries >= call.tries:
                raise steps.StepFailure(Step.GENERATE, cause)
            self._tell(EventKind.STEP_FAILED, Step.GENERATE, f"{call.deployment}: {news.reason}")

    async def _news_of(self, attempt_id: str) -> BatchNews | None:
        """How a call ended, or `None` after a silence."""
        remaining = self._remaining()
        try:
            await workflow.wait_condition(
                lambda: attempt_id in self._heard,
                timeout=max(min(remaining, PATIENCE), timedelta(milliseconds=1)),
                timeout_summary="reply from a batch",
            )
        except builtins.TimeoutError:
            if remaining > PATIENCE:
                return None
            late = TimeoutError("deadline", type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=())
            raise steps.StepFailure(Step.GENERATE, late) from None
        return self._heard[attempt_id]

    @workflow.signal(name="batch_news")
    def _hear(self, news: BatchNews) -> None:
        """A call was sent, or is over."""
        if news.sent_at is None:
            self._heard[news.attempt_id] = news
        elif self._route is not None:
            self._done(Step.GENERATE, f"in a batch of {self._route.deployment}, sent {news.sent_at:%H:%M}")
