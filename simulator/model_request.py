"""What a call of a model asks for, whichever wire format it came in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from holdfast.tokens import count_tokens
from simulator.errors import ApiError
from simulator.schema_instances import JsonSchema

count_repeated = lru_cache(maxsize=1024)(count_tokens)
"""Tokens of texts that repeat from call to call: system prompts, schemas and tools."""


@dataclass(frozen=True)
class Tool:
    """A function the model may call."""

    name: str
    parameters: JsonSchema


class Segment(NamedTuple):
    """A stretch of the prompt that the prompt cache keeps whole or not at all."""

    content: str
    tokens: int
    breakpoint: bool
    """Whether the prefix that ends here is to be kept."""


@dataclass(frozen=True)
class ModelRequest:
    """The parts of a request that bear on the answer."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    """As they came."""
    question: str
    """Text of the last message of a user."""
    segments: tuple[Segment, ...]
    """The prompt in the order in which the prompt cache sees it: tools, output schema, messages with framing."""
    prompt_tokens: int
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    cache_key: str = ""
    """Requests of different keys share no cached prefix."""
    cached_for_an_hour: bool = False
    """Whether a breakpoint asks for that lifetime; it changes what the usage reports and not the price."""
    schema: JsonSchema | None = None
    json_object: bool = False
    """Whether any JSON object will do (`response_format` of type `json_object`)."""
    tools: tuple[Tool, ...] = ()
    forced_tool: Tool | None = None
    """The tool that `tool_choice` obliges the model to call."""
    may_call: bool = True
    """Whether there are tools and `tool_choice` does not forbid them."""


def invalid(message: str, param: str | None) -> ApiError:
    """400 for a request that cannot be read, naming the parameter."""
    return ApiError(400, message, type="invalid_request_error", param=param)


def read_model(given: Mapping[str, Any]) -> str:
    """The model's name.

    Raises:
        ApiError: There is none.
    """
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("`model` has to be the name of a model.", "model")
    return model


def read_messages(given: object) -> list[dict[str, Any]]:
    """The messages, each an object with a role and a string, list or no content.

    Raises:
        ApiError: They are not.
    """
    if not isinstance(given, list) or not given:
        raise invalid("`messages` has to be a list with at least one message.", "messages")
    for position, message in enumerate(given):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"`messages[{position}]` has to be an object with a `role`.", f"messages[{position}].role")
        if not isinstance(message.get("content"), str | list | None):
            raise invalid(
                f"`messages[{position}].content` has to be a string or a list of parts.",
                f"messages[{position}].content",
            )
    return given


def read_texts(given: object, name: str) -> tuple[str, ...]:
    """A list of strings, or one string, or none.

    Raises:
        ApiError: It is something else.
    """
    texts = [given] if isinstance(given, str) else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise invalid(f"`{name}` has to be a list of strings.", name)
    return tuple(texts)


def chosen_tool(name: object, tools: tuple[Tool, ...]) -> Tool | None:
    """The tool of that name; `None` when the request has none of it."""
    return next((tool for tool in tools if tool.name == name), None)
