"""What a model provider is: one call in, a stream of events out, failures classified."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from holdfast.contracts import FinishReason, Passage, ToolCall, ToolOffer, Usage


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """What an `assistant` turn asked for."""
    tool_call_id: str | None = None
    """Which call a `tool` turn answers."""


@dataclass(frozen=True)
class Timeouts:
    """Bounds of one model call. Each is about silence, except `total`."""

    connect: timedelta = timedelta(seconds=5)
    first_token: timedelta = timedelta(seconds=60)
    between_tokens: timedelta = timedelta(seconds=30)
    total: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class ModelCall:
    """Everything a provider needs to answer once."""

    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    question: str
    """The sanitized question, for providers that do not read prompts (`extractive`)."""
    passages: tuple[Passage, ...] = ()
    """The retrieved passages, best first; marker `[n]` is the n-th, counted from 1."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema of the reply, if it has to be JSON."""
    temperature: float | None = None
    seed: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    attempt_id: str = ""
    """The ledger's attempt, sent as `X-Client-Request-Id` so that both sides' records can be matched."""
    tools: tuple[ToolOffer, ...] = ()
    tool_choice: str | None = None
    """`auto`, `none`, `required` or the name of the one tool to call; `None` leaves it to the provider."""
    parallel_tool_calls: bool | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the reply."""
    top_p: float | None = None
    logprobs: bool = False
    """Whether to ask for the probabilities that `Completed.confidence` is made of."""
    stable_messages: int = 0
    """How many leading messages are the same from call to call, so that a provider can keep them in its cache."""
    cache_key: str | None = None
    """Groups calls that share a prefix, for providers that route by it."""
    user_tag: str | None = None
    """Opaque id of the end user, for the provider's abuse detection; never a name or an address."""
    tenant_tag: str | None = None
    """Opaque id of the tenant, for servers that can keep tenants' prompt caches apart."""
    context_window: int | None = None
    """Tokens that prompt and reply may have together, for servers that cut off what does not fit and say nothing."""


@dataclass(frozen=True)
class TextDelta:
    """A piece of the reply."""

    text: str


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call. Pieces of one call share `index`."""

    index: int
    """Which call of the reply, counted from 0."""
    id: str
    """The whole id, on the first piece; empty on the others."""
    name: str
    """The whole name, on the first piece; empty on the others."""
    arguments: str
    """The next characters of the arguments' JSON text."""


@dataclass(frozen=True)
class Completed:
    """The end of the reply. `usage` has tokens only; pricing is not the provider adapter's business."""

    finish_reason: FinishReason
    model: str
    response_id: str | None = None
    usage: Usage | None = None
    """`None` when the provider reported none: the caller counts."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Every tool call of the reply, whole."""
    confidence: float | None = None
    """Geometric mean of the reply's token probabilities, 0 to 1; `None` when the provider gave none."""


ModelEvent = TextDelta | ToolCallDelta | Completed


class Provider(Protocol):
    """A way to reach models."""

    def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call: any number of `TextDelta` and `ToolCallDelta`, then exactly one `Completed`.

        Closing the iterator early aborts the call. A provider never retries by itself.

        Raises:
            ProviderError: Classified by `outcome`; a stream that ends without `Completed` is `BROKEN_STREAM`.
        """
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
