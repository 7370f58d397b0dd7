"""The body of an OpenAI chat completion. Pure.

Source: OpenAI API reference, "Create chat completion". What servers of this shape do differently is in `flavours`.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from holdfast.contracts import ToolCall, ToolOffer
from holdfast.providers.flavours import FLAVOURS, Flavour
from holdfast.providers.protocol import Message, ModelCall

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]
"""How a server spells the reply limit: the first is OpenAI's name since 2024, the second the older one."""

_MODES = ("auto", "none", "required")


def request_body(
    call: ModelCall,
    max_tokens_field: MaxTokensField = "max_completion_tokens",
    flavour: Flavour = FLAVOURS["openai"],
    *,
    stream: bool = True,
) -> dict[str, Any]:
    """The JSON body of `POST /chat/completions`. Nothing that was not set is in it.

    Args:
        call: What to ask.
        max_tokens_field: How the server spells the reply limit.
        flavour: What the server understands beyond the common core.
        stream: Whether the reply shall come in pieces, with usage at the end; a batch cannot.
    """
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [_message(message, flavour) for message in call.messages],
        max_tokens_field: call.max_output_tokens,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True, **flavour.stream_options}}
    optional = {
        "temperature": call.temperature,
        "top_p": call.top_p,
        "seed": call.seed,
        "stop": list(call.stop) or None,
        "logprobs": call.logprobs or None,
        "response_format": None if call.output_schema is None else _response_format(call.output_schema),
        **_tools(call, flavour),
    }
    for name, value in (
        (flavour.cache_key_field, call.cache_key),
        (flavour.user_field, call.user_tag),
        (flavour.tenant_field, call.tenant_tag),
    ):
        if name is not None:
            optional[name] = value
    return body | {name: value for name, value in optional.items() if value is not None}


def _message(message: Message, flavour: Flavour) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["content"] = message.content or None
        shown["tool_calls"] = [_made_call(made) for made in message.tool_calls]
        shown["tool_calls"][0].update(flavour.first_call_extra)
    return shown


def _made_call(made: ToolCall) -> dict[str, Any]:
    return {"id": made.id, "type": "function", "function": {"name": made.name, "arguments": made.arguments}}


def _tools(call: ModelCall, flavour: Flavour) -> dict[str, Any]:
    if not call.tools or (call.tool_choice == "none" and not flavour.tool_choice):
        return {}
    choice: Any = call.tool_choice
    if choice is not None and choice not in _MODES:
        choice = {"type": "function", "function": {"name": choice}}
    return {
        "tools": [_tool(tool, flavour) for tool in call.tools],
        "tool_choice": choice if flavour.tool_choice else None,
        "parallel_tool_calls": call.parallel_tool_calls if flavour.parallel_tool_calls else None,
    }


def _tool(tool: ToolOffer, flavour: Flavour) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.description:
        function["description"] = tool.description
    if tool.strict and flavour.strict_tools:
        function["strict"] = True
    return {"type": "function", "function": function}


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title", "")))[:64].strip("_") or "reply"
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": _may_be_strict(schema)},
    }


def _may_be_strict(schema: Any) -> bool:
    """Whether a schema fits OpenAI's strict mode, which answers 400 to open objects and to optional properties.

    Source: OpenAI, "Structured model outputs", supported schemas. What does not fit is sent as a hint; the reply is
    validated either way.
    """
    if isinstance(schema, list):
        return all(_may_be_strict(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict) or schema.get("type") == "object":
        required = schema.get("required", [])
        closed = schema.get("additionalProperties") is False
        if not closed or not isinstance(required, list) or set(properties or {}) - set(required):
            return False
    return all(_may_be_strict(value) for value in schema.values())
