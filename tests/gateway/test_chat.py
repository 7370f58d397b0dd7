"""OpenAI's own client, unmodified, against the gateway over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from holdfast.configuration import Configuration
from holdfast.contracts import Conversation, FinishReason, Status, ToolCall, Turn
from holdfast.ledger import Ledger
from holdfast.settings import GatewaySettings
from tests.gateway.conftest import SCHEMA
from tests.gateway.streams import Line, on_the_line

ASK: list[Any] = [{"role": "user", "content": "Why?"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather somewhere.",
            "parameters": {"type": "object", "properties": {"chance": {"type": "number", "minimum": 0.5}}},
        },
    }
]


class Chat:
    """A gateway and the official client of it."""

    def __init__(self, line: Line, client: AsyncOpenAI) -> None:
        self.line = line
        self.client = client

    async def accepted(self) -> str:
        """Wait for the next request that reaches the engine."""
        engine = self.line.edge.engine
        known = len(engine.submitted)
        async with asyncio.timeout(60):
            while len(engine.submitted) == known:  # noqa: ASYNC110 - the recorded engine has no event for it
                await asyncio.sleep(0.005)
        return engine.submitted[-1].id

    def answers(self, text: str = "Because.", **changes: Any) -> None:
        """Let every request end like this as soon as somebody waits for it."""
        engine = self.line.edge.engine
        submit = engine.submit

        async def answered(request: Any) -> Any:
            await submit(request)
            await self.line.finish(request.id, text, **changes)
            return engine.executions[request.id]

        engine.submit = answered  # type: ignore[method-assign]

    async def conversation(self) -> Conversation:
        """What surrounded the last question."""
        request = self.line.edge.engine.submitted[-1]
        assert request.conversation is not None
        return Conversation.model_validate_json(
            await self.line.edge.ledger.contents.get(request.tenant, request.conversation)
        )


@asynccontextmanager
async def chatting(configuration: Configuration, ledger: Ledger, **settings: Any) -> AsyncIterator[Chat]:
    """A gateway and a client of it."""
    async with (
        on_the_line(configuration, ledger, **settings) as line,
        AsyncOpenAI(base_url=f"{line.url}/v1", api_key="any") as client,
    ):
        yield Chat(line, client)


@pytest.fixture
async def chat(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Chat]:
    async with chatting(configuration, ledger) as chat:
        chat.line.edge.engine.holds = asyncio.Event()
        yield chat


async def test_a_plain_completion(chat: Chat) -> None:
    chat.answers("Because.")
    raw = await chat.client.chat.completions.with_raw_response.create(model="writer", messages=ASK, temperature=0.5)
    reply = raw.parse()
    [request] = chat.line.edge.engine.submitted
    assert raw.headers["x-holdfast-request-id"] == request.id
    assert reply.id == f"chatcmpl-{request.id}"
    assert (reply.object, reply.model) == ("chat.completion", "writer")
    [choice] = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Because.", "stop")
    assert choice.message.tool_calls is None
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (40, 7, 47)
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 10
    assert (request.chat, request.walk, request.conversation) == (True, 3, None)
    assert await chat.line.edge.ledger.contents.get("local", request.input) == "Why?"


async def test_a_stream_comes_as_it_is_written_and_ends_with_the_usage(chat: Chat) -> None:
    opening = asyncio.ensure_future(
        chat.client.chat.completions.create(
            model="writer", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    request_id = await chat.accepted()
    await chat.line.publish(request_id, "Be")
    stream = await opening
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    assert (await anext(stream)).choices[0].delta.content == "Be"
    await chat.line.publish(request_id, "Be", "cause")
    second = await anext(stream)
    assert (second.choices[0].delta.content, second.usage, second.id) == ("cause", None, f"chatcmpl-{request_id}")
    await _end(chat, request_id, "Because it is.")
    rest = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in rest[:-2]] == [" it is."]
    assert rest[-2].choices[0].finish_reason == "stop"
    assert rest[-1].choices == []
    assert rest[-1].usage is not None
    assert rest[-1].usage.total_tokens == 47


async def _end(chat: Chat, request_id: str, text: str = "", **changes: Any) -> None:
    """End a request and let whoever waits for it know."""
    await chat.line.finish(request_id, text, **changes)
    chat.line.edge.engine.released.set()


async def test_tools_go_out_and_their_results_come_back(chat: Chat) -> None:
    calls = (ToolCall(id="call_1", name="weather", arguments='{"chance": 1}'),)
    chat.answers("", tool_calls=calls, finish_reason=FinishReason.TOOL_CALLS)
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "Will it "}, {"type": "text", "text": "rain?"}]},
    ]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    reply = await chat.client.chat.completions.create(
        model="writer", messages=messages, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
    )
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert message.tool_calls is not None
    asked = await chat.conversation()
    assert [(turn.role, turn.content) for turn in asked.turns] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hello!"),
    ]
    assert (asked.tool_choice, asked.parallel_tool_calls, asked.continuation) == ("weather", False, ())
    assert asked.tools[0].parameters["properties"] == {"chance": {"type": "number", "minimum": 0.5}}

    messages += [message, {"role": "tool", "tool_call_id": "call_1", "content": "It will."}]
    await chat.client.chat.completions.create(model="writer", messages=messages, tools=TOOLS)
    request = chat.line.edge.engine.submitted[-1]
    assert await chat.line.edge.ledger.contents.get("local", request.input) == "Will it rain?"
    again = await chat.conversation()
    assert again.turns == asked.turns
    assert again.continuation == (
        Turn(role="assistant", tool_calls=calls),
        Turn(role="tool", content="It will.", tool_call_id="call_1"),
    )


async def test_tool_calls_are_streamed(chat: Chat) -> None:
    calls = tuple(ToolCall(id=f"call_{n}", name="weather", arguments="{}") for n in range(2))
    chat.answers("Let me look.", tool_calls=calls, finish_reason=FinishReason.TOOL_CALLS)
    stream = await chat.client.chat.completions.create(model="writer", messages=ASK, tools=TOOLS, stream=True)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Let me look."
    made = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [(call.index, call.id, call.function and call.function.name) for call in made] == [
        (0, "call_0", "weather"),
        (1, "call_1", "weather"),
    ]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [(FinishReason.LENGTH, "length"), (FinishReason.CONTENT_FILTER, "content_filter"), (FinishReason.STOP, "stop")],
)
async def test_why_a_model_stopped_is_told_in_openais_words(chat: Chat, reason: FinishReason, finish: str) -> None:
    chat.answers("Because.", finish_reason=reason)
    reply = await chat.client.chat.completions.create(model="writer", messages=ASK, max_completion_tokens=5)
    assert reply.choices[0].finish_reason == finish
    assert chat.line.edge.engine.submitted[-1].limits.output_tokens == 5
    await chat.client.chat.completions.create(model="writer", messages=ASK, max_tokens=100_000)
    assert chat.line.edge.engine.submitted[-1].limits.output_tokens == 500, "as the agent has it"


async def test_a_refusal_is_a_message_of_its_own_kind(chat: Chat) -> None:
    chat.answers("I cannot help with that.", finish_reason=FinishReason.REFUSAL)
    message = (await chat.client.chat.completions.create(model="writer", messages=ASK)).choices[0].message
    assert (message.content, message.refusal) == (None, "I cannot help with that.")
    stream = await chat.client.chat.completions.create(model="writer", messages=ASK, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(delta.refusal or "" for delta in deltas) == "I cannot help with that."
    assert "".join(delta.content or "" for delta in deltas) == ""


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (Status.DENIED, openai.RateLimitError, "insufficient_quota"),
        (Status.REFUSED, openai.BadRequestError, "content_policy"),
        (Status.REJECTED, openai.PermissionDeniedError, "rejected"),
        (Status.CANCELLED, openai.ConflictError, "cancelled"),
        (Status.EXPIRED, openai.InternalServerError, "expired"),
        (Status.FAILED, openai.InternalServerError, "failed"),
    ],
)
async def test_an_ending_without_an_answer_is_the_clients_own_exception_and_is_not_repeated(
    chat: Chat, status: Status, kind: type[openai.APIStatusError], code: str, streams: bool
) -> None:
    chat.answers(status=status, reason="For a reason.")
    with pytest.raises(kind) as caught:
        await chat.client.chat.completions.create(model="writer", messages=ASK, stream=streams)
    [request] = chat.line.edge.engine.submitted
    assert caught.value.code == code
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["request_id"] == request.id
    assert "For a reason." in caught.value.body["message"]
    assert caught.value.type == ("insufficient_quota" if status is Status.DENIED else caught.value.type)


async def test_an_answer_that_waits_for_a_person_longer_than_the_gateway_waits(
    configuration: Configuration, ledger: Ledger
) -> None:
    settings = GatewaySettings(chat_wait=timedelta(milliseconds=50))
    async with chatting(configuration, ledger, gateway=settings) as chat:
        line = chat.line
        line.edge.becomes(status=Status.WAITING)
        with pytest.raises(openai.ConflictError) as caught:
            await chat.client.chat.completions.create(model="docs", messages=ASK)
        assert caught.value.code == "approval_required"
        assert "/v1/approvals" in str(caught.value)
        line.edge.becomes(status=Status.RUNNING)
        with pytest.raises(openai.InternalServerError) as pending:
            await chat.client.chat.completions.create(model="docs", messages=ASK)
        assert pending.value.code == "answer_pending"
        assert len(line.edge.engine.submitted) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": 2}, "n"),
        ({"stop": ["END"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"messages": [*ASK, {"role": "assistant", "content": "Because"}]}, "messages"),
        ({"messages": [*ASK, {"role": "tool", "content": "x", "tool_call_id": "call_1"}]}, "messages"),
        ({"tools": TOOLS, "tool_choice": "elsewhere"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": TOOLS * 2}, "tools"),
        ({"metadata": {"session": "a\nb"}}, "metadata.session"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(chat: Chat, body: dict[str, Any], field: str) -> None:
    given = {"model": "writer", "messages": ASK} | body
    reply = await chat.line.http.post("/v1/chat/completions", json=given)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert chat.line.edge.engine.submitted == []


async def test_an_unanswered_tool_call_is_refused(chat: Chat) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    other = call | {"id": "call_2"}
    messages: list[Any] = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    with pytest.raises(openai.BadRequestError, match="no result"):
        await chat.client.chat.completions.create(model="writer", messages=messages, tools=TOOLS)


async def test_an_answer_in_json_is_streamed_once_it_is_valid(chat: Chat) -> None:
    opening = asyncio.ensure_future(
        chat.client.chat.completions.create(
            model="form", messages=ASK, stream=True, response_format={"type": "json_object"}
        )
    )
    request_id = await chat.accepted()
    await chat.line.publish(request_id, '{"mail": ', end=True)
    await _end(chat, request_id, '{"mail": "a@b.c"}')
    texts = [chunk.choices[0].delta.content async for chunk in await opening]
    assert [text for text in texts if text] == ['{"mail": "a@b.c"}']


async def test_a_client_may_name_the_agents_own_schema_and_no_other(chat: Chat) -> None:
    chat.answers("{}")
    for schema, accepted in ((json.loads(SCHEMA), True), ({"type": "object"}, False)):
        form: Any = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
        asking = chat.client.chat.completions.create(model="form", messages=ASK, response_format=form)
        if accepted:
            assert (await asking).choices[0].message.content == "{}"
        else:
            with pytest.raises(openai.BadRequestError, match="output_schema"):
                await asking


async def test_agents_are_models(chat: Chat) -> None:
    assert [model.id async for model in chat.client.models.list()] == ["docs", "form", "writer"]
    assert (await chat.client.models.retrieve("writer")).owned_by == "holdfast"
    with pytest.raises(openai.NotFoundError) as caught:
        await chat.client.models.retrieve("unknown")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="Did you mean 'writer'"):
        await chat.client.chat.completions.create(model="writr", messages=ASK)


async def test_an_unknown_key_is_an_authentication_error(configuration: Configuration, ledger: Ledger) -> None:
    async with chatting(configuration, ledger, api_keys="any=acme/ann") as chat:
        assert len((await chat.client.models.list()).data) == 3
        async with chat.client.with_options(api_key="stranger") as stranger:
            with pytest.raises(openai.AuthenticationError) as caught:
                await stranger.chat.completions.create(model="writer", messages=ASK)
        assert caught.value.code == "invalid_api_key"


async def test_a_new_attempt_that_begins_alike_goes_on_where_the_old_one_was(chat: Chat) -> None:
    opening = asyncio.ensure_future(chat.client.chat.completions.create(model="writer", messages=ASK, stream=True))
    request_id = await chat.accepted()
    await chat.line.publish(request_id, "Beca")
    stream = await opening
    shown = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
    await chat.line.publish(request_id, "Be", "cause", attempt=2)
    shown.append((await anext(stream)).choices[0].delta.content)
    await _end(chat, request_id, "Because.")
    shown += [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(text or "" for text in shown) == "Because."


async def test_a_new_attempt_that_begins_otherwise_ends_the_stream_with_an_error(chat: Chat) -> None:
    opening = asyncio.ensure_future(chat.client.chat.completions.create(model="writer", messages=ASK, stream=True))
    request_id = await chat.accepted()
    await chat.line.publish(request_id, "Because")
    stream = await opening
    shown = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
    await chat.line.publish(request_id, "It is so", attempt=2)
    with pytest.raises(openai.APIError) as caught:
        shown += [chunk.choices[0].delta.content async for chunk in stream]
    assert caught.value.code == "answer_restarted"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["request_id"] == request_id
    assert shown == ["", "Because"]


async def test_an_answer_that_is_not_what_was_shown_ends_the_stream_with_an_error(chat: Chat) -> None:
    opening = asyncio.ensure_future(chat.client.chat.completions.create(model="writer", messages=ASK, stream=True))
    request_id = await chat.accepted()
    await chat.line.publish(request_id, "Because")
    stream = await opening
    await _end(chat, request_id, "It is so.")
    with pytest.raises(openai.APIError) as caught:
        _ = [chunk async for chunk in stream]
    assert caught.value.code == "answer_restarted"


async def test_a_stream_that_fails_after_it_began_ends_with_an_error(chat: Chat) -> None:
    opening = asyncio.ensure_future(chat.client.chat.completions.create(model="writer", messages=ASK, stream=True))
    request_id = await chat.accepted()
    await chat.line.publish(request_id, "Because")
    stream = await opening
    await _end(chat, request_id, status=Status.FAILED, reason="No deployment could answer.")
    with pytest.raises(openai.APIError, match="No deployment could answer") as caught:
        _ = [chunk async for chunk in stream]
    assert caught.value.code == "failed"


async def test_a_long_silence_opens_the_stream_with_comments(configuration: Configuration, ledger: Ledger) -> None:
    settings = GatewaySettings(heartbeat=timedelta(milliseconds=20))
    async with chatting(configuration, ledger, gateway=settings) as chat:
        line = chat.line
        line.edge.engine.holds = asyncio.Event()
        stream = await chat.client.chat.completions.create(model="writer", messages=ASK, stream=True)
        [request] = line.edge.engine.submitted
        await _end(chat, request.id, "Because.")
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Because."


async def test_the_same_key_is_the_same_completion(chat: Chat) -> None:
    chat.answers("Because.")
    headers = {"Idempotency-Key": "ticket-1"}
    first, again = [
        await chat.client.chat.completions.create(model="writer", messages=ASK, extra_headers=headers) for _ in range(2)
    ]
    assert (first.id, first.choices) == (again.id, again.choices)
    assert len(chat.line.edge.engine.submitted) == 1
    with pytest.raises(openai.ConflictError):
        await chat.client.chat.completions.create(
            model="writer", messages=[{"role": "user", "content": "What?"}], extra_headers=headers
        )


async def test_stopping_tells_whoever_waits(configuration: Configuration, ledger: Ledger) -> None:
    async with httpx.AsyncClient() as own:
        async with on_the_line(configuration, ledger) as line:
            line.edge.engine.holds = asyncio.Event()
            url, body = f"{line.url}/v1/chat/completions", {"model": "writer", "messages": ASK}
            waiting = asyncio.ensure_future(own.post(url, json=body))
            streaming = asyncio.ensure_future(own.post(url, json=body | {"stream": True}))
            async with asyncio.timeout(60):
                while len(line.edge.engine.waits) < 2:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.005)
        for reply in (await waiting, await streaming):
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "gateway_stopping"
            assert reply.headers["x-should-retry"] == "false"


async def test_a_stream_cannot_be_told_apart_from_openais(chat: Chat) -> None:
    chat.answers("Because.")
    reply = await chat.line.http.post(
        "/v1/chat/completions", json={"model": "writer", "messages": ASK, "stream": True, "unknown_field": 1}
    )
    frames = [frame.removeprefix("data: ") for frame in reply.text.split("\n\n") if frame]
    assert frames.pop() == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all("usage" not in chunk for chunk in chunks)
    with_usage = {"model": "writer", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    reply_with_usage = await chat.line.http.post("/v1/chat/completions", json=with_usage)
    *others, last = [json.loads(line[6:]) for line in reply_with_usage.text.splitlines() if line.startswith("data: {")]
    assert all(chunk["usage"] is None for chunk in others)
    assert last["usage"]["total_tokens"] == 47
    assert reply.headers["content-type"].startswith("text/event-stream")
