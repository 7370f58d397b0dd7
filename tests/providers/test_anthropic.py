"""Anthropic's adapter at the wire's edge: events, whole messages, errors after 200, cuts and disconnects."""

import asyncio
import json
import traceback
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.contracts import FinishReason, ToolCall, Usage
from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.providers import Anthropic, Completed, ModelCall, ModelEvent, TextDelta, Timeouts, ToolCallDelta
from tests.providers.wire import KEY, Handler, answers, exchange, joined, model_call
from tests.providers.wire import failure as failure_of

ARRIVED = timedelta(seconds=1)
"""After so long a request has arrived, and what the server sends at once has come."""


def event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


def start(**usage: Any) -> str:
    counts = {"input_tokens": 11, "output_tokens": 1, **usage}
    return event("message_start", message={"id": "msg_7", "model": "claude-test-1", "content": [], "usage": counts})


def block(index: int, kind: str, **fields: Any) -> str:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(index: int, kind: str, **fields: Any) -> str:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def end(index: int) -> str:
    return event("content_block_stop", index=index)


def tail(reason: str | None = "end_turn", **usage: Any) -> str:
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)


PING = event("ping")
STOP = event("message_stop")
TEXT = block(0, "text", text="") + delta(0, "text_delta", text="Grüße, ") + delta(0, "text_delta", text="Erde 🌍")
REPLY = start() + PING + TEXT + end(0) + tail(output_tokens=3) + STOP
EVENTS: list[ModelEvent] = [
    TextDelta("Grüße, "),
    TextDelta("Erde 🌍"),
    Completed(FinishReason.STOP, "claude-test-1", "msg_7", Usage(input_tokens=11, output_tokens=3, cost_usd=None)),
]


def error(kind: str, **fields: Any) -> str:
    return event("error", error={"type": kind, "message": "words", **fields})


async def complete(handler: Handler, call: ModelCall | None = None) -> list[ModelEvent]:
    return await exchange(
        lambda client: Anthropic("https://models.example", KEY, client), handler, call or model_call()
    )


async def failure(handler: Handler) -> ProviderError:
    return await failure_of(lambda client: Anthropic("https://models.example", KEY, client), handler, model_call())


def ended(events: list[ModelEvent]) -> Completed:
    completed = events[-1]
    assert isinstance(completed, Completed)
    return completed


async def test_one_call_posts_one_request_with_key_version_and_attempt() -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers(REPLY)(request)

    assert await complete(handler) == EVENTS
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", "https://models.example/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert "authorization" not in request.headers
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["x-client-request-id"] == "att_1"
    assert json.loads(request.content)["max_tokens"] == 64


@pytest.mark.parametrize("base_url", ["http://h", "http://h/", "http://h/v1", "http://h/v1/"])
async def test_the_base_may_be_given_with_or_without_the_versions_path(base_url: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://h/v1/messages"
        assert "x-api-key" not in request.headers
        assert request.headers["anthropic-version"] == "2030-01-01"
        return answers(REPLY)(request)

    events = await exchange(lambda client: Anthropic(base_url, "", client, version="2030-01-01"), handler, model_call())
    assert events == EVENTS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(REPLY.encode())), max_size=10))
async def test_the_network_may_cut_the_stream_anywhere(cuts: list[int]) -> None:
    raw = REPLY.encode()
    edges = [0, *sorted(cuts), len(raw)]
    assert await complete(answers(*(raw[a:b] for a, b in pairwise(edges)))) == EVENTS


async def test_a_stream_cut_short_before_its_stop_reason_never_passes_for_a_whole_reply() -> None:
    raw = REPLY.encode()
    finished_at = raw.index(STOP.encode()) - 2  # without the two line ends the stop reason can still be read
    for length in range(len(raw)):
        if length < finished_at:
            assert (await failure(answers(raw[:length]))).outcome in (Outcome.BROKEN_STREAM, Outcome.UNKNOWN)
        else:
            assert await complete(answers(raw[:length])) == EVENTS


