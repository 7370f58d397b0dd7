"""A conversation that a client brings along: earlier turns, the tools it offers, and what a model said to them.

Names and shapes follow OpenAI's chat completions, because that is what clients send; every provider's adapter turns
them into its own. Everything is bounded, so that one request cannot fill a worker's memory.
"""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from holdfast.contracts.base import Contract

MAX_TURNS = 500
"""Most turns of one conversation."""

MAX_TOOLS = 128
"""Most tools of one call; OpenAI's own bound."""

MAX_TEXT = 1_000_000
"""Most characters of one turn or of one tool call's arguments."""

MAX_PARAMETERS = 65_536
"""Most characters of one tool's parameters, as JSON."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What OpenAI accepts as a function's name."""

CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""What a provider calls one tool call."""


class ToolCall(Contract):
    """A model's wish to have a tool called."""

    id: CallId
    name: ToolName
    arguments: str = Field(max_length=MAX_TEXT)
    """JSON text as the model wrote it, which need not be valid."""


class Turn(Contract):
    """One turn of a conversation. A client's `developer` turn is a `system` turn here."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(default="", max_length=MAX_TEXT)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), max_length=MAX_TOOLS)
    """What the assistant asked for in this turn."""
    tool_call_id: CallId | None = None
    """Which call a `tool` turn answers."""

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a turn of role {self.role!r} has `tool_calls`; only an `assistant` turn may")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a `tool` turn needs `tool_call_id`, the id of the call it answers")
        if self.role != "tool" and self.tool_call_id is not None:
            raise ValueError(f"a turn of role {self.role!r} has `tool_call_id`; only a `tool` turn may")
        return self


class ToolOffer(Contract):
    """A tool that the client will call for the model."""

    name: ToolName
    description: str = Field(default="", max_length=8_192)
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """JSON Schema of the arguments; empty for a tool without any."""
    strict: bool = False
    """Whether the provider shall hold the model to the schema."""

    @field_validator("parameters")
    @classmethod
    def _bounded(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if len(json.dumps(parameters)) > MAX_PARAMETERS:
            raise ValueError(f"`parameters` of a tool may be at most {MAX_PARAMETERS} characters of JSON")
        return parameters


class Conversation(Contract):
    """What surrounds the question of one request."""

    turns: tuple[Turn, ...] = Field(default=(), max_length=MAX_TURNS)
    """Turns before the question, oldest first."""
    continuation: tuple[Turn, ...] = Field(default=(), max_length=MAX_TURNS)
    """Turns after the question: the tool calls a model made for it, and their results."""
    tools: tuple[ToolOffer, ...] = Field(default=(), max_length=MAX_TOOLS)
    tool_choice: str | None = Field(default=None, max_length=64)
    """`auto`, `none`, `required` or the name of the one tool to call; those three words win over a tool of that name.
    `None` leaves it to the provider."""
    parallel_tool_calls: bool | None = None
    """Whether one reply may hold several tool calls; `None` leaves it to the provider."""

    @model_validator(mode="after")
    def _names_only_what_is_there(self) -> Self:
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name; give each its own")
        if self.tool_choice not in (None, "auto", "none", "required", *names):
            raise ValueError("`tool_choice` must be `auto`, `none`, `required` or the name of a tool in `tools`")
        if self.tool_choice not in (None, "auto", "none") and not names:
            raise ValueError("`tool_choice` asks for a call, and `tools` offers no tool")
        made: set[str] = set()
        for turn in (*self.turns, *self.continuation):
            if turn.tool_call_id is not None and turn.tool_call_id not in made:
                raise ValueError("a `tool` turn answers a call that no earlier `assistant` turn made")
            made.update(call.id for call in turn.tool_calls)
        return self


class AssistantTurn(Contract):
    """What a model replied: text, tool calls or both."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
