"""What is the same for every model call, whether it goes out alone or in a batch: prompt, worst case, price."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import TypeAdapter

from holdfast import budget
from holdfast.contracts import CatalogEntry, Conversation, GenerateInput, Passage, ToolOffer, Turn, Usage
from holdfast.errors import Outcome, ProviderError
from holdfast.gate import Guarded
from holdfast.ledger import Ledger
from holdfast.prices import Price, Prices
from holdfast.prompt import boundary_marker, build_prompt
from holdfast.providers import BatchProvider, ModelCall, Provider, Timeouts
from holdfast.tokens import TOKENIZER_MARGIN, count_message_tokens

BATCH_PRICE = Decimal("0.5")
"""What OpenAI and Anthropic bill for a call in a batch, as a share of its price; cached tokens included."""

PASSAGES: TypeAdapter[tuple[Passage, ...]] = TypeAdapter(tuple[Passage, ...])
"""Reads and writes the JSON array that a passages reference stands for."""

CATALOG: TypeAdapter[tuple[CatalogEntry, ...]] = TypeAdapter(tuple[CatalogEntry, ...])
"""The same for a catalog."""

TRANSCRIPT: TypeAdapter[tuple[Turn, ...]] = TypeAdapter(tuple[Turn, ...])
"""The same for a transcript."""


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
    batches: BatchProvider | None = None
    """How calls that may take a day are sent; `None` for a deployment without a batch API."""
    guarded: Guarded | None = None
    """What the gate knows of it; `None` for what answers in this process and needs no gate."""


class Preparation:
    """Makes calls ready to be sent.

    Args:
        ledger: Has the texts.
        prices: Of the models.
    """

    def __init__(self, ledger: Ledger, prices: Prices) -> None:
        self._ledger = ledger
        self._prices = prices

    async def prepare(self, given: GenerateInput, deployment: ConnectedDeployment) -> ModelCall:
        """The whole call: prompt, tools, limits.

        Raises:
            ContentMissing: A text of it is gone.
        """
        contents, tenant = self._ledger.contents, given.tenant
        question = await contents.get(tenant, given.question)
        passages = PASSAGES.validate_json(await contents.get(tenant, given.passages)) if given.passages else ()
        conversation = Conversation()
        if given.conversation:
            conversation = Conversation.model_validate_json(await contents.get(tenant, given.conversation))
        catalog = CATALOG.validate_json(await contents.get(tenant, given.catalog)) if given.catalog else ()
        transcript = TRANSCRIPT.validate_json(await contents.get(tenant, given.transcript)) if given.transcript else ()
        tools = _offers(catalog, conversation)
        prompt = build_prompt(
            await contents.get(tenant, given.instructions),
            question,
            passages,
            await contents.get(tenant, given.previous) if given.previous else None,
            given.violations,
            boundary_marker(given.request_id),
            retrieval=given.passages is not None,
            conversation=conversation,
            transcript=transcript,
            final=given.final and bool(tools),
        )
        user = given.scopes.user if given.scopes else ""
        return ModelCall(
            model=deployment.model,
            messages=prompt.messages,
            stable_messages=prompt.stable_messages,
            max_output_tokens=given.limits.output_tokens,
            question=question,
            passages=passages,
            output_schema=json.loads(await contents.get(tenant, given.output_schema)) if given.output_schema else None,
            temperature=deployment.temperature,
            seed=deployment.seed,
            timeouts=deployment.timeouts,
            tools=tools,
            tool_choice="none" if given.final and tools else conversation.tool_choice,
            parallel_tool_calls=conversation.parallel_tool_calls,
            logprobs=given.logprobs,
            cache_key=_tag(tenant, given.agent, given.instructions.sha256),
            user_tag=_tag(tenant, user) if user else None,
            tenant_tag=_tag(tenant),
            context_window=deployment.context_window,
        )

    def hold(self, deployment: ConnectedDeployment, call: ModelCall, *, batch: bool = False) -> Usage:
        """The most a call can consume.

        Raises:
            ProviderError: `CONTEXT_LENGTH`, when the prompt leaves no room for a reply.
        """
        held = math.ceil(_prompt_tokens(call) * TOKENIZER_MARGIN)
        room = deployment.context_window - held
        if room < 1:
            raise ProviderError(
                f"The prompt of about {held} tokens does not fit the {deployment.context_window} of "
                f"deployment {deployment.name!r}.",
                outcome=Outcome.CONTEXT_LENGTH,
            )
        return budget.worst_case(held, call.max_output_tokens, lambda usage: self.cost(deployment, usage, batch=batch))

    def cost(
        self, deployment: ConnectedDeployment, usage: Usage, *, batch: bool = False, at: datetime | None = None
    ) -> Decimal | None:
        """Dollars of a usage, `None` without a price.

        Args:
            deployment: Whose prices apply.
            usage: What was or may be consumed.
            batch: Whether through the batch API.
            at: When the call was made; the present by default.
        """
        cost = self._prices.cost(
            deployment.vendor, deployment.model, usage, at or datetime.now(UTC), override=deployment.price
        )
        return cost * BATCH_PRICE if cost is not None and batch else cost


def _offers(catalog: tuple[CatalogEntry, ...], conversation: Conversation) -> tuple[ToolOffer, ...]:
    """The agent's own tools, then the client's; of two with one name, the agent's."""
    own = tuple(entry.offer for entry in catalog)
    names = {offer.name for offer in own}
    return (*own, *(offer for offer in conversation.tools if offer.name not in names))


def _tag(*names: str) -> str:
    """An opaque name for somebody that a provider is told of."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]


def _prompt_tokens(call: ModelCall) -> int:
    schema = json.dumps(call.output_schema) if call.output_schema else ""
    tools = [tool.model_dump_json() for tool in call.tools]
    calls = [asked.model_dump_json() for message in call.messages for asked in message.tool_calls]
    return count_message_tokens([*(message.content for message in call.messages), schema, *tools, *calls])
