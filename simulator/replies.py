"""Turns a request and a behaviour into the reply that is sent: text or tool calls, its length, why it ends."""

import json
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from holdfast.tokens import count_tokens
from simulator.answers import plain_answer, token_pieces
from simulator.behaviour import Behaviour, Kind
from simulator.errors import ApiError
from simulator.model_request import ModelRequest, Tool
from simulator.schema_instances import JsonSchema, JsonValue, UnsupportedSchema, satisfying, violating
from simulator.turns import turn_of

DEFAULT_BREAK_AFTER_TOKENS = 5
REFUSAL_TEXT = "I'm sorry, but I can't help with that."
_MOST_DRAWS = 20


class Finish(StrEnum):
    """Why a reply ends; each wire format has its own words for it."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    CONTEXT_WINDOW = "context_window"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"


_CUTS = {
    Kind.HANG_MID_STREAM: Finish.STOP,
    Kind.DISCONNECT_MID_STREAM: Finish.STOP,
    Kind.ERROR_MID_STREAM: Finish.STOP,
    Kind.CONTENT_FILTER: Finish.CONTENT_FILTER,
    Kind.TRUNCATED: Finish.LENGTH,
    Kind.CONTEXT_WINDOW_EXCEEDED: Finish.CONTEXT_WINDOW,
}
"""The kinds that show a part of the reply, and why it ends there as far as the client is told."""


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
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = Finish.STOP
    stop_sequence: str | None = None
    """The sequence before which the text ends."""

    @cached_property
    def tokens(self) -> int:
        """Completion tokens, as billed."""
        calls = sum(count_tokens(call.name) + count_tokens(call.arguments) for call in self.tool_calls)
        return count_tokens(self.text) + calls

    def cut(self, tokens: int, finish: Finish) -> "Reply":
        """The first tokens of a text reply; tool calls are never cut."""
        if self.tool_calls:
            return self
        text = next((piece for piece, _ in token_pieces(self.text, tokens)), "") if tokens else ""
        return replace(self, text=text, finish=finish, stop_sequence=None)

    def stopped(self, sequences: tuple[str, ...]) -> "Reply":
        """The text before the first stop sequence in it."""
        found = [(at, sequence) for sequence in sequences if (at := self.text.find(sequence)) >= 0]
        if not found or self.tool_calls:
            return self
        at, sequence = min(found)
        return replace(self, text=self.text[:at], finish=Finish.STOP_SEQUENCE, stop_sequence=sequence)


def whole_reply(request: ModelRequest, behaviour: Behaviour, seed: int) -> Reply:
    """The reply before anything goes wrong with it; at most `max_tokens` long.

    The same request, behaviour and seed give the same reply.

    Raises:
        ApiError: 400 for a schema nothing was found for, 422 for a behaviour that this request cannot have.
    """
    draw = random.Random(f"{seed}\0{request.model}\0{json.dumps(request.messages, sort_keys=True)}")  # noqa: S311
    if behaviour.turns and behaviour.kind is Kind.OK and behaviour.content is None:
        turn = turn_of(behaviour.turns, request.messages, request.question, may_call=request.may_call)
        kind = Kind.TOOL_CALLS if turn.tool_calls else Kind.OK
        behaviour = replace(behaviour, kind=kind, content=turn.content, tool_calls=turn.tool_calls)
    if behaviour.kind is Kind.TOOL_CALLS or request.forced_tool is not None:
        calls = _tool_calls(request, behaviour, draw)
        return Reply(behaviour.content or "", calls, Finish.TOOL_CALLS)
    if behaviour.kind is Kind.REFUSAL:
        reply = Reply(behaviour.content or REFUSAL_TEXT, finish=Finish.REFUSAL)
    else:
        reply = Reply(_content(request, behaviour, draw))
    if request.stop:
        reply = reply.stopped(request.stop)
    if request.max_tokens is not None and reply.tokens > request.max_tokens:
        return reply.cut(request.max_tokens, Finish.LENGTH)
    return reply


def shown_reply(reply: Reply, behaviour: Behaviour) -> Reply:
    """The part of a reply that is generated before the behaviour ends it."""
    finish = _CUTS.get(behaviour.kind)
    if finish is None:
        return reply
    if behaviour.after_tokens is not None:
        tokens = behaviour.after_tokens
    elif finish in (Finish.LENGTH, Finish.CONTEXT_WINDOW):
        tokens = reply.tokens // 2
    else:
        tokens = DEFAULT_BREAK_AFTER_TOKENS
    return reply.cut(tokens, finish)


def _content(request: ModelRequest, behaviour: Behaviour, draw: random.Random) -> str:
    if behaviour.content is not None:
        return behaviour.content
    answer = right = plain_answer(request.question, behaviour.completion_tokens, draw)
    if behaviour.kind is Kind.CONFIDENTLY_WRONG:
        answer = plain_answer(request.question, behaviour.completion_tokens, draw, wrong=True)
    schema: JsonSchema | None = request.schema
    asks_json = schema is not None or request.json_object
    if not asks_json and behaviour.kind not in (Kind.SCHEMA_VIOLATING_JSON, Kind.REPAIRABLE_JSON):
        return answer
    try:
        value = {"answer": answer} if schema is None else satisfying(schema, draw, right)
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
        case Kind.CONFIDENTLY_WRONG if schema is not None:
            return json.dumps(_other(schema, value, draw, answer), ensure_ascii=False)
        case _:
            return json.dumps(value, ensure_ascii=False)


def _other(schema: JsonSchema, value: JsonValue, draw: random.Random, answer: str) -> JsonValue:
    """Another value of the schema: the one that shares fewest properties with the right one, of some draws."""
    drawn = [satisfying(schema, draw, answer) for _ in range(_MOST_DRAWS)]
    if not isinstance(value, dict):
        return next((other for other in drawn if other != value), value)
    return min(drawn, key=lambda other: sum(other.get(name) == part for name, part in value.items()))


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


def _tool_calls(request: ModelRequest, behaviour: Behaviour, draw: random.Random) -> tuple[ToolCall, ...]:
    calls = [(call["name"], call.get("arguments", {})) for call in behaviour.tool_calls]
    if not calls:
        tool = request.forced_tool or (request.tools[0] if request.tools else None)
        if tool is None:
            raise _impossible("`tool_calls` needs `tools` in the request, or the behaviour's own `tool_calls`.")
        calls = [(tool.name, _arguments(tool, draw))]
    return tuple(
        ToolCall(
            f"call_{draw.getrandbits(96):024x}",
            name,
            # A text is what a model writes that does not know JSON.
            arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
        )
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
