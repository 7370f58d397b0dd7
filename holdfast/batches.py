"""Calls through a provider's batch API: put in line, handed over together, settled one by one.

The ledger's lines are the only truth; whoever runs `submit` and `collect` again goes on where the last one stopped.

1. One transaction opens the attempt, holds its worst case at the batch price, and puts its line in the queue.
2. Lines are marked as being handed over before the first byte is sent, under a name of our own.
3. If nobody knows whether the provider has them, the batch is looked for there. They are never sent twice under one
   attempt: what cannot be found counts as lost, its worst case stays on record, and the request opens a new attempt.
4. Each result settles its attempt once, its request is told, and then its line is done.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

from holdfast.batch_results import Results, Tell, chunks, custom_id
from holdfast.calls import generated
from holdfast.contracts import BatchNews, BatchStand, Enqueued, GenerateInput
from holdfast.errors import ConfigurationError, ContentMissing, Outcome, ProviderError
from holdfast.ledger import AttemptKey, BatchLine, Ledger, LineState, Recorded
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.providers import BatchProvider, ModelCall
from holdfast.settings import BatchSettings
from holdfast.telemetry import Metrics

MOST_SENDS = 3
"""Times a line is handed over before its request hears that the provider does not take it."""

MOST_BYTES = 100 * 1024 * 1024
"""Size of a batch, roughly; providers take 200 MB and more."""

BURIED_AFTER = timedelta(hours=72)
"""A batch is over after 24 hours by both providers' word; one that is not heard of for this long never will be."""

log = logging.getLogger(__name__)


