"""Anthropic's shape of a reply: server-sent events, or one whole message, folded into events. Pure.

Source: Anthropic API reference, "Streaming Messages". Its counts are cumulative, so each report replaces the one
before; the output count of `message_start` is a placeholder and never taken for a count.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.contracts import FinishReason, Usage
from holdfast.providers.pieces import MalformedChunk, ToolCallParts, WholeCharacters, count, mapping, text
from holdfast.providers.protocol import Completed, TextDelta, ToolCallDelta

_FINISH_REASONS = {
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "pause_turn": FinishReason.LENGTH,  # the reply is not whole: the server wants to be asked to go on
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.REFUSAL,
}
"""`end_turn`, `stop_sequence` and whatever comes to be added count as `stop`."""


class MessagesReply:
    """A reply under construction.

    Args:
        requested: The model asked for; it stands in when the server does not name the one it used.
    """

    def __init__(self, requested: str) -> None:
        self.requested = requested
        self.model = requested
        self.response_id: str | None = None
        self.chunks = 0
        """Events folded in, `ping` excluded."""
        self.tokens_begun = False
        """Whether anything was generated yet: text, thinking or a tool call."""
        self.failed = False
        """Always false: this API reports a failure as an error event."""
        self.ended = False
        """Whether `message_stop` came."""
        self._finish_reason: FinishReason | None = None
        self._counts: dict[str, int] = {}
        self._counted = False
        self._characters = WholeCharacters()
        self._tool_calls = ToolCallParts()
        self._given_inputs: dict[int, str] = {}

    @property
    def finished(self) -> bool:
        """Whether the server said why it stopped."""
        return self._finish_reason is not None

    def error_in(self, chunk: Any) -> Any | None:
        """The error event, which can follow HTTP 200."""
        event = mapping(chunk)
        return chunk if event.get("type") == "error" or event.get("error") else None

    def add(self, chunk: Any) -> list[TextDelta | ToolCallDelta]:
        """Fold an event, or a whole `message` object, in.

        Returns:
            What it adds, possibly nothing. Thinking is not shown.

        Raises:
            MalformedChunk: The event has another shape. Events of unknown types are skipped, as Anthropic asks for.
        """
        if not isinstance(chunk, Mapping) or not isinstance(kind := chunk.get("type"), str):
            raise MalformedChunk
        if kind == "ping":
            return []
        events = self._fold(kind, chunk)
        self.chunks += 1
        return events

    def completed(self) -> Completed:
        """The reply's end as the caller sees it."""
        reason = self._finish_reason or FinishReason.STOP
        return Completed(reason, self.model, self.response_id, self._usage(), self._tool_calls.whole())

    def _fold(self, kind: str, chunk: Mapping[str, Any]) -> list[TextDelta | ToolCallDelta]:
        match kind:
            case "message_start":
                self._head(_object(chunk.get("message")))
            case "content_block_start":
                return list(self._block(chunk.get("index"), _object(chunk.get("content_block"))))
            case "content_block_delta":
                return list(self._delta(chunk.get("index"), _object(chunk.get("delta"))))
            case "content_block_stop":
                return list(self._end_block(chunk.get("index")))
            case "message_delta":
                self._tail(_object(chunk.get("delta")), chunk.get("usage"))
            case "message_stop":
                self.ended = True
            case "message":
                return self._whole(chunk)
        return []

    def _head(self, message: Mapping[str, Any]) -> None:
        self.model = text(message.get("model")) or self.model
        self.response_id = text(message.get("id")) or self.response_id
        self._count(message.get("usage"))

    def _tail(self, delta: Mapping[str, Any], usage: Any) -> None:
        if reason := text(delta.get("stop_reason")):
            self._finish_reason = _FINISH_REASONS.get(reason, FinishReason.STOP)
        self._count(usage)
        self._counted = self._counted or count(mapping(usage).get("output_tokens")) is not None

    def _block(self, number: Any, block: Mapping[str, Any]) -> Iterator[TextDelta | ToolCallDelta]:
        kind = block.get("type")
        if kind == "tool_use":
            self.tokens_begun = True
            position = count(number)
            if position is None:
                raise MalformedChunk
            if given := block.get("input"):
                self._given_inputs[position] = json.dumps(given, ensure_ascii=False)
            yield self._tool_calls.add(position, text(block.get("id")), text(block.get("name")), "")
        elif kind == "text":
            yield from self._text(text(block.get("text")))
        else:
            self.tokens_begun = True

    def _delta(self, number: Any, delta: Mapping[str, Any]) -> Iterator[TextDelta | ToolCallDelta]:
        match delta.get("type"):
            case "text_delta":
                yield from self._text(text(delta.get("text")))
            case "input_json_delta":
                self.tokens_begun = True
                if piece := text(delta.get("partial_json")):
                    position = count(number)
                    self._given_inputs.pop(-1 if position is None else position, None)
                    yield self._tool_calls.add(position, "", "", piece)
            case _:
                self.tokens_begun = True

    def _end_block(self, number: Any) -> Iterator[ToolCallDelta]:
        position = count(number)
        if position is not None and (given := self._given_inputs.pop(position, None)):
            yield self._tool_calls.add(position, "", "", given)

    def _whole(self, message: Mapping[str, Any]) -> list[TextDelta | ToolCallDelta]:
        blocks = message.get("content")
        if not isinstance(blocks, list):
            raise MalformedChunk
        events: list[TextDelta | ToolCallDelta] = []
        for position, block in enumerate(blocks):
            events += [*self._block(position, _object(block)), *self._end_block(position)]
        self._head(message)
        self._tail(message, message.get("usage"))
        self.ended = True
        return events

    def _text(self, piece: str) -> Iterator[TextDelta]:
        if piece:
            self.tokens_begun = True
            if shown := self._characters.add(piece):
                yield TextDelta(shown)

    def _count(self, usage: Any) -> None:
        for name, value in mapping(usage).items():
            if (tokens := count(value)) is not None:
                self._counts[name] = tokens
        written = mapping(mapping(usage).get("cache_creation"))
        if written and count(mapping(usage).get("cache_creation_input_tokens")) is None:
            self._counts["cache_creation_input_tokens"] = sum(count(tokens) or 0 for tokens in written.values())

    def _usage(self) -> Usage | None:
        """Token counts; the classes of this API are disjoint already. `None` until a final count came."""
        if not self._counted or "input_tokens" not in self._counts:
            return None
        return Usage(
            input_tokens=self._counts["input_tokens"],
            cache_read_tokens=self._counts.get("cache_read_input_tokens", 0),
            cache_write_tokens=self._counts.get("cache_creation_input_tokens", 0),
            output_tokens=self._counts["output_tokens"],
            cost_usd=None,
        )


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedChunk
    return value
