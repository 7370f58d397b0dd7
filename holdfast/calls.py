"""One paid model call, recorded before it is made: hold, dispatch, settle.

1. One transaction records the attempt and holds its worst case; over a ceiling, nothing is sent.
2. One call goes out, streamed, without client retries.
3. One transaction settles it from the provider's usage.

If the process dies in between, the attempt stays in the ledger at its worst case, because the provider may have billed
it. If only the report of a finished call was lost, the next attempt finds the reply in the ledger and pays nothing.
"""

import asyncio
import json
import math
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import TypeAdapter

from holdfast import budget
from holdfast.contracts import ContentRef, Generated, GenerateInput, Passage, Usage
from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.ledger import AttemptKey, Ledger, Opened, Recorded
from holdfast.prices import Price, Prices
from holdfast.prompt import boundary_marker, build_messages
from holdfast.providers import Completed, ModelCall, Provider, Timeouts
from holdfast.telemetry import ModelSpan
from holdfast.telemetry.model_span import LiveSpan
from holdfast.tokens import count_message_tokens

TOKENIZER_MARGIN = 1.25
"""The hold counts with one tokenizer, the provider bills with its own; a quarter more covers the common ones."""

PASSAGES: TypeAdapter[tuple[Passage, ...]] = TypeAdapter(tuple[Passage, ...])
"""Reads and writes the JSON array that a passages reference stands for."""


@dataclass(frozen=True)
class ConnectedDeployment:
    """A deployment that can be called."""

    name: str
    provider: Provider
    vendor: str
    """Whose price list applies."""
    model: str
    price: Price | None = None
    context_window: int = 128_000
    temperature: float | None = None
    seed: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass
class Meter:
    """What an attempt has produced so far; read by heartbeats while the call runs."""

    attempt_id: str = ""
    characters: int = 0


