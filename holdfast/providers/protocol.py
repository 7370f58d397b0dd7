"""What a model provider is: one call in, a stream of events out, failures classified."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from holdfast.contracts import FinishReason, Passage, Usage


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


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


@dataclass(frozen=True)
class TextDelta:
    """A piece of the reply."""

    text: str


@dataclass(frozen=True)
class Completed:
    """The end of the reply. `usage` has tokens only; pricing is not the provider adapter's business."""

    finish_reason: FinishReason
    model: str
    response_id: str | None = None
    usage: Usage | None = None
    """`None` when the provider reported none: the caller counts."""


ModelEvent = TextDelta | Completed


class Provider(Protocol):
    """A way to reach models."""

    def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call: any number of `TextDelta`, then exactly one `Completed`.

        Closing the iterator early aborts the call. A provider never retries by itself.

        Raises:
            ProviderError: Classified by `outcome`; a stream that ends without `Completed` is `BROKEN_STREAM`.
        """
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
