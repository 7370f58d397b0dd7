"""`generate`: one model call under heartbeats, its failure told to the engine in the engine's terms."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from holdfast.calls import Meter, ModelCaller
from holdfast.contracts import Generated, GenerateInput
from holdfast.errors import BudgetExceeded, Outcome, ProviderError, Throttled
from holdfast.telemetry import HeldBack, Metrics

LONGEST_RETRY_DELAY = timedelta(seconds=60)
"""A longer Retry-After is waited for by the workflow on a timer, so that the attempt's other deployments come first."""


PATIENCE = timedelta(seconds=5)
"""While there is another deployment, a provider that asks for a longer wait is left at once."""


QUICK_BEAT = timedelta(seconds=1)
"""Between two beats of a call that is to end soon after its reader has gone. A beat is a transaction of the engine's,
so other calls beat less often."""


class Generate:
    """Serves the queue of one or more deployments."""

    def __init__(self, caller: ModelCaller, metrics: Metrics | None = None) -> None:
        self._caller = caller
        self._metrics = metrics or Metrics()

    @activity.defn(name="generate")
    async def generate(self, given: GenerateInput) -> Generated:
        """Make one attempt.

        Raises:
            ApplicationError: Of the outcome's type; its first detail is the wait in seconds that was asked for, if any.
        """
        meter = Meter()
        info = activity.info()
        if not info.is_local:
            self._metrics.queued(given.deployment, info.started_time - info.current_attempt_scheduled_time)
        async with self._beating(meter, given):
            try:
                return await self._caller.call(given, meter)
            except ProviderError as error:
                raise failure(error, given, meter.tries) from None
            except Throttled as error:
                self._metrics.throttled(given.deployment, HeldBack(error.by), error.wait)
                raise _throttled(error, last_resort=given.last_resort) from None
            except BudgetExceeded as error:
                raise denied(error) from None

    @asynccontextmanager
    async def _beating(self, meter: Meter, given: GenerateInput) -> AsyncIterator[None]:
        """Beat three times per heartbeat timeout, or every second; cancellation arrives with a beat's reply.

        A worker that is asked to stop finishes its calls, but does not wait for those that only stand in line.

        A beat is a transaction of the engine's, so a call that is over within a second does without. A local activity
        has no heartbeats: what answers in this process is over at once.
        """
        info = activity.info()
        if info.is_local:
            yield
            return
        interval = (info.heartbeat_timeout or timedelta(seconds=30)).total_seconds() / 3
        if given.heeds_disconnect:
            interval = min(interval, QUICK_BEAT.total_seconds())

        async def beat() -> None:
            await asyncio.sleep(min(1.0, interval))
            while not activity.is_worker_shutdown():
                activity.heartbeat({"attempt": meter.attempt_id, "tokens": meter.tokens})
                await self._caller.renew(meter)
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await activity.wait_for_worker_shutdown()
            self._caller.disperse(given.deployment)
            while True:
                activity.heartbeat({"attempt": meter.attempt_id, "tokens": meter.tokens})
                await self._caller.renew(meter)
                await asyncio.sleep(interval)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def failure(error: ProviderError, given: GenerateInput, tries: int) -> ApplicationError:
    """The engine's form of a failed call; says whether the deployment is asked again."""
    wait = error.retry_after
    # A rate limit is no fault of the deployment: go elsewhere first, wait only when there is no elsewhere.
    again = error.retryable and (given.last_resort or error.outcome is not Outcome.RATE_LIMITED)
    again = again and (given.tries == 0 or tries < given.tries)
    again = again and (wait is None or wait <= (LONGEST_RETRY_DELAY if given.last_resort else PATIENCE))
    return ApplicationError(
        str(error),
        *([] if wait is None else [wait.total_seconds()]),
        type=error.outcome.value,
        non_retryable=not again,
        next_retry_delay=wait if again else None,
    )


def _throttled(error: Throttled, *, last_resort: bool) -> ApplicationError:
    """No crash and no attempt: the slot becomes free, and the engine brings the call back when its turn comes."""
    here = last_resort and error.wait <= LONGEST_RETRY_DELAY
    return ApplicationError(
        str(error),
        error.wait.total_seconds(),
        type=Throttled.__name__,
        non_retryable=not here,
        next_retry_delay=error.wait if here else None,
        category=ApplicationErrorCategory.BENIGN,
    )


def denied(error: BudgetExceeded) -> ApplicationError:
    """The engine's form of a budget at its limit, with what the budget says to do."""
    return ApplicationError(
        str(error),
        str(error.action),
        error.resets_at.isoformat() if error.resets_at else None,
        type=BudgetExceeded.__name__,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )
