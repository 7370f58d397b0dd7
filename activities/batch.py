"""`enqueue`, `submit_batch` and `collect_batches`: calls through a provider's batch API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.generate import denied, failure
from holdfast.batches import Batches
from holdfast.contracts import BatchNews, BatchRun, BatchStand, Enqueued, GenerateInput
from holdfast.errors import BudgetExceeded, ProviderError, Unavailable
from holdfast.settings import BatchSettings, EngineSettings


class Batch:
    """Keeps the lines of every deployment moving.

    Args:
        batches: The library's side.
        client: Tells requests, and wakes the runs that gather lines.
        engine: Where those run.
        settings: How long they gather, and how often they look.
    """

    def __init__(self, batches: Batches, client: Client, engine: EngineSettings, settings: BatchSettings) -> None:
        self._batches = batches
        self._client = client
        self._engine = engine
        self._settings = settings
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._next: dict[str, asyncio.Task[None]] = {}

    @activity.defn(name="enqueue")
    async def enqueue(self, given: GenerateInput) -> Enqueued:
        """Put a call in line for its deployment's next batch.

        Raises:
            ApplicationError: As `generate` does.
        """
        try:
            enqueued = await self._batches.enqueue(given)
        except ProviderError as error:
            raise failure(error, given, given.tries) from None
        except BudgetExceeded as error:
            raise denied(error) from None
        if enqueued.reply is None:
            await self._wake(given.deployment)
        return enqueued

    @activity.defn(name="submit_batch")
    async def submit(self, run: BatchRun) -> BatchStand:
        """Hand what waits over to the provider."""
        async with _beating():
            return await self._batches.submit(run.deployment, self._tell)

    @activity.defn(name="collect_batches")
    async def collect(self, run: BatchRun) -> BatchStand:
        """Settle what the provider has answered."""
        async with _beating():
            return await self._batches.collect(run.deployment, self._tell)

    async def _wake(self, deployment: str) -> None:
        """Wake the deployment's run, or start it.

        Whoever comes while a signal is on its way shares the next one, so that thousands of lines make few signals;
        that one on its way may have arrived before the line was recorded.
        """
        running = self._waking.get(deployment)
        if running is None or running.done():
            self._waking[deployment] = running = asyncio.create_task(self._signal(deployment))
            await asyncio.shield(running)
            return
        following = self._next.get(deployment)
        if following is None or following.done():
            self._next[deployment] = following = asyncio.create_task(self._signal_after(running, deployment))
        await asyncio.shield(following)

    async def _signal_after(self, running: asyncio.Task[None], deployment: str) -> None:
        await asyncio.wait([running])
        self._next.pop(deployment, None)
        self._waking[deployment] = task = asyncio.create_task(self._signal(deployment))
        await task

    async def _signal(self, deployment: str) -> None:
        run = BatchRun(
            deployment=deployment,
            collect=self._settings.collect,
            poll=self._settings.poll,
            heartbeat=self._engine.heartbeat_timeout,
        )
        try:
            await self._client.start_workflow(
                "BatchWorkflow",
                run,
                id=f"batch.{self._engine.task_queue}.{deployment}",
                task_queue=self._engine.task_queue,
                start_signal="lines_wait",
                static_summary=f"batches of {deployment}",
            )
        except RPCError as error:
            raise Unavailable(f"The engine did not wake the batches of {deployment!r}: {error.status.name}.") from None

    async def _tell(self, request_id: str, news: BatchNews) -> None:
        try:
            await self._client.get_workflow_handle(request_id).signal("batch_news", news)
        except RPCError as error:
            # A request that is over does not wait for its call any more.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise Unavailable(f"The engine did not tell {request_id} of its call: {error.status.name}.") from None


@asynccontextmanager
async def _beating() -> AsyncIterator[None]:
    interval = (activity.info().heartbeat_timeout or timedelta(seconds=30)).total_seconds() / 3

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(interval)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