async def test_tool_calls_come_in_pieces_and_whole_at_the_end() -> None:
    raw = (
        start()
        + block(0, "text", text="")
        + delta(0, "text_delta", text="One moment.")
        + end(0)
        + block(1, "tool_use", id="toolu_1", name="lookup", input={})
        + delta(1, "input_json_delta", partial_json="")
        + delta(1, "input_json_delta", partial_json='{"id": ')
        + delta(1, "input_json_delta", partial_json='"7"}')
        + end(1)
        + block(2, "tool_use", id="toolu_2", name="now", input={})
        + end(2)
        + tail("tool_use", output_tokens=30)
        + STOP
    )
    *events, completed = await complete(answers(raw))
    assert events == [
        TextDelta("One moment."),
        ToolCallDelta(0, "toolu_1", "lookup", ""),
        ToolCallDelta(0, "", "", '{"id": '),
        ToolCallDelta(0, "", "", '"7"}'),
        ToolCallDelta(1, "toolu_2", "now", ""),
    ]
    assert isinstance(completed, Completed)
    assert completed.finish_reason is FinishReason.TOOL_CALLS
    assert completed.tool_calls == (
        ToolCall(id="toolu_1", name="lookup", arguments='{"id": "7"}'),
        ToolCall(id="toolu_2", name="now", arguments="{}"),
    )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("pause_turn", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.REFUSAL),
        ("a_reason_of_the_future", FinishReason.STOP),
    ],
)
async def test_every_stop_reason_is_mapped(said: str, meant: FinishReason) -> None:
    events = await complete(answers(start() + TEXT + end(0) + tail(said, output_tokens=3) + STOP))
    assert ended(events).finish_reason is meant


async def test_counts_are_cumulative_so_the_last_one_stands() -> None:
    raw = (
        start(input_tokens=5, cache_creation_input_tokens=20, cache_read_input_tokens=300)
        + TEXT
        + tail(None, output_tokens=4)
        + tail("end_turn", output_tokens=9, input_tokens=6, cache_read_input_tokens=None)
        + STOP
    )
    assert ended(await complete(answers(raw))).usage == Usage(
        input_tokens=6, cache_write_tokens=20, cache_read_tokens=300, output_tokens=9, cost_usd=None
    )


async def test_cache_writes_are_counted_when_only_their_lifetimes_are_reported() -> None:
    written = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 20}
    raw = start(cache_creation=written) + TEXT + tail(output_tokens=3) + STOP
    usage = ended(await complete(answers(raw))).usage
    assert usage is not None
    assert usage.cache_write_tokens == 120


async def test_thinking_begins_the_reply_and_is_not_shown() -> None:
    thinking = block(0, "thinking", thinking="") + delta(0, "thinking_delta", thinking="Let me see")
    signed = delta(0, "signature_delta", signature="abc") + end(0)
    shown = block(1, "text", text="") + delta(1, "text_delta", text="Hi") + end(1)
    events = await complete(answers(start() + thinking + signed + shown + tail(output_tokens=40) + STOP))
    assert joined(events) == "Hi"
    for begun in (thinking, block(0, "thinking", thinking=""), delta(0, "thinking_delta", thinking="Hm")):
        assert (await failure(answers(start() + begun + error("overloaded_error")))).outcome is Outcome.BROKEN_STREAM


async def test_events_of_the_future_are_skipped_and_other_shapes_are_not() -> None:
    news = event("weather_report", sky="blue") + delta(0, "colour_delta", colour="red")
    assert await complete(answers(start() + news + REPLY.removeprefix(start()))) == EVENTS
    for rubbish in ("data: 7\n\n", "data: {}\n\n", "data: {no\n\n", event("content_block_delta", index=0)):
        assert (await failure(answers(start() + TEXT + rubbish))).outcome is Outcome.BROKEN_STREAM
        assert (await failure(answers(rubbish))).outcome in (Outcome.UNKNOWN, Outcome.BROKEN_STREAM)


async def test_a_server_that_does_not_stream_is_understood() -> None:
    message = {
        "type": "message",
        "id": "msg_8",
        "model": "claude-test-2",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"id": "7"}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 4, "output_tokens": 6},
    }
    assert await complete(answers(json.dumps(message), content_type="application/json")) == [
        TextDelta("Hi"),
        ToolCallDelta(0, "toolu_1", "lookup", ""),
        ToolCallDelta(0, "", "", '{"id": "7"}'),
        Completed(
            FinishReason.TOOL_CALLS,
            "claude-test-2",
            "msg_8",
            Usage(input_tokens=4, output_tokens=6, cost_usd=None),
            (ToolCall(id="toolu_1", name="lookup", arguments='{"id": "7"}'),),
        ),
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html>Sign in</html>", "text/html"),
        ("{", "application/json"),
        ('{"type": "message"}', "application/json"),
        ("", "text/event-stream"),
        (PING, "text/event-stream"),
    ],
)
async def test_a_success_that_is_no_reply_may_have_been_billed(body: str, content_type: str) -> None:
    assert (await failure(answers(body, content_type=content_type))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (error("overloaded_error"), Outcome.OVERLOADED),
        (start() + PING + error("overloaded_error"), Outcome.OVERLOADED),
        (start() + block(0, "text", text="") + error("overloaded_error"), Outcome.OVERLOADED),
        (start() + TEXT + error("overloaded_error"), Outcome.BROKEN_STREAM),
        (start() + block(0, "tool_use", id="t", name="n", input={}) + error("overloaded_error"), Outcome.BROKEN_STREAM),
        (start() + error("rate_limit_error"), Outcome.RATE_LIMITED),
        (start() + error("rate_limit_error", details={"error_code": "organization_on_hold"}), Outcome.BILLING),
        (start() + error("api_error"), Outcome.UNKNOWN),
        (start() + error("timeout_error"), Outcome.UNKNOWN),
        (start() + error("an_error_of_the_future"), Outcome.UNKNOWN),
        (start() + TEXT + error("api_error"), Outcome.BROKEN_STREAM),
    ],
)
async def test_an_error_after_200_means_what_it_says_until_something_was_generated(raw: str, outcome: Outcome) -> None:
    assert (await failure(answers(raw))).outcome is outcome


