"""Turns a request and a behaviour into the reply that is sent: text or tool calls, its length, its finish reason."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from holdfast.tokens import count_tokens
from simulator.answers import plain_answer, token_pieces
from simulator.behaviour import Behaviour, Kind
from simulator.chat_request import ChatRequest, Tool
from simulator.errors import ApiError
from simulator.schema_instances import JsonSchema, JsonValue, UnsupportedSchema, satisfying, violating

DEFAULT_BREAK_AFTER_TOKENS = 5
REFUSAL_TEXT = "I'm sorry, but I can't help with that."
_CUT_SHORT = (Kind.HANG_MID_STREAM, Kind.DISCONNECT_MID_STREAM, Kind.CONTENT_FILTER, Kind.TRUNCATED)


@dataclass(frozen=True)
class ToolCall:
    """A call the model asks for."""

    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True)
class Reply:
    """What the model says."""

    text: str = ""
    channel: Literal["content", "refusal"] = "content"
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] = "stop"

    @cached_property
    def tokens(self) -> int:
        """Completion tokens, as billed."""
        calls = sum(count_tokens(call.name) + count_tokens(call.arguments) for call in self.tool_calls)
        return count_tokens(self.text) + calls

    def message(self) -> dict[str, Any]:
        """The reply as `choices[0].message`."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        else:
            message[self.channel] = self.text
        return message

    def deltas(self, size: int) -> Iterator[tuple[dict[str, Any], int]]:
        """The reply as `choices[0].delta`s of at most `size` tokens, each with its number of tokens."""
        for piece, count in token_pieces(self.text, size):
            yield {self.channel: piece}, count
        for index, call in enumerate(self.tool_calls):
            head = {"index": index, "id": call.id, "type": "function"}
            yield {"tool_calls": [head | {"function": {"name": call.name, "arguments": ""}}]}, count_tokens(call.name)
            for piece, count in token_pieces(call.arguments, size):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, count

    def cut(self, tokens: int, finish_reason: Literal["stop", "length", "content_filter"]) -> "Reply":
        """The first tokens of a text reply; tool calls are never cut."""
        if self.tool_calls:
            return self
        text = next((piece for piece, _ in token_pieces(self.text, tokens)), "") if tokens else ""
        return replace(self, text=text, finish_reason=finish_reason)


def whole_reply(request: ChatRequest, behaviour: Behaviour, seed: int) -> Reply:
    """The reply before anything goes wrong with it; at most `max_tokens` long.

    The same request, behaviour and seed give the same reply.

    Raises:
        ApiError: 400 for a schema nothing was found for, 422 for a behaviour that this request cannot have.
    """
    draw = random.Random(f"{seed}\0{request.model}\0{json.dumps(request.messages, sort_keys=True)}")  # noqa: S311
    if behaviour.kind is Kind.TOOL_CALLS or request.forced_tool is not None:
        return Reply(tool_calls=_tool_calls(request, behaviour, draw), finish_reason="tool_calls")
    if behaviour.kind is Kind.REFUSAL:
        reply = Reply(behaviour.content or REFUSAL_TEXT, channel="refusal")
    else:
        reply = Reply(_content(request, behaviour, draw))
    if request.max_tokens is not None and reply.tokens > request.max_tokens:
        return reply.cut(request.max_tokens, "length")
    return reply


def shown_reply(reply: Reply, behaviour: Behaviour) -> Reply:
    """The part of a reply that is generated before the behaviour ends it."""
    if behaviour.kind not in _CUT_SHORT:
        return reply
    if behaviour.after_tokens is not None:
        tokens = behaviour.after_tokens
    else:
        tokens = reply.tokens // 2 if behaviour.kind is Kind.TRUNCATED else DEFAULT_BREAK_AFTER_TOKENS
    match behaviour.kind:
        case Kind.TRUNCATED:
            return reply.cut(tokens, "length")
        case Kind.CONTENT_FILTER:
            return reply.cut(tokens, "content_filter")
        case _:
            return reply.cut(tokens, "stop")


def _content(request: ChatRequest, behaviour: Behaviour, draw: random.Random) -> str:
    if behaviour.content is not None:
        return behaviour.content
    answer = plain_answer(request.question, behaviour.completion_tokens, draw)
    schema: JsonSchema | None = request.schema
    asks_json = schema is not None or request.json_object
    if not asks_json and behaviour.kind not in (Kind.SCHEMA_VIOLATING_JSON, Kind.REPAIRABLE_JSON):
        return answer
    try:
        value = {"answer": answer} if schema is None else satisfying(schema, draw, answer)
    except UnsupportedSchema as error:
        name = "response_format.json_schema.schema"
        raise ApiError(
            400, f"Invalid schema for response_format: {error}.", type="invalid_request_error", param=name
        ) from error
    match behaviour.kind:
        case Kind.SCHEMA_VIOLATING_JSON:
            return json.dumps(_violation(schema, value), ensure_ascii=False)
        case Kind.REPAIRABLE_JSON:
            return repairable(value)
        case _:
            return json.dumps(value, ensure_ascii=False)


def _violation(schema: JsonSchema | None, value: JsonValue) -> JsonValue:
    if schema is None:
        return {"unexpected": True}
    try:
        return violating(schema, value)
    except UnsupportedSchema as error:
        raise _impossible(f"`schema_violating_json` is impossible: {error}.") from error


def repairable(value: JsonValue) -> str:
    """JSON in a code fence, with a trailing comma wherever it has a bracket to stand before."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if len(text) > 2 and text[-1] in "}]":
        text = f"{text[:-1].rstrip()},\n{text[-1]}"
    return f"```json\n{text}\n```"


def _tool_calls(request: ChatRequest, behaviour: Behaviour, draw: random.Random) -> tuple[ToolCall, ...]:
    calls = [(call["name"], call.get("arguments", {})) for call in behaviour.tool_calls]
    if not calls:
        tool = request.forced_tool or (request.tools[0] if request.tools else None)
        if tool is None:
            raise _impossible("`tool_calls` needs `tools` in the request, or the behaviour's own `tool_calls`.")
        calls = [(tool.name, _arguments(tool, draw))]
    return tuple(
        ToolCall(f"call_{draw.getrandbits(96):024x}", name, json.dumps(arguments, ensure_ascii=False))
        for name, arguments in calls
    )


def _arguments(tool: Tool, draw: random.Random) -> JsonValue:
    try:
        return satisfying(tool.parameters, draw)
    except UnsupportedSchema as error:
        raise ApiError(
            400, f"Invalid schema for function {tool.name!r}: {error}.", type="invalid_request_error", param="tools"
        ) from error


def _impossible(message: str) -> ApiError:
    return ApiError(422, message, type="invalid_request_error", code="invalid_behaviour", param="kind")
