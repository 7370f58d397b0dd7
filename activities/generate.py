"""`generate`: one model call under heartbeats, its failure told to the engine in the engine's terms."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast.calls import Meter, ModelCaller
from holdfast.contracts import Generated, GenerateInput
from holdfast.errors import Outcome, ProviderError

LONGEST_RETRY_DELAY = timedelta(seconds=60)
"""A longer Retry-After is waited for by the workflow on a timer, so that the attempt's other deployments come first."""


class Generate:
    """Serves the queue of one or more deployments."""

    def __init__(self, caller: ModelCaller) -> None:
        self._caller = caller

    @activity.defn(name="generate")
    async def generate(self, given: GenerateInput) -> Generated:
        """Make one attempt.

        Raises:
            ApplicationError: Of the outcome's type; its first detail is the Retry-After in seconds, if there was one.
        """
        meter = Meter()
        async with _beating(meter):
            try:
                return await self._caller.call(given, meter)
            except ProviderError as error:
                raise _failure(error, last_resort=given.last_resort) from None


@asynccontextmanager
async def _beating(meter: Meter) -> AsyncIterator[None]:
    """Beat three times per heartbeat timeout; cancellation arrives with a beat's reply.

    A beat is a transaction of the engine's, so a call that is over within a second does without.
    """
    interval = (activity.info().heartbeat_timeout or timedelta(seconds=30)).total_seconds() / 3

    async def beat() -> None:
        await asyncio.sleep(min(1.0, interval))
        while True:
            activity.heartbeat({"attempt": meter.attempt_id, "characters": meter.characters})
            await asyncio.sleep(interval)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _failure(error: ProviderError, *, last_resort: bool) -> ApplicationError:
    wait = error.retry_after
    # A rate limit is no fault of the deployment: go elsewhere first, wait only when there is no elsewhere.
    here = error.outcome.retryable and (last_resort or error.outcome is not Outcome.RATE_LIMITED)
    short = wait is None or wait <= LONGEST_RETRY_DELAY
    return ApplicationError(
        str(error),
        *([] if wait is None else [wait.total_seconds()]),
        type=error.outcome.value,
        non_retryable=not (here and short),
        next_retry_delay=wait if here and short else None,
    )