async def test_an_error_after_the_stop_reason_loses_nothing() -> None:
    assert await complete(answers(REPLY.removesuffix(STOP) + error("overloaded_error"))) == EVENTS


async def test_a_refused_call_is_classified_with_its_wait_and_request() -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "words"}, "request_id": "req_011"}
    told = await failure(
        answers(json.dumps(body), status=429, content_type="application/json", retry_after="12", x_should_retry="true")
    )
    assert (told.outcome, told.status, told.retry_after) == (Outcome.RATE_LIMITED, 429, timedelta(seconds=12))
    assert told.should_retry is True
    assert "'req_011'" in str(told)


async def test_the_key_is_in_no_representation_or_error() -> None:
    body = json.dumps({"type": "error", "error": {"type": KEY, "message": f"invalid x-api-key {KEY}"}})
    told = await failure(answers(body, status=401, content_type="application/json"))
    assert told.outcome is Outcome.AUTHENTICATION
    provider = Anthropic("http://h/v1", KEY)
    shown = [repr(provider), str(vars(provider)), *traceback.format_exception(told)]
    await provider.aclose()
    assert KEY not in "".join(shown)


@pytest.mark.parametrize(("base_url", "key"), [("localhost", "k"), ("http://u:p@h", "k"), ("http://h", "a\nb")])
def test_an_address_or_key_that_cannot_be_used_is_refused_at_once(base_url: str, key: str) -> None:
    with pytest.raises(ConfigurationError):
        Anthropic(base_url, key)


async def test_closing_the_iterator_early_disconnects_from_the_server(socket_server: Any) -> None:
    disconnected = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.send_head()
        await exchange.send(start() + TEXT)
        assert await exchange.reader.read() == b""
        disconnected.set()

    provider = Anthropic(await socket_server.start(handler), KEY)
    async with aclosing(provider.complete(model_call())) as events:
        assert await anext(events) == TextDelta("Grüße, ")
    async with asyncio.timeout(60):
        await disconnected.wait()
    await provider.aclose()


@pytest.mark.parametrize("idle", [PING, ": nothing yet\n\n"])
async def test_signs_of_life_are_no_first_token(socket_server: Any, idle: str) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send_head()
        await exchange.send(start())
        while True:
            await exchange.send(idle)
            await asyncio.sleep(0.005)  # the server's pace, not a wait of the test's

    provider = Anthropic(await socket_server.start(handler), KEY)
    with pytest.raises(ProviderError, match="first_token") as caught:
        await anext(provider.complete(model_call(timeouts=Timeouts(first_token=ARRIVED))))
    await provider.aclose()
    assert caught.value.outcome is Outcome.BROKEN_STREAM


PARTS: list[Callable[[str], str]] = [
    lambda text: delta(0, "text_delta", text=text),
    lambda text: delta(0, "thinking_delta", thinking=text),
    lambda text: delta(1, "input_json_delta", partial_json=text),
    lambda text: PING,
    lambda text: tail("end_turn", output_tokens=len(text)),
    lambda text: error("overloaded_error"),
    lambda text: f"data: {text}\n\n",
    lambda text: STOP,
    lambda text: block(0, text, id=text),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.builds(lambda part, text: part(text), st.sampled_from(PARTS), st.text(max_size=4)), max_size=8),
    st.integers(0, 2_000),
)
async def test_any_stream_is_a_whole_reply_or_a_classified_error(parts: list[str], length: int) -> None:
    raw = (start() + "".join(parts)).encode("utf-8", "replace")[:length]
    try:
        events = await complete(answers(raw))
    except ProviderError:
        return
    assert [isinstance(event, Completed) for event in events] == [False] * (len(events) - 1) + [True]
