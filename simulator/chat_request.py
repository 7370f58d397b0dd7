"""What a chat completion request asks for, checked by hand because the simulator is load-tested beside its clients."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from holdfast.tokens import MESSAGE_OVERHEAD_TOKENS, count_tokens
from simulator.errors import ApiError
from simulator.schema_instances import JsonSchema

_count = lru_cache(maxsize=1024)(count_tokens)
"""System prompts, schemas and tools repeat from call to call."""


@dataclass(frozen=True)
class Tool:
    """A function the model may call."""

    name: str
    parameters: JsonSchema


@dataclass(frozen=True)
class ChatRequest:
    """The parts of a request that bear on the answer."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    prompt_tokens: int
    """Messages with framing, plus tool definitions and output schema, which providers count too."""
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    schema: JsonSchema | None = None
    json_object: bool = False
    """Whether any JSON object will do (`response_format` of type `json_object`)."""
    tools: tuple[Tool, ...] = ()
    forced_tool: Tool | None = None
    """The tool that `tool_choice` obliges the model to call."""

    @property
    def question(self) -> str:
        """Text of the last user message, or of the last message if no user speaks."""
        for message in reversed(self.messages):
            if message["role"] == "user":
                return _text(message)
        return _text(self.messages[-1])


def read_chat_request(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        ApiError: 400 in OpenAI's error shape, naming the parameter.
    """
    try:
        given = json.loads(body)
    except ValueError as error:
        raise _invalid("The request body is not JSON.", None) from error
    if not isinstance(given, dict):
        raise _invalid("The request body is not a JSON object.", None)
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise _invalid("`model` has to be the name of a model.", "model")
    if given.get("n") not in (None, 1):
        raise _invalid("The simulator answers with one choice; leave `n` out.", "n")
    messages = _messages(given.get("messages"))
    schema, json_object = _response_format(given.get("response_format"))
    tools = _tools(given.get("tools"))
    options = given.get("stream_options") or {}
    prompt_tokens = sum(_count(_text(message)) + MESSAGE_OVERHEAD_TOKENS for message in messages)
    for extra in (given.get("tools"), schema):
        if extra:
            prompt_tokens += _count(json.dumps(extra, separators=(",", ":")))
    return ChatRequest(
        model=model,
        messages=messages,
        prompt_tokens=prompt_tokens + MESSAGE_OVERHEAD_TOKENS,
        stream=given.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=_max_tokens(given),
        schema=schema,
        json_object=json_object,
        tools=tools,
        forced_tool=_forced_tool(given.get("tool_choice"), tools),
    )


def _invalid(message: str, param: str | None) -> ApiError:
    return ApiError(400, message, type="invalid_request_error", param=param)


def _messages(given: object) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise _invalid("`messages` has to be a list with at least one message.", "messages")
    for position, message in enumerate(given):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _invalid(f"`messages[{position}]` has to be an object with a `role`.", f"messages[{position}].role")
        if not isinstance(message.get("content"), str | list | None):
            raise _invalid(
                f"`messages[{position}].content` has to be a string or a list of parts.",
                f"messages[{position}].content",
            )
    return given


def _text(message: Mapping[str, Any]) -> str:
    """The message's text: its content or text parts, and the calls an assistant made."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    calls = message.get("tool_calls")
    return f"{content}{json.dumps(calls)}" if calls else str(content)


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = given.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _invalid(f"`{name}` has to be an integer of at least 1.", name)
            return value
    return None


def _response_format(given: object) -> tuple[JsonSchema | None, bool]:
    if given is None:
        return None, False
    match given:
        case {"type": "text"}:
            return None, False
        case {"type": "json_object"}:
            return None, True
        case {"type": "json_schema", "json_schema": {"name": str(), "schema": (dict() | bool()) as schema}}:
            return schema, False
    raise _invalid(
        "`response_format` has to be of type text, json_object, or json_schema with a `name` and a `schema`.",
        "response_format",
    )


def _tools(given: object) -> tuple[Tool, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise _invalid("`tools` has to be a list.", "tools")
    tools = []
    for position, tool in enumerate(given):
        match tool:
            case {"type": "function", "function": {"name": str(name), **rest}}:
                parameters = rest.get("parameters")
                tools.append(Tool(name, parameters if isinstance(parameters, dict) else {"type": "object"}))
            case _:
                raise _invalid(f"`tools[{position}]` has to be a function with a name.", f"tools[{position}]")
    return tuple(tools)


def _forced_tool(choice: object, tools: tuple[Tool, ...]) -> Tool | None:
    match choice:
        case None | "auto" | "none":
            return None
        case "required" if tools:
            return tools[0]
        case {"type": "function", "function": {"name": name}}:
            for tool in tools:
                if tool.name == name:
                    return tool
    raise _invalid("`tool_choice` has to be none, auto, required, or one of the request's `tools`.", "tool_choice")
