"""Reads Anthropic's messages requests, by hand because the simulator is load-tested beside its clients."""

import json
from collections.abc import Iterator, Mapping
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

MOST_BREAKPOINTS = 4


def read_messages_request(given: Mapping[str, Any]) -> ModelRequest:
    """Read a request.

    A block with `cache_control` ends a prefix that the prompt cache keeps, in the order tools, system, messages
    (Anthropic documentation, "Prompt caching").

    Raises:
        ApiError: 400.
    """
    model = read_model(given)
    max_tokens = given.get("max_tokens")
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise invalid("max_tokens: an integer of at least 1 is required.", "max_tokens")
    messages = read_messages(given.get("messages"))
    for position, message in enumerate(messages):
        if message["role"] not in ("user", "assistant"):
            raise invalid(f"messages.{position}.role: has to be user or assistant.", f"messages.{position}.role")
    tools = _tools(given.get("tools"))
    segments = [*_prefix_segments(given), *_message_segments(messages)]
    if segments and _is_breakpoint(given, "request"):
        segments[-1] = segments[-1]._replace(breakpoint=True)
    if sum(segment.breakpoint for segment in segments) > MOST_BREAKPOINTS:
        raise invalid(f"A maximum of {MOST_BREAKPOINTS} blocks with cache_control may be provided.", "cache_control")
    return ModelRequest(
        model=model,
        messages=messages,
        question=_question(messages),
        segments=tuple(segments),
        prompt_tokens=sum(segment.tokens for segment in segments) + MESSAGE_OVERHEAD_TOKENS,
        stream=given.get("stream") is True,
        include_usage=True,
        max_tokens=max_tokens,
        stop=read_texts(given.get("stop_sequences"), "stop_sequences"),
        cached_for_an_hour=_asks_for_an_hour(given),
        schema=_output_schema(given.get("output_config")),
        tools=tools,
        forced_tool=_forced_tool(given.get("tool_choice"), tools),
        may_call=bool(tools) and given.get("tool_choice") != {"type": "none"},
    )


def _prefix_segments(given: Mapping[str, Any]) -> Iterator[Segment]:
    for position, tool in enumerate(given.get("tools") or ()):
        yield _segment(tool, json.dumps(_plain(tool), separators=(",", ":")), f"tools.{position}")
    if output := given.get("output_config"):
        written = json.dumps(output, separators=(",", ":"))
        yield Segment(written, count_repeated(written), False)
    system = given.get("system") or []
    if not isinstance(system, str | list):
        raise invalid("system: has to be a string or a list of text blocks.", "system")
    for position, block in enumerate([{"type": "text", "text": system}] if isinstance(system, str) else system):
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise invalid(f"system.{position}: has to be a text block.", f"system.{position}")
        yield _segment(block, block["text"], f"system.{position}")


def _message_segments(messages: list[dict[str, Any]]) -> Iterator[Segment]:
    for number, message in enumerate(messages):
        given = message.get("content") or ""
        blocks = [{"type": "text", "text": given}] if isinstance(given, str) else given
        framing = MESSAGE_OVERHEAD_TOKENS
        for position, block in enumerate(blocks):
            at = f"messages.{number}.content.{position}"
            if not isinstance(block, dict) or not isinstance(block.get("type"), str):
                raise invalid(f"{at}: has to be a block with a `type`.", at)
            content = f"{message['role']}\0{json.dumps(_plain(block), sort_keys=True)}"
            yield Segment(content, count_repeated(_block_text(block)) + framing, _is_breakpoint(block, at))
            framing = 0


def _segment(block: Mapping[str, Any], content: str, at: str) -> Segment:
    return Segment(content, count_repeated(content), _is_breakpoint(block, at))


def _is_breakpoint(block: Mapping[str, Any], at: str) -> bool:
    match block.get("cache_control"):
        case None:
            return False
        case {"type": "ephemeral", **rest} if rest.get("ttl", "5m") in ("5m", "1h"):
            return True
    raise invalid(f"{at}.cache_control: has to be of type ephemeral, with a ttl of 5m or 1h.", at)


def _asks_for_an_hour(given: Mapping[str, Any]) -> bool:
    system = given.get("system") or []
    contents = [message.get("content") or [] for message in given["messages"]]
    blocks = [given, *(given.get("tools") or ())]
    for part in (system, *contents):
        blocks += [] if isinstance(part, str) else part
    return any((block.get("cache_control") or {}).get("ttl") == "1h" for block in blocks)


def _plain(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block without its marker: moving a breakpoint does not change the prefix."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def _block_text(block: object) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "tool_use", "name": name, "input": arguments}:
            return f"{name}{json.dumps(arguments)}"
        case {"type": "tool_result", "content": (str() | list()) as content}:
            return content if isinstance(content, str) else "".join(map(_block_text, content))
    return ""


def _question(messages: list[dict[str, Any]]) -> str:
    """Text of the last user message that has any; results of tools are not questions."""
    for message in reversed(messages):
        if message["role"] == "user" and (text := _text(message)):
            return text
    return _text(messages[-1])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(_block_text(block) for block in content if block.get("type") == "text")


def _output_schema(given: object) -> JsonSchema | None:
    match given:
        case None:
            return None
        case {"format": {"type": "json_schema", "schema": (dict() | bool()) as schema}}:
            return schema
        case dict() if given.get("format") is None:
            return None
    raise invalid("output_config.format: has to be of type json_schema with a schema.", "output_config.format")


def _tools(given: object) -> tuple[Tool, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise invalid("tools: has to be a list.", "tools")
    tools = []
    for position, tool in enumerate(given):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise invalid(f"tools.{position}.name: a string is required.", f"tools.{position}.name")
        schema = tool.get("input_schema")
        if "type" not in tool and not isinstance(schema, dict):
            at = f"tools.{position}.input_schema"
            raise invalid(f"{at}: a JSON Schema is required.", at)
        tools.append(Tool(tool["name"], schema if isinstance(schema, dict) else {"type": "object"}))
    return tuple(tools)


def _forced_tool(choice: object, tools: tuple[Tool, ...]) -> Tool | None:
    match choice:
        case None | {"type": "auto" | "none"}:
            return None
        case {"type": "any"} if tools:
            return tools[0]
        case {"type": "tool", "name": name} if tool := chosen_tool(name, tools):
            return tool
    raise invalid("tool_choice: has to be auto, any, none, or one of the request's tools.", "tool_choice")
