"""What came of the lines of one deployment's batches: each attempt is settled once, and its request told."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from holdfast.calls import stored
from holdfast.contracts import AssistantTurn, BatchNews, Generated
from holdfast.errors import IdempotencyConflict, Outcome, ProviderError
from holdfast.ledger import BatchLine, Ledger
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.providers import BatchPhase, BatchProvider, BatchReply, BatchResult, BatchState
from holdfast.telemetry import Metrics

AT_ONCE = 50
"""Lines that are settled, and requests that are told, at the same time."""

Tell = Callable[[str, BatchNews], Awaitable[None]]
"""Tells a request, by its id; a request that is over is told nothing, which is no error."""

ItemT = TypeVar("ItemT")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """Closes lines of one deployment."""

    ledger: Ledger
    preparation: Preparation
    metrics: Metrics
    deployment: ConnectedDeployment
    provider: BatchProvider
    tell: Tell

    async def collect(self, submission: str, batch_id: str, lines: Sequence[BatchLine]) -> None:
        """Settle the lines of a batch, if it has ended.

        Raises:
            ProviderError: The batch, or its results, could not be read; what was read is settled.
        """
        state = await self.provider.poll(batch_id)
        if state.phase is BatchPhase.RUNNING:
            return
        if state.phase is BatchPhase.REFUSED:
            refusal = ProviderError(
                f"Batch {batch_id} of {self.deployment.name!r} was refused by the provider as malformed.",
                outcome=Outcome.INVALID_REQUEST,
            )
            await self.close((line, refusal) for line in lines)
            return
        waiting = {custom_id(line.attempt_id): line for line in lines}
        # Lines that an earlier reading has settled count as well, and another's results do not.
        ours = {custom_id(attempt_id) for attempt_id in await self.ledger.batch_lines.members(submission)}
        replies: set[str] = set()
        read: list[tuple[BatchLine, BatchResult]] = []
        async with aclosing(self.provider.results(batch_id)) as results:
            async for name, result in results:
                if isinstance(result, BatchReply) and name in ours:
                    replies.add(name)
                # A result that came before, or is not ours, is passed over.
                if (line := waiting.pop(name, None)) is not None:
                    read.append((line, result))
                if len(read) == AT_ONCE:
                    await self.close(read)
                    read.clear()
        missing = fate_of_missing(state, len(replies))
        await self.close([*read, *((line, missing) for line in waiting.values())])

    async def lose(self, lines: Iterable[BatchLine]) -> None:
        """Nobody knows what became of the lines: their worst case stays."""
        lost = ProviderError(
            f"A batch of {self.deployment.name!r} got lost; what it may have cost stays on record.",
            outcome=Outcome.UNKNOWN,
        )
        await self.close((line, lost) for line in lines)

    async def close(self, results: Iterable[tuple[BatchLine, BatchResult]]) -> None:
        """Settle attempts, tell their requests, and be done with the lines."""
        for some in chunks(list(results)):
            await asyncio.gather(*(self._close(line, result) for line, result in some))
            # Not before the request was told: of a line that is done nobody speaks again.
            await self.ledger.batch_lines.done([line.attempt_id for line, _ in some], datetime.now(UTC))

    async def _close(self, line: BatchLine, result: BatchResult) -> None:
        try:
            news = await (self._replied(line, result) if isinstance(result, BatchReply) else self._failed(line, result))
        except IdempotencyConflict:
            news = await self._recorded(line)
        await self.tell(line.request_id, news)

    async def _replied(self, line: BatchLine, reply: BatchReply) -> BatchNews:
        completed, text = reply.completed, reply.text
        usage = completed.usage
        if usage is not None:
            # Priced for the moment of sending, so that a settlement that is repeated says the same.
            cost = self.preparation.cost(self.deployment, usage, batch=True, at=line.submitted_at)
            usage = usage.model_copy(update={"cost_usd": cost})
        if completed.tool_calls:
            text = AssistantTurn(text=text, tool_calls=completed.tool_calls).model_dump_json()
        settled = await self.ledger.attempts.settle(
            line.attempt_id,
            Outcome.OK,
            usage=usage,
            output=text,
            finish_reason=completed.finish_reason,
            model=completed.model,
            response_id=completed.response_id,
        )
        self.metrics.call_ended(
            self.deployment.name,
            model=self.deployment.model,
            vendor=self.deployment.vendor,
            outcome=Outcome.OK,
            duration=None,
            usage=usage,
            cost_usd=settled.usage.cost_usd,
        )
        return BatchNews(
            attempt_id=line.attempt_id,
            reply=Generated(
                output=stored(settled.output),
                finish_reason=completed.finish_reason,
                model=completed.model,
                usage=settled.usage,
                spent=settled.totals.usage,
                attempts=settled.totals.attempts,
                confidence=completed.confidence,
            ),
        )

    async def _failed(self, line: BatchLine, error: ProviderError) -> BatchNews:
        settled = await self.ledger.attempts.settle(
            line.attempt_id, error.outcome, error_code=str(error.status or error.outcome)
        )
        self.metrics.call_ended(
            self.deployment.name,
            model=self.deployment.model,
            vendor=self.deployment.vendor,
            outcome=error.outcome,
            duration=None,
            cost_usd=settled.usage.cost_usd,
        )
        return BatchNews(
            attempt_id=line.attempt_id, outcome=error.outcome.value, reason=str(error), again=error.retryable
        )

    async def _recorded(self, line: BatchLine) -> BatchNews:
        """The line was settled before, otherwise: what the ledger has stands."""
        attempts = await self.ledger.attempts.list(line.request_id)
        totals = await self.ledger.attempts.totals(line.request_id)
        attempt = next(one for one in attempts if one.attempt_id == line.attempt_id)
        outcome = attempt.outcome or Outcome.UNKNOWN
        log.warning("Line %s of a batch came again with another result; the first stands", line.attempt_id)
        if outcome is Outcome.OK and attempt.finish_reason is not None:
            reply = Generated(
                output=stored(attempt.output),
                finish_reason=attempt.finish_reason,
                model=attempt.answered_by or attempt.model,
                usage=attempt.usage,
                spent=totals.usage,
                attempts=totals.attempts,
            )
            return BatchNews(attempt_id=line.attempt_id, reply=reply)
        return BatchNews(
            attempt_id=line.attempt_id,
            outcome=outcome.value,
            reason=f"The call ended in a batch as {outcome.value!r}.",
            again=outcome.retryable,
        )


def custom_id(attempt_id: str) -> str:
    """The name under which a line's result comes back; providers admit no dots, and 64 characters."""
    name = attempt_id.replace(".", "-")
    return name if len(name) <= 64 else hashlib.sha256(attempt_id.encode()).hexdigest()


def fate_of_missing(state: BatchState, replies: int) -> ProviderError:
    """What became of the lines of an ended batch for which no result could be read.

    If every reply that the provider counts is there, the others were never processed, and cost nothing. Otherwise the
    missing ones may be among the replies, cut off or unreadable, and any of them may be billed.

    Args:
        state: The provider's count.
        replies: Lines of the batch whose reply was read.
    """
    if replies >= state.succeeded:
        return ProviderError(
            f"Batch {state.id} ended without coming to this call.", outcome=Outcome.NOT_SENT, should_retry=None
        )
    return ProviderError(
        f"Batch {state.id} ended, but the result of this call cannot be read; it may have been billed.",
        outcome=Outcome.UNKNOWN,
    )


def chunks(items: Sequence[ItemT]) -> Iterable[Sequence[ItemT]]:
    """Items in groups that are worked on at the same time."""
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))
