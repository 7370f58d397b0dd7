"""The body of a chat completion, and the question and conversation that it means.

The last user message is the question; what stands before it are earlier turns, what stands after it - the tool calls a
model made for it, and their results - is its continuation. Of the many fields of OpenAI's API those that would change
the answer and cannot be followed are refused; those that only tune the model (`temperature`, `top_p`, `seed`,
penalties) are the agent's business and ignored.
"""

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from gateway.problems import Problem
from gateway.submission import LimitsBody, Question, SessionName
from gateway.validation import Body
from holdfast.configuration import Agent, reference
from holdfast.contracts import Conversation, ToolCall, ToolOffer, Turn

_SESSION: TypeAdapter[str] = TypeAdapter(SessionName)


class _Lenient(Body):
    """A body of somebody else's API, which grows without asking."""

    model_config = ConfigDict(extra="ignore")


class PartBody(_Lenient):
    """A part of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledBody(_Lenient):
    """A function that was called."""

    name: str
    arguments: str


class ToolCallBody(_Lenient):
    """A tool call of an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledBody


class MessageBody(_Lenient):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[PartBody] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


class FunctionBody(_Lenient):
    """A function that the client offers."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(_Lenient):
    """A tool that the client offers."""

    type: Literal["function"]
    function: FunctionBody


class StreamOptionsBody(_Lenient):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatBody(_Lenient):
    """The body of `POST /v1/chat/completions`."""

    model: str
    """Name of an agent."""
    messages: Annotated[list[MessageBody], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    """`session` groups requests of one conversation."""

    n: int | None = None
    """Only 1 is accepted."""
    stop: str | list[str] | None = None
    """Not accepted."""
    logprobs: bool | None = None
    """Not accepted."""
    functions: list[dict[str, Any]] | None = None
    """Not accepted; use `tools`."""
    modalities: list[str] | None = None
    """Only `text` is accepted."""

    @property
    def with_usage(self) -> bool:
        """Whether a stream shall end with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def question_of(body: ChatBody, agent: Agent, session: str | None) -> Question:
    """What a chat completion asks.

    Args:
        body: The body.
        agent: The agent it names.
        session: From the header; the body's `metadata.session` wins.

    Raises:
        Problem: 400, something is asked that cannot be followed, or the messages are not a conversation.
    """
    _check_supported(body, agent)
    session = (body.metadata or {}).get("session", session)
    if session is not None:
        try:
            _SESSION.validate_python(session)
        except ValidationError:
            raise _invalid(
                "metadata.session", "The session's name is not acceptable.", "Use 1 to 128 printable characters."
            ) from None
    asked = body.max_completion_tokens or body.max_tokens
    limits = LimitsBody(output_tokens=min(asked, agent.limits.output_tokens)) if asked else LimitsBody()
    text, conversation = _conversation(body)
    return Question(agent=agent.name, input=text, limits=limits, session=session, conversation=conversation, chat=True)


def _conversation(body: ChatBody) -> tuple[str, Conversation | None]:
    """The question and what surrounds it."""
    last = max((place for place, message in enumerate(body.messages) if message.role == "user"), default=None)
    if last is None:
        raise _invalid("messages", "There is no message of role `user`.", "Send the question as a user's message.")
    text = _text(body.messages[last], last)
    if not text.strip():
        raise _invalid(f"messages.{last}.content", "The last user message is empty.", "Send the question as text.")
    after = [message for message in body.messages[last + 1 :] if message.role not in ("system", "developer")]
    if after and after[-1].role == "assistant":
        raise _invalid(
            "messages",
            "The last message is the assistant's, so there is nothing to answer.",
            "End with a user's message or with the results of tool calls.",
        )
    turns = [_turn(message, place) for place, message in enumerate(body.messages) if place != last]
    before, continuation = tuple(turns[:last]), tuple(turns[last:])
    answered = {turn.tool_call_id for turn in continuation}
    if any(call.id not in answered for turn in continuation for call in turn.tool_calls):
        raise _invalid("messages", "A tool call has no result.", "Send a `tool` message for every tool call.")
    if not before and not continuation and not body.tools:
        return text, None
    try:
        return text, Conversation(
            turns=before,
            continuation=continuation,
            tools=tuple(_offer(tool.function) for tool in body.tools or ()),
            tool_choice=_choice(body.tool_choice) if body.tools else None,
            parallel_tool_calls=body.parallel_tool_calls if body.tools else None,
        )
    except ValidationError as error:
        raise _misfit(error, "messages" if not body.tools else "tools") from None


