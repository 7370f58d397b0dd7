"""The OpenAI chat-completions shape of a reply: chunks, or one whole object, folded into events. Pure.

Source: OpenAI API reference, "The chat completion chunk object".
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.contracts import FinishReason, Usage
from holdfast.providers.pieces import MalformedChunk, ToolCallParts, WholeCharacters, count, mapping, text
from holdfast.providers.protocol import Completed, TextDelta, ToolCallDelta

_FINISH_REASONS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
}
"""Anything else that is not a failure counts as `stop`, so that a server's own word for it does no harm."""

_FAILED_REASONS = frozenset({"error", "abort", "insufficient_system_resource"})
"""Said by vLLM, OpenRouter and other servers instead of an error: the reply is not whole."""


class ChatReply:
    """A reply under construction.

    Args:
        requested: The model asked for; it stands in when the server does not name the one it used.
    """

    def __init__(self, requested: str) -> None:
        self.requested = requested
        self.model = requested
        self.response_id: str | None = None
        self.usage: Usage | None = None
        self.chunks = 0
        """Chunks folded in."""
        self.tokens_begun = False
        """Whether any chunk carried something generated: text, refusal, reasoning or a tool call."""
        self.failed = False
        """Whether the server ended the reply with a reason that means failure."""
        self.ended = False
        """Whether the server said that nothing follows; this shape says it outside of the chunks."""
        self._finish_reason: FinishReason | None = None
        self._refused = False
        self._characters = WholeCharacters()
        self._tool_calls = ToolCallParts()
        self._confidence = _Confidence()

    @property
    def finished(self) -> bool:
        """Whether the server said why it stopped."""
        return self._finish_reason is not None

    def error_in(self, chunk: Any) -> Any | None:
        """The error that a chunk is or carries, in a form `classify` reads; `None` when it is part of a reply."""
        if isinstance(chunk, list):  # Gemini wraps errors, and nothing else, in an array
            return chunk
        if mapping(chunk).get("error"):
            return chunk
        choices = mapping(chunk).get("choices")
        for choice in choices if isinstance(choices, list) else ():  # OpenRouter, when a provider behind it failed
            if mapping(choice).get("error"):
                return choice
        return None

    def add(self, chunk: Any) -> list[TextDelta | ToolCallDelta]:
        """Fold a chunk, or a whole `chat.completion` object, in.

        Returns:
            What it adds, possibly nothing. A refusal's words are text too.

        Raises:
            MalformedChunk: The chunk has another shape.
        """
        if not isinstance(chunk, Mapping):
            raise MalformedChunk
        choices = chunk.get("choices")
        if not isinstance(choices, list) and "usage" not in chunk:
            raise MalformedChunk
        self.chunks += 1
        self.model = text(chunk.get("model")) or self.model
        self.response_id = text(chunk.get("id")) or self.response_id
        # Some servers repeat a running total on every chunk: the last one counts.
        self.usage = read_usage(chunk.get("usage")) or self.usage
        return [event for choice in choices or () if _is_first(choice) for event in self._add_choice(choice)]

    def completed(self) -> Completed:
        """The reply's end as the caller sees it."""
        reason = self._finish_reason or FinishReason.STOP
        calls = self._tool_calls.whole()
        if self._refused and reason in (FinishReason.STOP, FinishReason.CONTENT_FILTER):
            reason = FinishReason.REFUSAL
        elif calls and reason is FinishReason.STOP:  # after a forced call OpenAI, and some servers always, say `stop`
            reason = FinishReason.TOOL_CALLS
        return Completed(reason, self.model, self.response_id, self.usage, calls, self._confidence.mean())

    def _add_choice(self, choice: Mapping[str, Any]) -> Iterator[TextDelta | ToolCallDelta]:
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, Mapping):
            raise MalformedChunk
        if any(value for name, value in delta.items() if name != "role"):
            self.tokens_begun = True
        refusal = text(delta.get("refusal"))
        self._refused = self._refused or bool(refusal)
        if reason := text(choice.get("finish_reason")).lower():
            self.failed = reason in _FAILED_REASONS
            self._finish_reason = _FINISH_REASONS.get(reason, FinishReason.STOP)
        self._confidence.add(mapping(choice.get("logprobs")).get("content"))
        if shown := self._characters.add(_content(delta.get("content")) + refusal):
            yield TextDelta(shown)
        calls = delta.get("tool_calls") or ()
        if not isinstance(calls, list | tuple):
            raise MalformedChunk
        whole = "message" in choice and "delta" not in choice
        for position, part in enumerate(calls):
            if not isinstance(part, Mapping):
                raise MalformedChunk
            function = mapping(part.get("function"))
            yield self._tool_calls.add(
                position if whole else count(part.get("index")),
                text(part.get("id")),
                text(function.get("name")),
                text(function.get("arguments")),
            )


class _Confidence:
    """Geometric mean of token probabilities: `exp` of the mean log probability."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._tokens = 0

    def add(self, tokens: Any) -> None:
        for token in tokens if isinstance(tokens, list) else ():
            value = mapping(token).get("logprob")
            if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
                self._sum += min(0.0, value)
                self._tokens += 1

    def mean(self) -> float | None:
        return math.exp(self._sum / self._tokens) if self._tokens else None


def read_usage(value: Any) -> Usage | None:
    """Token counts in disjoint classes; `None` when absent or not counts.

    OpenAI counts cached and cache-written tokens inside `prompt_tokens`, and reasoning inside `completion_tokens`.
    Gemini leaves reasoning out of the latter and shows it in the total only, so a larger total is believed. `cost_usd`
    is `None`: an adapter knows no prices.
    """
    usage = mapping(value)
    prompt, output = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens", 0))
    if prompt is None or output is None:
        return None
    details = mapping(usage.get("prompt_tokens_details"))
    cached = count(details.get("cached_tokens")) or 0
    written = count(details.get("cache_write_tokens")) or 0
    return Usage(
        input_tokens=max(0, prompt - cached - written),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        output_tokens=max(output, (count(usage.get("total_tokens")) or 0) - prompt),
        cost_usd=None,
    )


def _is_first(choice: Any) -> bool:
    if not isinstance(choice, Mapping):
        raise MalformedChunk
    return bool(choice.get("index", 0) == 0)


def _content(value: Any) -> str:
    """A string, or the text parts of a list (Mistral)."""
    if isinstance(value, list):
        return "".join(
            str(part.get("text", "")) for part in value if isinstance(part, Mapping) and part.get("type") == "text"
        )
    return text(value)
