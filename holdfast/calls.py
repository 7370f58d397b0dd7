"""One paid model call, recorded before it is made: hold, dispatch, settle.

1. The gate lets the call through: there is room in the deployment's limits, and its breaker is closed.
2. One transaction records the attempt and holds its worst case; over a ceiling or a budget, nothing is sent.
3. One call goes out, streamed, without client retries. Its text goes to the relay as it comes.
4. One transaction settles it from the provider's usage.

If the process dies in between, the attempt stays in the ledger at its worst case, because the provider may have billed
it. If only the report of a finished call was lost, the next attempt finds the reply in the ledger and pays nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import Literal

from holdfast.contracts import (
    AssistantTurn,
    ContentRef,
    Generated,
    GenerateInput,
    StreamEvent,
    StreamKind,
    Usage,
)
from holdfast.errors import ConfigurationError, Outcome, ProviderError, Unavailable
from holdfast.gate import Entry, Gate
from holdfast.ledger import AttemptKey, Ledger, Opened, Recorded, Settled
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.providers import Completed, ModelCall, Provider, TextDelta
from holdfast.relay import Relay
from holdfast.telemetry import Metrics, ModelSpan
from holdfast.telemetry.model_span import LiveSpan
from holdfast.tokens import count_tokens

BOOKING_PATIENCE = timedelta(seconds=60)
"""How long a finished call waits for a ledger that does not answer."""


class Meter:
    """What an attempt has produced so far; read by heartbeats while the call runs."""

    def __init__(self) -> None:
        self.attempt_id = ""
        self.tries = 0
        """Calls of this deployment for this turn, this one included."""
        self.tokens = 0
        """Counted on the fly, piece by piece, so a little above the count of the whole text."""
        self.first_token: timedelta | None = None
        """From dispatch."""
        self.entry: Entry | None = None
        self._dispatched_at = monotonic()

    def dispatched(self) -> None:
        """The call goes out."""
        self._dispatched_at = monotonic()

    def add(self, text: str) -> None:
        """A piece of the reply came."""
        if self.first_token is None:
            self.first_token = self.duration
        self.tokens += count_tokens(text)

    @property
    def duration(self) -> timedelta:
        """Since dispatch."""
        return timedelta(seconds=monotonic() - self._dispatched_at)


class Show:
    """Publishes one attempt's text, if it may be shown while it is written.

    White space around the text is not part of an answer, so it is not shown either: what stands at the end is held back
    until more text follows.
    """

    def __init__(self, relay: Relay, request_id: str, attempt: int, *, streams: bool) -> None:
        self._relay, self._request_id, self._attempt, self._streams = relay, request_id, attempt, streams
        self._offset = 0
        self._space = ""

    async def say(self, kind: Literal["began", "ended", "failed"]) -> None:
        """Publish that the attempt begins or is over."""
        await self._publish(kind, "")

    async def text(self, text: str) -> None:
        """Publish the next characters."""
        text = self._space + text if self._offset else text.lstrip()
        shown = text.rstrip()
        if self._offset or shown:
            self._space = text[len(shown) :]
        if shown:
            await self._publish("text", shown)
            self._offset += len(shown)

    async def _publish(self, kind: StreamKind, text: str) -> None:
        if self._streams:
            await self._relay.publish(
                StreamEvent(
                    request_id=self._request_id, attempt=self._attempt, offset=self._offset, kind=kind, text=text
                )
            )


class ModelCaller:
    """Makes model calls through the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        deployments: Mapping[str, ConnectedDeployment],
        preparation: Preparation,
        span: ModelSpan,
        gate: Gate,
        relay: Relay,
        metrics: Metrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._deployments = deployments
        self._preparation = preparation
        self._span = span
        self._gate = gate
        self._relay = relay
        self._metrics = metrics or Metrics()

    async def call(self, given: GenerateInput, meter: Meter) -> Generated:
        """Make one attempt of one call.

        Raises:
            LimitExceeded: A ceiling of the request, or a budget, would be passed; nothing was sent or recorded.
            Throttled: The deployment has no room now; nothing was sent or recorded.
            ProviderError: The call failed; the ledger has it, at nothing or at its worst case as the outcome demands.
            ConfigurationError: The deployment is not one of this worker's.
        """
        deployment = self._deployments.get(given.deployment)
        if deployment is None:
            raise ConfigurationError(f"Deployment {given.deployment!r} is not served by this worker; see models.toml.")
        call = await self._preparation.prepare(given, deployment)
        hold = self._preparation.hold(deployment, call)
        if deployment.guarded is not None:
            ticket = f"{given.request_id}.{given.turn}.{given.deployment}"
            meter.entry = await self._gate.enter(deployment.guarded, ticket, hold.total_tokens, sole=given.last_resort)
        try:
            opened = await self._open(given, deployment, hold)
        except BaseException:
            await self._turn_back(meter)
            raise
        if isinstance(opened, Recorded):
            await self._turn_back(meter)
            return generated(opened)
        meter.attempt_id, meter.tries = opened.attempt_id, opened.tries
        call = replace(call, attempt_id=opened.attempt_id)
        show = Show(self._relay, given.request_id, opened.ordinal, streams=given.streams)
        try:
            return await self._make(given, deployment, call, opened, meter, show)
        finally:
            # What was not left in order, because the ledger stayed away, says nothing about the deployment.
            await self._leave(meter, Outcome.CANCELLED)

    async def renew(self, meter: Meter) -> None:
        """Keep what a call under way holds of its deployment's limits."""
        if meter.entry is not None:
            await self._gate.renew(meter.entry)

    def disperse(self, deployment: str) -> None:
        """Send away the calls that only stand in line for a deployment: this process is about to end."""
        self._gate.line(deployment).disperse()

    async def _make(
        self,
        given: GenerateInput,
        deployment: ConnectedDeployment,
        call: ModelCall,
        opened: Opened,
        meter: Meter,
        show: Show,
    ) -> Generated:
        with self._span.around(
            call, provider=deployment.vendor, request_id=given.request_id, deployment=given.deployment
        ) as span:
            try:
                await show.say("began")
                meter.dispatched()
                text, completed = await _stream(deployment.provider, call, meter, span, show)
            except ProviderError as error:
                await show.say("failed")
                # Without a usage report the worst case stays for whatever may have been billed: a broken connection
                # can lose text that the provider counted, so what was received is not a bound.
                settled = await _insist(
                    partial(
                        self._ledger.attempts.settle,
                        opened.attempt_id,
                        error.outcome,
                        error_code=str(error.status or error.outcome),
                    )
                )
                self._measure(deployment, error.outcome, meter, None, settled.usage.cost_usd)
                await self._leave(meter, error.outcome, retry_after=error.retry_after, timed_out=error.timed_out)
                raise
            except BaseException:
                # Cancelled, or the worker stops: the provider goes on until it notices, so the worst case stays held.
                await asyncio.shield(self._abandon(opened.attempt_id, meter, show))
                raise
            usage = completed.usage
            if usage is not None:
                usage = usage.model_copy(update={"cost_usd": self._preparation.cost(deployment, usage)})
                span.ended(text, completed, usage)
        if completed.tool_calls:
            text = AssistantTurn(text=text, tool_calls=completed.tool_calls).model_dump_json()
        # Without the provider's own count the worst case stays: ours knows neither its tokenizer nor hidden reasoning.
        settled = await _insist(
            partial(
                self._ledger.attempts.settle,
                opened.attempt_id,
                Outcome.OK,
                usage=usage,
                output=text,
                finish_reason=completed.finish_reason,
                model=completed.model,
                response_id=completed.response_id,
            )
        )
        self._measure(deployment, Outcome.OK, meter, usage, settled.usage.cost_usd)
        await show.say("ended")
        await self._leave(meter, Outcome.OK, usage=usage)
        return Generated(
            output=stored(settled.output),
            finish_reason=completed.finish_reason,
            model=completed.model,
            usage=settled.usage,
            spent=settled.totals.usage,
            attempts=settled.totals.attempts,
            confidence=completed.confidence,
        )

    def _measure(
        self,
        deployment: ConnectedDeployment,
        outcome: Outcome,
        meter: Meter,
        usage: Usage | None,
        cost_usd: Decimal | None,
    ) -> None:
        self._metrics.call_ended(
            deployment.name,
            model=deployment.model,
            vendor=deployment.vendor,
            outcome=outcome,
            duration=meter.duration,
            first_token=meter.first_token,
            usage=usage,
            cost_usd=cost_usd,
        )

    async def _abandon(self, attempt_id: str, meter: Meter, show: Show) -> None:
        await show.say("failed")
        await self._ledger.attempts.settle(attempt_id, Outcome.CANCELLED)
        await self._leave(meter, Outcome.CANCELLED)

    async def _leave(
        self,
        meter: Meter,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        retry_after: timedelta | None = None,
        timed_out: bool = False,
    ) -> None:
        if meter.entry is not None:
            entry, meter.entry = meter.entry, None
            await self._gate.leave(
                entry,
                outcome,
                usage=usage,
                first_token=meter.first_token,
                duration=meter.duration,
                retry_after=retry_after,
                timed_out=timed_out,
            )

    async def _turn_back(self, meter: Meter) -> None:
        if meter.entry is not None:
            entry, meter.entry = meter.entry, None
            await self._gate.turned_back(entry)

    async def _open(self, given: GenerateInput, deployment: ConnectedDeployment, hold: Usage) -> Opened | Recorded:
        return await self._ledger.attempts.open(
            AttemptKey(given.tenant, given.request_id, given.turn),
            deployment=given.deployment,
            model=deployment.model,
            hold=hold,
            limits=given.limits,
            scopes=given.scopes,
            agent=given.agent,
        )