def _turn(message: MessageBody, place: int) -> Turn:
    text = _text(message, place) if message.content is not None else message.refusal or ""
    try:
        return Turn(
            role="system" if message.role == "developer" else message.role,
            content=text,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in message.tool_calls or ()
            ),
            tool_call_id=message.tool_call_id,
        )
    except ValidationError as error:
        raise _misfit(error, f"messages.{place}") from None


def _text(message: MessageBody, place: int) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type not in ("text", "refusal") for part in message.content):
        raise _invalid(
            f"messages.{place}.content", "A part of the message is not text.", "Send text; nothing else is read."
        )
    return "".join(part.text or part.refusal or "" for part in message.content)


def _offer(function: FunctionBody) -> ToolOffer:
    return ToolOffer(
        name=function.name,
        description=function.description or "",
        parameters={name: _json(value) for name, value in (function.parameters or {}).items()},
        strict=bool(function.strict),
    )


def _choice(choice: str | dict[str, Any] | None) -> str | None:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(name, str):
            raise _invalid(
                "tool_choice",
                "`tool_choice` is not one of the forms that are understood.",
                'Send "auto", "none", "required" or {"type": "function", "function": {"name": "..."}}.',
            )
        return name
    return choice


def _json(value: Any) -> JsonValue:
    """A parsed value whose fractions are `Decimal` as one whose fractions are floats, as a schema's may be."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_json(child) for child in value]
    if isinstance(value, dict):
        return {name: _json(child) for name, child in value.items()}
    return value if isinstance(value, str | int | bool) else None


def _check_supported(body: ChatBody, agent: Agent) -> None:
    if body.n not in (None, 1):
        raise _invalid("n", "Only one choice is given.", "Send the request again for another answer.")
    if body.stop:
        raise _invalid("stop", "Stop sequences are not supported.", "Leave `stop` out, or cut the answer yourself.")
    if body.logprobs:
        raise _invalid("logprobs", "Probabilities of tokens are not given.", "Leave `logprobs` out.")
    if body.functions:
        raise _invalid("functions", "`functions` was replaced by `tools`.", "Offer the functions as `tools`.")
    if set(body.modalities or ()) - {"text"}:
        raise _invalid("modalities", "Answers are text.", 'Leave `modalities` out, or send ["text"].')
    _check_format(body.response_format or {"type": "text"}, agent)


def _check_format(wanted: dict[str, Any], agent: Agent) -> None:
    schema = agent.plan.output_schema
    match wanted:
        case {"type": "text"}:
            return
        case {"type": "json_object"} if schema is not None:
            return
        case {"type": "json_schema", "json_schema": {"schema": dict(asked)}} if schema is not None:
            canonical = json.dumps(_json(asked), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            if reference(canonical) == schema:
                return
    raise _invalid(
        "response_format",
        f"The form of an answer is the agent's: {agent.name!r} "
        + ("has an output schema, which is another one." if schema else "answers in free text."),
        "Leave `response_format` out, and set `output_schema` in the agent's file for JSON that satisfies a schema.",
    )


def _misfit(error: ValidationError, field: str) -> Problem:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return _invalid(field, f"{where}: {message}." if where else f"{message}.", "Correct it and send the request again.")


def _invalid(field: str, detail: str, remedy: str) -> Problem:
    return Problem(400, "invalid-input", "Invalid input", detail, remedy=remedy, field=field)