class Batches:
    """The batches of every deployment that has a batch API."""

    def __init__(
        self,
        ledger: Ledger,
        deployments: Mapping[str, ConnectedDeployment],
        preparation: Preparation,
        settings: BatchSettings,
        metrics: Metrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._lines = ledger.batch_lines
        self._deployments = deployments
        self._preparation = preparation
        self._settings = settings
        self._metrics = metrics or Metrics()

    async def enqueue(self, given: GenerateInput) -> Enqueued:
        """Put a call in line, or tell where it is: one turn is in line, or in a batch, once.

        Raises:
            LimitExceeded: A ceiling of the request, or a budget, would be passed; nothing was recorded.
            ProviderError: The prompt does not fit the model; nothing was recorded.
            ConfigurationError: The deployment is not one of this worker's, or has no batch API.
        """
        deployment, _ = self._connected(given.deployment)
        call = await self._preparation.prepare(given, deployment)
        opened = await self._ledger.attempts.open(
            AttemptKey(given.tenant, given.request_id, given.turn),
            deployment=given.deployment,
            model=deployment.model,
            hold=self._preparation.hold(deployment, call, batch=True),
            limits=given.limits,
            scopes=given.scopes,
            agent=given.agent,
            batched=given.model_dump_json(exclude_unset=True),
        )
        if isinstance(opened, Recorded):
            return Enqueued(attempt_id=opened.attempt_id, reply=generated(opened))
        return Enqueued(attempt_id=opened.attempt_id, tries=opened.tries)

    async def submit(self, name: str, tell: Tell) -> BatchStand:
        """Hand the lines that wait over as one batch, at most as many as it may hold.

        Raises:
            ConfigurationError: As for `enqueue`.
        """
        deployment, provider = self._connected(name)
        calls = await self._calls(deployment, tell)
        if not calls:
            return await self._stand(name)
        submission, now = uuid4().hex, datetime.now(UTC)
        begun = await self._lines.begin([line.attempt_id for line, _ in calls], submission, now)
        calls = [(line, call) for line, call in calls if line.attempt_id in begun]
        if not calls:
            return await self._stand(name)
        try:
            batch_id = await provider.submit(
                [(custom_id(line.attempt_id), call) for line, call in calls], name=submission
            )
        except ProviderError as error:
            log.warning("A batch of %d calls of %s was not accepted: %s", len(calls), name, error)
            if error.outcome.billed is False:
                await self._refused(deployment, [line for line, _ in calls], submission, error, tell)
            return await self._stand(name, error.retry_after)
        await self._sent(provider, submission, batch_id, [line for line, _ in calls], tell)
        return await self._stand(name)

    async def collect(self, name: str, tell: Tell) -> BatchStand:
        """Look at every batch under way, and settle the lines of those that have ended.

        Raises:
            ConfigurationError: As for `enqueue`.
        """
        deployment, _ = self._connected(name)
        results = self._results(deployment, tell)
        lines = await self._lines.under_way(name)
        for submission, group in groupby(lines, key=lambda line: line.submission or ""):
            members = list(group)
            try:
                if members[0].state is LineState.SUBMITTING:
                    await self._look_for(results, submission, members)
                elif members[0].batch_id is not None:
                    await results.collect(submission, members[0].batch_id, members)
                else:
                    raise ValueError(f"Submission {submission} was sent, but nothing says as which batch.")
            except ProviderError as error:
                log.warning("A batch of %s could not be looked at: %s", name, error)
                if gone(members, error, self._settings.lost_after):
                    await results.lose(members)
        return await self._stand(name)

    async def _calls(self, deployment: ConnectedDeployment, tell: Tell) -> list[tuple[BatchLine, ModelCall]]:
        """What the next batch holds."""
        results = self._results(deployment, tell)
        calls: list[tuple[BatchLine, ModelCall]] = []
        size = 0
        for line in await self._lines.queued(deployment.name, self._settings.lines):
            if line.abandoned:
                await results.close([(line, _not_needed())])
                continue
            try:
                call = await self._preparation.prepare(GenerateInput.model_validate_json(line.call), deployment)
            except ContentMissing as error:
                await results.close([(line, ProviderError(str(error), outcome=Outcome.INVALID_REQUEST))])
                continue
            size += sum(len(message.content.encode()) for message in call.messages)
            if size > MOST_BYTES and calls:
                break
            calls.append((line, replace(call, attempt_id=line.attempt_id)))
        return calls

    async def _refused(
        self,
        deployment: ConnectedDeployment,
        lines: Sequence[BatchLine],
        submission: str,
        error: ProviderError,
        tell: Tell,
    ) -> None:
        """The provider surely does not have the lines: they wait for the next batch, or their requests hear of it."""
        tired = [line for line in lines if not error.retryable or line.sends + 1 >= MOST_SENDS]
        await self._results(deployment, tell).close((line, error) for line in tired)
        await self._lines.put_back(submission)

    async def _look_for(self, results: Results, submission: str, lines: Sequence[BatchLine]) -> None:
        """Nobody recorded whether the provider has the lines: ask it."""
        since = _since(lines)
        found = await results.provider.find(submission, {custom_id(line.attempt_id) for line in lines}, since)
        if found.batch_id is not None:
            await self._sent(results.provider, submission, found.batch_id, lines, results.tell)
        elif not found.undecided and datetime.now(UTC) - since > self._settings.lost_after:
            await results.lose(lines)

    async def _sent(
        self, provider: BatchProvider, submission: str, batch_id: str, lines: Sequence[BatchLine], tell: Tell
    ) -> None:
        now = datetime.now(UTC)
        if not await self._lines.sent(submission, batch_id, now):
            # It was given up for lost by another worker while this one was still sending it.
            with suppress(ProviderError):
                await provider.cancel(batch_id)
            return
        log.info("Batch %s of %s was sent with %d calls", batch_id, lines[0].deployment, len(lines))
        for some in chunks(lines):
            news = [(line.request_id, BatchNews(attempt_id=line.attempt_id, sent_at=now)) for line in some]
            await asyncio.gather(*(tell(request_id, told) for request_id, told in news))

    def _results(self, deployment: ConnectedDeployment, tell: Tell) -> Results:
        _, provider = self._connected(deployment.name)
        return Results(self._ledger, self._preparation, self._metrics, deployment, provider, tell)

    async def _stand(self, name: str, wait: timedelta | None = None) -> BatchStand:
        queued, under_way = await self._lines.count(name)
        return BatchStand(queued=queued, under_way=under_way, wait=wait)

    def _connected(self, name: str) -> tuple[ConnectedDeployment, BatchProvider]:
        deployment = self._deployments.get(name)
        if deployment is None or deployment.batches is None:
            raise ConfigurationError(
                f"Deployment {name!r} is not served by this worker, or has no `batch = true`; see models.toml."
            )
        return deployment, deployment.batches


def gone(lines: Sequence[BatchLine], error: ProviderError, lost_after: timedelta) -> bool:
    """Whether there is no use in looking again at a batch that could not be looked at."""
    age = datetime.now(UTC) - _since(lines)
    return age > BURIED_AFTER or (error.status == 404 and age > lost_after)


def _since(lines: Sequence[BatchLine]) -> datetime:
    moments = [line.submitting_at for line in lines if line.submitting_at is not None]
    return min(moments) if moments else lines[0].queued_at


def _not_needed() -> ProviderError:
    return ProviderError("The request ended before its call was sent.", outcome=Outcome.NOT_SENT, should_retry=False)