async def _insist(settle: Callable[[], Awaitable[Settled]]) -> Settled:
    """Settle, and wait for a ledger that is away: a reply that is given up here was paid for and is paid again.

    Settling twice in the same words is settling once, so nothing has to be known of the attempts that failed.
    """
    deadline, pause = monotonic() + BOOKING_PATIENCE.total_seconds(), 0.25
    while True:
        try:
            return await settle()
        except Unavailable:
            if monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)


async def _stream(
    provider: Provider, call: ModelCall, meter: Meter, span: LiveSpan, show: Show
) -> tuple[str, Completed]:
    pieces: list[str] = []
    async with aclosing(provider.complete(call)) as events:
        async for event in events:
            if isinstance(event, Completed):
                return "".join(pieces), event
            if isinstance(event, TextDelta):
                pieces.append(event.text)
                meter.add(event.text)
                await show.text(event.text)
            else:
                meter.add(event.name + event.arguments)
            span.delta()
    raise ProviderError("The reply ended without its terminator.", outcome=Outcome.BROKEN_STREAM)


def generated(recorded: Recorded) -> Generated:
    """A reply that was recorded before."""
    return Generated(
        output=recorded.output,
        finish_reason=recorded.finish_reason,
        model=recorded.model,
        usage=recorded.usage,
        spent=recorded.totals.usage,
        attempts=recorded.totals.attempts,
    )


def stored(output: ContentRef | None) -> ContentRef:
    """The text of a settled reply, which has one."""
    if output is None:
        raise AssertionError("A settled reply has an output.")
    return output
