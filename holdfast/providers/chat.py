"""The OpenAI chat-completions shape: one request body out, chunks folded into one reply. Pure.

Source: OpenAI API reference, "Create chat completion" and "The chat completion chunk object".
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from holdfast.contracts import FinishReason, Usage
from holdfast.providers.protocol import Completed, ModelCall

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]
"""How a server spells the reply limit: the first is OpenAI's name since 2024, the second the older one."""

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
"""Said by vLLM and other servers instead of an error: the reply is not whole."""


class MalformedChunk(Exception):
    """A chunk that is not in the chat-completions shape."""


def request_body(call: ModelCall, max_tokens_field: MaxTokensField) -> dict[str, Any]:
    """The JSON body of `POST /chat/completions`, streamed, with usage at the end."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [{"role": message.role, "content": message.content} for message in call.messages],
        max_tokens_field: call.max_output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if call.temperature is not None:
        body["temperature"] = call.temperature
    if call.seed is not None:
        body["seed"] = call.seed
    if call.output_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": _schema_name(call.output_schema),
                "schema": call.output_schema,
                "strict": _may_be_strict(call.output_schema),
            },
        }
    return body


def _may_be_strict(schema: Any) -> bool:
    """Whether a schema fits OpenAI's strict mode, which answers 400 to open objects and to optional properties.

    Source: OpenAI, "Structured model outputs", supported schemas. What does not fit is sent as a hint; the reply is
    validated either way.
    """
    if isinstance(schema, list):
        return all(_may_be_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict) or schema.get("type") == "object":
        required = schema.get("required", [])
        closed = schema.get("additionalProperties") is False
        if not closed or not isinstance(required, list) or set(properties or {}) - set(required):
            return False
    return all(_may_be_strict(value) for value in schema.values())


def _schema_name(schema: Mapping[str, Any]) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title", "")))[:64].strip("_") or "reply"


class Reply:
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
        self._finish_reason: FinishReason | None = None
        self._refused = False
        self._half_character = ""

    @property
    def finished(self) -> bool:
        """Whether the server said why it stopped."""
        return self._finish_reason is not None

    def add(self, chunk: Any) -> str:
        """Fold a chunk, or a whole `chat.completion` object, in.

        Returns:
            The text it adds, possibly none. A refusal's words are text too.

        Raises:
            MalformedChunk: The chunk has another shape.
        """
        if not isinstance(chunk, Mapping):
            raise MalformedChunk
        choices = chunk.get("choices")
        if not isinstance(choices, list) and "usage" not in chunk:
            raise MalformedChunk
        self.chunks += 1
        if isinstance(model := chunk.get("model"), str) and model:
            self.model = model
        if isinstance(response_id := chunk.get("id"), str) and response_id:
            self.response_id = response_id
        # Some servers repeat a running total on every chunk: the last one counts.
        self.usage = read_usage(chunk.get("usage")) or self.usage
        return "".join(self._add_choice(choice) for choice in choices or () if _is_first(choice))

    def completed(self) -> Completed:
        """The reply's end as the caller sees it."""
        reason = self._finish_reason or FinishReason.STOP
        if self._refused and reason in (FinishReason.STOP, FinishReason.CONTENT_FILTER):
            reason = FinishReason.REFUSAL
        return Completed(reason, self.model, self.response_id, self.usage)

    def _add_choice(self, choice: Mapping[str, Any]) -> str:
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, Mapping):
            raise MalformedChunk
        if any(value for name, value in delta.items() if name != "role"):
            self.tokens_begun = True
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refused = True
        else:
            refusal = ""
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.failed = reason.lower() in _FAILED_REASONS
            self._finish_reason = _FINISH_REASONS.get(reason.lower(), FinishReason.STOP)
        return self._whole_characters(_content(delta.get("content")) + refusal)

    def _whole_characters(self, text: str) -> str:
        """Text without lone surrogates, which JSON escapes can smuggle in and UTF-8 cannot write.

        A pair that was cut between two chunks is put together again.
        """
        text = self._half_character + text
        self._half_character = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half_character = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_usage(value: Any) -> Usage | None:
    """Token counts in disjoint classes; `None` when absent or not counts.

    OpenAI counts cached tokens inside `prompt_tokens`. `cost_usd` is `None`: an adapter knows no prices.
    """
    if not isinstance(value, Mapping):
        return None
    prompt, output = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens", 0))
    details = value.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    written = _count(details.get("cache_write_tokens")) if isinstance(details, Mapping) else 0
    if prompt is None or output is None:
        return None
    return Usage(
        input_tokens=max(0, prompt - (cached or 0) - (written or 0)),
        cache_read_tokens=cached or 0,
        cache_write_tokens=written or 0,
        output_tokens=output,
        cost_usd=None,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


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
    return value if isinstance(value, str) else ""