class ModelCaller:
    """Makes model calls through the ledger."""

    def __init__(
        self, ledger: Ledger, deployments: Mapping[str, ConnectedDeployment], prices: Prices, span: ModelSpan
    ) -> None:
        self._ledger = ledger
        self._deployments = deployments
        self._prices = prices
        self._span = span

    async def call(self, given: GenerateInput, meter: Meter) -> Generated:
        """Make one attempt of one call.

        Raises:
            LimitExceeded: A ceiling of the request would be passed; nothing was sent or recorded.
            ProviderError: The call failed; the ledger has it, at nothing or at its worst case as the outcome demands.
            ConfigurationError: The deployment is not one of this worker's.
        """
        deployment = self._deployments.get(given.deployment)
        if deployment is None:
            raise ConfigurationError(f"Deployment {given.deployment!r} is not served by this worker; see models.toml.")
        call = await self._prepare(given, deployment)
        opened = await self._open(given, deployment, call)
        if isinstance(opened, Recorded):
            return _generated(opened)
        meter.attempt_id, call = opened.attempt_id, replace(call, attempt_id=opened.attempt_id)
        with self._span.around(call, provider=deployment.vendor, request_id=given.request_id) as span:
            try:
                text, completed = await _stream(deployment.provider, call, meter, span)
            except ProviderError as error:
                await self._settle_failure(opened.attempt_id, given.deployment, error)
                raise
            except BaseException:
                # Cancelled, or the worker stops: the provider goes on until it notices, so the worst case stays held.
                await asyncio.shield(self._ledger.attempts.settle(opened.attempt_id, Outcome.CANCELLED))
                raise
            usage = completed.usage
            if usage is not None:
                usage = usage.model_copy(update={"cost_usd": self._cost(deployment, usage)})
                span.ended(text, completed, usage)
        # Without the provider's own count the worst case stays: ours knows neither its tokenizer nor hidden reasoning.
        settled = await self._ledger.attempts.settle(
            opened.attempt_id,
            Outcome.OK,
            usage=usage,
            output=text,
            finish_reason=completed.finish_reason,
            model=completed.model,
            response_id=completed.response_id,
        )
        await self._ledger.health.record(given.deployment, Outcome.OK)
        return Generated(
            output=_stored(settled.output),
            finish_reason=completed.finish_reason,
            model=completed.model,
            usage=settled.usage,
            spent=settled.totals.usage,
            attempts=settled.totals.attempts,
        )

    async def _prepare(self, given: GenerateInput, deployment: ConnectedDeployment) -> ModelCall:
        contents, tenant = self._ledger.contents, given.tenant
        question = await contents.get(tenant, given.question)
        passages = PASSAGES.validate_json(await contents.get(tenant, given.passages)) if given.passages else ()
        messages = build_messages(
            await contents.get(tenant, given.instructions),
            question,
            passages,
            await contents.get(tenant, given.previous) if given.previous else None,
            given.violations,
            boundary_marker(given.request_id),
            retrieval=given.passages is not None,
        )
        return ModelCall(
            model=deployment.model,
            messages=messages,
            max_output_tokens=given.limits.output_tokens,
            question=question,
            passages=passages,
            output_schema=json.loads(await contents.get(tenant, given.output_schema)) if given.output_schema else None,
            temperature=deployment.temperature,
            seed=deployment.seed,
            timeouts=deployment.timeouts,
        )

    async def _open(self, given: GenerateInput, deployment: ConnectedDeployment, call: ModelCall) -> Opened | Recorded:
        held = math.ceil(_prompt_tokens(call) * TOKENIZER_MARGIN)
        room = deployment.context_window - held
        if room < 1:
            raise ProviderError(
                f"The prompt of about {held} tokens does not fit the {deployment.context_window} of "
                f"deployment {given.deployment!r}.",
                outcome=Outcome.CONTEXT_LENGTH,
            )
        return await self._ledger.attempts.open(
            AttemptKey(given.tenant, given.request_id, given.turn),
            deployment=given.deployment,
            model=deployment.model,
            hold=budget.worst_case(held, call.max_output_tokens, lambda usage: self._cost(deployment, usage)),
            limits=given.limits,
        )

    async def _settle_failure(self, attempt_id: str, deployment: str, error: ProviderError) -> None:
        # Without a usage report the worst case stays for whatever may have been billed: a broken connection can lose
        # text that the provider counted, so what was received is not a bound.
        await self._ledger.attempts.settle(attempt_id, error.outcome, error_code=str(error.status or error.outcome))
        await self._ledger.health.record(deployment, error.outcome, retry_after=error.retry_after)

    def _cost(self, deployment: ConnectedDeployment, usage: Usage) -> Decimal | None:
        return self._prices.cost(
            deployment.vendor, deployment.model, usage, datetime.now(UTC), override=deployment.price
        )


async def _stream(provider: Provider, call: ModelCall, meter: Meter, span: LiveSpan) -> tuple[str, Completed]:
    pieces: list[str] = []
    async with aclosing(provider.complete(call)) as events:
        async for event in events:
            if isinstance(event, Completed):
                return "".join(pieces), event
            pieces.append(event.text)
            meter.characters += len(event.text)
            span.delta()
    raise ProviderError("The reply ended without its terminator.", outcome=Outcome.BROKEN_STREAM)


def _prompt_tokens(call: ModelCall) -> int:
    schema = json.dumps(call.output_schema) if call.output_schema else ""
    return count_message_tokens([*(message.content for message in call.messages), schema])


def _generated(recorded: Recorded) -> Generated:
    return Generated(
        output=recorded.output,
        finish_reason=recorded.finish_reason,
        model=recorded.model,
        usage=recorded.usage,
        spent=recorded.totals.usage,
        attempts=recorded.totals.attempts,
    )


def _stored(output: ContentRef | None) -> ContentRef:
    if output is None:
        raise AssertionError("A settled reply has an output.")
    return output
