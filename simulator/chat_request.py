"""Reads OpenAI's chat completion requests, by hand because the simulator is load-tested beside its clients."""

import json
from collections.abc import Mapping
from typing import Any

from holdfast.tokens import MESSAGE_OVERHEAD_TOKENS
from simulator.model_request import (
    ModelRequest,
    Segment,
    Tool,
    chosen_tool,
    count_repeated,
    invalid,
    read_messages,
    read_model,
    read_texts,
)
from simulator.schema_instances import JsonSchema


def read_chat_request(given: Mapping[str, Any]) -> ModelRequest:
    """Read a request.

    Every message ends a prefix that the prompt cache may keep (OpenAI documentation, "Prompt caching").

    Raises:
        ApiError: 400, naming the parameter.
    """
    model = read_model(given)
    if given.get("n") not in (None, 1):
        raise invalid("The simulator answers with one choice; leave `n` out.", "n")
    messages = read_messages(given.get("messages"))
    schema, json_object = _response_format(given.get("response_format"))
    tools = _tools(given.get("tools"))
    options = given.get("stream_options") or {}
    cache_key = given.get("prompt_cache_key")
    segments = []
    for extra in (given.get("tools"), schema):
        if extra:
            written = json.dumps(extra, separators=(",", ":"))
            segments.append(Segment(written, count_repeated(written), True))
    for message in messages:
        text = _text(message)
        tokens = count_repeated(text) + MESSAGE_OVERHEAD_TOKENS
        segments.append(Segment(f"{message['role']}\0{text}", tokens, True))
    return ModelRequest(
        model=model,
        messages=messages,
        question=_question(messages),
        segments=tuple(segments),
        prompt_tokens=sum(segment.tokens for segment in segments) + MESSAGE_OVERHEAD_TOKENS,
        stream=given.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        logprobs=given.get("logprobs") is True,
        max_tokens=_max_tokens(given),
        stop=read_texts(given.get("stop"), "stop"),
        cache_key=cache_key if isinstance(cache_key, str) else "",
        schema=schema,
        json_object=json_object,
        tools=tools,
        forced_tool=_forced_tool(given.get("tool_choice"), tools),
        may_call=bool(tools) and given.get("tool_choice") != "none",
    )


def _question(messages: list[dict[str, Any]]) -> str:
    """Text of the last user message, or of the last message if no user speaks."""
    for message in reversed(messages):
        if message["role"] == "user":
            return _text(message)
    return _text(messages[-1])


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
                raise invalid(f"`{name}` has to be an integer of at least 1.", name)
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
    raise invalid(
        "`response_format` has to be of type text, json_object, or json_schema with a `name` and a `schema`.",
        "response_format",
    )


def _tools(given: object) -> tuple[Tool, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise invalid("`tools` has to be a list.", "tools")
    tools = []
    for position, tool in enumerate(given):
        match tool:
            case {"type": "function", "function": {"name": str(name), **rest}}:
                parameters = rest.get("parameters")
                tools.append(Tool(name, parameters if isinstance(parameters, dict) else {"type": "object"}))
            case _:
                raise invalid(f"`tools[{position}]` has to be a function with a name.", f"tools[{position}]")
    return tuple(tools)


def _forced_tool(choice: object, tools: tuple[Tool, ...]) -> Tool | None:
    match choice:
        case None | "auto" | "none":
            return None
        case "required" if tools:
            return tools[0]
        case {"type": "function", "function": {"name": name}} if tool := chosen_tool(name, tools):
            return tool
    raise invalid("`tool_choice` has to be none, auto, required, or one of the request's `tools`.", "tool_choice")
