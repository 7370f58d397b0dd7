"""The body of Anthropic's `POST /v1/messages`. Pure.

Source: Anthropic API reference, "Create a Message", "Tool use", "Prompt caching" and "Structured outputs".
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from holdfast.contracts import ToolCall, ToolOffer
from holdfast.providers.protocol import Message, ModelCall
from holdfast.providers.schema_subset import expressible

Block = dict[str, Any]

_EPHEMERAL = {"type": "ephemeral"}
"""At most four blocks of a call may carry it; here it is three: the last tool, the system's and the history's end."""

_NO_TEXT = "(no text)"
"""Stands for a conversation that says nothing, because an empty one is refused."""

_SCHEMA_HINT = "Reply with one JSON document and nothing else. It must satisfy this JSON Schema:\n{schema}"

_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def request_body(call: ModelCall, *, stream: bool = True) -> dict[str, Any]:
    """The JSON body. Nothing that was not set is in it, above all no temperature, which newer models refuse.

    Args:
        call: What to ask. `seed`, `logprobs` and `cache_key` have no counterpart here.
        stream: Whether the reply shall come in pieces; a batch cannot.
    """
    system = [_text(message.content) for message in call.messages if message.role == "system" and message.content]
    format_, hint = _output_format(call.output_schema)
    turns, stable_end = _turns(call)
    tools = [_tool(tool) for tool in call.tools]
    if call.stable_messages:
        for stable in (tools[-1:], system[-1:], stable_end):
            for block in stable:
                block["cache_control"] = _EPHEMERAL
    optional = {
        "system": [*system, *hint],
        "tools": tools,
        "tool_choice": _tool_choice(call) if tools else None,
        "output_config": format_,
        "stop_sequences": [stop for stop in call.stop if stop.strip()],  # blank ones are refused
        "metadata": {"user_id": call.user_tag} if call.user_tag else None,
    }
    configured = {"temperature": call.temperature, "top_p": call.top_p, "stream": True if stream else None}
    return {
        "model": call.model,
        "max_tokens": call.max_output_tokens,
        "messages": turns,
        **{name: value for name, value in optional.items() if value},
        **{name: value for name, value in configured.items() if value is not None},
    }


def _turns(call: ModelCall) -> tuple[list[dict[str, Any]], list[Block]]:
    """User and assistant turns, alternating, and the last block of the stable ones, if any."""
    turns: list[dict[str, Any]] = []
    stable_end: list[Block] = []
    for position, message in enumerate(call.messages):
        blocks = [] if message.role == "system" else _blocks(message)
        if not blocks:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
        if position < call.stable_messages:
            stable_end = blocks[-1:]
    return turns or [{"role": "user", "content": [_text(_NO_TEXT)]}], stable_end


def _blocks(message: Message) -> list[Block]:
    if message.role == "tool":
        result: Block = {"type": "tool_result", "tool_use_id": _lawful_id(message.tool_call_id or "")}
        return [result | ({"content": message.content} if message.content.strip() else {})]
    text = [_text(message.content)] if message.content.strip() else []  # blank blocks are refused
    return text + [_tool_use(made) for made in message.tool_calls]


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _tool_use(made: ToolCall) -> Block:
    try:
        given = json.loads(made.arguments)
    except (ValueError, RecursionError):
        given = None
    # The API takes objects only; what the model wrote instead has to be seen for the result to make sense.
    shown = given if isinstance(given, dict) else {"arguments": made.arguments}
    return {"type": "tool_use", "id": _lawful_id(made.id), "name": made.name, "input": shown}


def _lawful_id(call_id: str) -> str:
    """An id in Anthropic's alphabet; a fallback can bring ids that another provider made."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", call_id) or "_"


def _tool(tool: ToolOffer) -> Block:
    shown: Block = {"name": tool.name, "input_schema": {"type": "object", **tool.parameters}}
    if tool.description:
        shown["description"] = tool.description
    if tool.strict:
        shown["strict"] = True
    return shown


def _tool_choice(call: ModelCall) -> dict[str, Any] | None:
    choice = call.tool_choice
    alone = {"disable_parallel_tool_use": True} if call.parallel_tool_calls is False else {}
    if choice is None:
        return {"type": "auto", **alone} if alone else None
    if choice == "none":
        return {"type": "none"}
    return {"type": _CHOICES[choice], **alone} if choice in _CHOICES else {"type": "tool", "name": choice, **alone}


def _output_format(schema: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, list[Block]]:
    """`output_config` for a schema the API can enforce, else a system block that asks for it."""
    if schema is None:
        return None, []
    if (reduced := expressible(schema)) is not None:
        return {"format": {"type": "json_schema", "schema": reduced}}, []
    return None, [_text(_SCHEMA_HINT.format(schema=json.dumps(schema, ensure_ascii=False)))]
