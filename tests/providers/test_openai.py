"""The adapter at the wire's edge: shapes through a mock transport, disconnects and hangs through a socket."""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from holdfast.contracts import FinishReason, Usage
from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.providers import (
    Completed,
    HttpStream,
    ModelCall,
    ModelEvent,
    OpenAICompatible,
    TextDelta,
    Timeouts,
)
from tests.providers.wire import KEY, answers, data, exchange, model_call

SOON = timedelta(milliseconds=60)
ARRIVED = timedelta(seconds=1)
"""After so long a request has arrived, and what the server sends at once has come."""
PATIENT = timedelta(seconds=20)


def text_chunk(text: str, finish_reason: str | None = None) -> str:
    return data(
        {
            "id": "chatcmpl-7",
            "model": "gpt-test-1",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}],
            "usage": None,
        }
    )


USAGE = data({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}})
DONE = data("[DONE]")
REPLY = text_chunk("Grüße, ") + text_chunk("Erde 🌍") + text_chunk("", "stop") + USAGE + DONE
EVENTS = [
    TextDelta("Grüße, "),
    TextDelta("Erde 🌍"),
    Completed(FinishReason.STOP, "gpt-test-1", "chatcmpl-7", Usage(input_tokens=11, output_tokens=3, cost_usd=None)),
]


async def complete(
    handler: Callable[[httpx.Request], httpx.Response], call: ModelCall | None = None, **options: Any
) -> list[ModelEvent]:
    return await exchange(
        lambda client: OpenAICompatible("https://models.example/v1/", KEY, client, **options),
        handler,
        call or model_call(),
    )


async def failure(handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await complete(handler, **options)
    return caught.value


async def collect(url: str, call: ModelCall, client: HttpStream | None = None) -> list[ModelEvent]:
    provider = OpenAICompatible(url, KEY, client)
    try:
        return [event async for event in provider.complete(call)]
    finally:
        await provider.aclose()


# --- shapes -----------------------------------------------------------------------------------------------------------


async def test_one_call_posts_one_request_with_key_and_attempt() -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers(REPLY)(request)

    assert await complete(handler, max_tokens_field="max_tokens") == EVENTS
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", "https://models.example/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-client-request-id"] == "att_1"
    assert json.loads(request.content)["max_tokens"] == 64
    assert json.loads(request.content)["messages"][0]["content"] == "Wie groß ist die Erde? 🌍"


async def test_without_a_key_no_authorization_is_sent() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return answers(REPLY)(request)

    client = HttpStream(transport=httpx.MockTransport(handler))
    assert [event async for event in OpenAICompatible("http://h/v1", "", client).complete(model_call())] == EVENTS
    await client.aclose()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(REPLY.encode())), max_size=10))
async def test_the_network_may_cut_the_stream_anywhere(cuts: list[int]) -> None:
    raw = REPLY.encode()
    edges = [0, *sorted(cuts), len(raw)]
    assert await complete(answers(*(raw[a:b] for a, b in pairwise(edges)))) == EVENTS


async def test_a_stream_cut_short_before_its_finish_reason_never_passes_for_a_whole_reply() -> None:
    raw = (text_chunk("Hallo 🌍") + text_chunk("", "stop") + USAGE + DONE).encode()
    finished_at = raw.index(USAGE.encode()) - 2  # without the two line ends the finish reason can still be read
    for length in range(len(raw)):
        if length < finished_at:
            assert (await failure(answers(raw[:length]))).outcome in (Outcome.BROKEN_STREAM, Outcome.UNKNOWN)
        else:
            *texts, completed = await complete(answers(raw[:length]))
            assert texts == [TextDelta("Hallo 🌍")]
            assert isinstance(completed, Completed)


async def test_a_finished_reply_without_usage_or_terminator_is_complete_and_uncounted() -> None:
    events = await complete(answers(text_chunk("Hi", "length")))
    assert events == [TextDelta("Hi"), Completed(FinishReason.LENGTH, "gpt-test-1", "chatcmpl-7", None)]


async def test_a_terminator_without_finish_reason_is_an_end() -> None:
    assert isinstance((await complete(answers(text_chunk("Hi"), DONE)))[-1], Completed)


async def test_a_stream_that_just_ends_is_broken() -> None:
    error = await failure(answers(text_chunk("Hi")))
    assert error.outcome is Outcome.BROKEN_STREAM


async def test_a_server_that_does_not_stream_is_understood() -> None:
    body = {
        "id": "chatcmpl-8",
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1},
    }
    assert await complete(answers(json.dumps(body), content_type="application/json; charset=utf-8")) == [
        TextDelta("Hi"),
        Completed(FinishReason.STOP, "small", "chatcmpl-8", Usage(input_tokens=4, output_tokens=1, cost_usd=None)),
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html>Sign in</html>", "text/html"),
        ("<html>Sign in</html>", "text/plain"),
        ("{", "application/json"),
        ('{"hello": 1}', "application/json"),
        ('"text"', "application/json"),
        ("", "text/event-stream"),
        (DONE, "text/event-stream"),
        (data("{not json"), "text/event-stream"),
        (data('{"object": "other"}'), "text/event-stream"),
        (data("[" * 100_000), "text/event-stream"),
    ],
)
async def test_a_success_that_is_no_reply_may_have_been_billed(body: str, content_type: str) -> None:
    assert (await failure(answers(body, content_type=content_type))).outcome is Outcome.UNKNOWN


async def test_rubbish_in_the_middle_breaks_the_stream() -> None:
    for rubbish in (data("{not json"), data('{"object": "other"}'), data("7")):
        assert (await failure(answers(text_chunk("Hi"), rubbish, REPLY))).outcome is Outcome.BROKEN_STREAM


async def test_an_error_event_is_classified_before_the_first_token_and_breaks_the_stream_after_it() -> None:
    error = data({"error": {"message": "words", "code": "insufficient_quota", "type": "insufficient_quota"}})
    assert (await failure(answers(error))).outcome is Outcome.BILLING
    assert (await failure(answers(text_chunk(""), error))).outcome is Outcome.BILLING
    assert (await failure(answers(text_chunk("Hi"), error))).outcome is Outcome.BROKEN_STREAM


async def test_an_error_in_a_json_success_is_classified() -> None:
    body = json.dumps([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "words"}}])
    assert (await failure(answers(body, content_type="application/json"))).outcome is Outcome.OVERLOADED


async def test_a_finish_reason_that_means_failure_breaks_the_stream() -> None:
    assert (await failure(answers(text_chunk("Hi", "abort"), DONE))).outcome is Outcome.BROKEN_STREAM


async def test_a_refused_call_is_classified_with_its_wait() -> None:
    body = json.dumps({"error": {"message": "slow", "code": "rate_limit_exceeded", "type": "requests"}})
    error = await failure(answers(body, status=429, content_type="application/json", retry_after_ms="1500"))
    assert (error.outcome, error.status) == (Outcome.RATE_LIMITED, 429)
    assert error.retry_after == timedelta(seconds=1.5)


async def test_an_endless_error_page_is_read_only_to_its_bound() -> None:
    read = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1024
                yield b"x" * 1024

    error = await failure(lambda _: httpx.Response(500, stream=Endless()))
    assert error.outcome is Outcome.UNKNOWN
    assert read <= 65 * 1024


async def test_an_endless_reply_is_cut_at_its_bound() -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b": filler that is not an event" * 10_000 + b"\n"

    error = await failure(lambda _: httpx.Response(200, stream=Endless()))
    assert error.outcome is Outcome.BROKEN_STREAM
    assert "larger" in str(error)


async def test_an_event_larger_than_any_chunk_breaks_the_stream() -> None:
    error = await failure(answers(text_chunk("Hi"), "data: " + "x" * 1_100_000))
    assert error.outcome is Outcome.BROKEN_STREAM


async def test_a_redirect_is_not_followed() -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(307, headers={"location": "https://elsewhere.example/v1"})

    assert (await failure(handler)).outcome is Outcome.INVALID_REQUEST
    assert len(requests) == 1


async def test_cookies_are_not_kept() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return answers(REPLY, set_cookie="session=of-another-tenant")(request)

    client = HttpStream(transport=httpx.MockTransport(handler))
    provider = OpenAICompatible("https://models.example/v1", KEY, client)
    for _ in range(2):
        assert [event async for event in provider.complete(model_call())] == EVENTS
    await client.aclose()
    assert seen == [None, None]


@pytest.mark.parametrize(
    ("exception", "outcome"),
    [
        (httpx.ConnectError("no"), Outcome.NOT_SENT),
        (httpx.ConnectTimeout("no"), Outcome.NOT_SENT),
        (httpx.PoolTimeout("no"), Outcome.NOT_SENT),
        (httpx.ProxyError("no"), Outcome.NOT_SENT),
        (httpx.UnsupportedProtocol("no"), Outcome.NOT_SENT),
        (httpx.WriteError("no"), Outcome.UNKNOWN),
        (httpx.WriteTimeout("no"), Outcome.UNKNOWN),
        (httpx.ReadTimeout("no"), Outcome.UNKNOWN),
        (httpx.ReadError("no"), Outcome.UNKNOWN),
        (httpx.RemoteProtocolError("no"), Outcome.UNKNOWN),
        (ConnectionResetError("no"), Outcome.UNKNOWN),
    ],
)
async def test_every_failure_of_the_transport_has_its_outcome(exception: Exception, outcome: Outcome) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise exception

    error = await failure(handler)
    assert error.outcome is outcome
    assert error.__cause__ is None


# --- secrets and configuration ----------------------------------------------------------------------------------------


async def test_the_key_is_in_no_representation_error_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY, "type": KEY}})
    error = await failure(answers(body, status=401, content_type="application/json", x_request_id="req_1"))
    assert error.outcome is Outcome.AUTHENTICATION
    provider = OpenAICompatible("http://h/v1", SecretStr(KEY))
    told = [repr(provider), str(provider), str(vars(provider)), caplog.text, *traceback.format_exception(error)]
    await provider.aclose()
    assert KEY not in "".join(told)


@pytest.mark.parametrize("key", ["sk-\nabc", "sk-ключ", "sk-\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAICompatible("http://h/v1", key)
    assert key not in str(caught.value)


async def test_a_line_break_after_the_key_does_no_harm() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        return answers(REPLY)(request)

    client = HttpStream(transport=httpx.MockTransport(handler))
    provider = OpenAICompatible("http://h/v1", SecretStr(f"{KEY}\n"), client)
    assert [event async for event in provider.complete(model_call())] == EVENTS
    await client.aclose()


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "localhost:11434/v1",
        "ftp://h/v1",
        "https://",
        "http://h:port/v1",
        "http://user:hunter2@h/v1",
        "http://h/v1?a=b",
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        OpenAICompatible(base_url)
    assert "hunter2" not in str(caught.value)


# --- disconnects and hangs --------------------------------------------------------------------------------------------


async def test_closing_the_iterator_early_disconnects_from_the_server(socket_server: Any) -> None:
    disconnected = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.send_head()
        await exchange.send(text_chunk("Hi"))
        assert await exchange.reader.read() == b""
        disconnected.set()

    provider = OpenAICompatible(await socket_server.start(handler), KEY)
    async with aclosing(provider.complete(model_call())) as events:
        assert await anext(events) == TextDelta("Hi")
    async with asyncio.timeout(60):
        await disconnected.wait()
    await provider.aclose()


async def test_cancelling_the_caller_disconnects_from_the_server(socket_server: Any) -> None:
    received, disconnected = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Any) -> None:
        received.set()
        assert await exchange.reader.read() == b""
        disconnected.set()

    provider = OpenAICompatible(await socket_server.start(handler), KEY)

    async def consume() -> None:
        async for _ in provider.complete(model_call()):
            pass

    task = asyncio.create_task(consume())
    async with asyncio.timeout(60):
        await received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await disconnected.wait()
    await provider.aclose()


async def test_an_answer_that_is_not_read_is_disconnected_too(socket_server: Any) -> None:
    disconnected = asyncio.Event()

    async def handler(exchange: Any) -> None:
        await exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n<html>")
        assert await exchange.reader.read() == b""
        disconnected.set()

    provider = OpenAICompatible(await socket_server.start(handler), KEY)
    with pytest.raises(ProviderError, match="HTML"):
        await anext(provider.complete(model_call()))
    async with asyncio.timeout(60):
        await disconnected.wait()
    await provider.aclose()


async def test_a_server_nobody_listens_on_was_not_sent_anything(free_port: int) -> None:
    with pytest.raises(ProviderError) as caught:
        await collect(f"http://127.0.0.1:{free_port}/v1", model_call())
    assert caught.value.outcome is Outcome.NOT_SENT


async def test_a_server_that_hangs_up_without_an_answer_is_asked_once_and_may_have_billed(socket_server: Any) -> None:
    async def handler(exchange: Any) -> None:
        raise ConnectionError

    with pytest.raises(ProviderError) as caught:
        await collect(await socket_server.start(handler), model_call())
    assert caught.value.outcome is Outcome.UNKNOWN
    assert (socket_server.connections, len(socket_server.requests)) == (1, 1)


async def hang(exchange: Any) -> None:
    await exchange.reader.read()


async def hang_after_head(exchange: Any) -> None:
    await exchange.send_head()
    await exchange.reader.read()


async def hang_after_role(exchange: Any) -> None:
    await exchange.send_head()
    await exchange.send(data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    await exchange.reader.read()


async def hang_after_text(exchange: Any) -> None:
    await exchange.send_head()
    await exchange.send(text_chunk("Hi"))
    await exchange.reader.read()


async def hang_up_after_text(exchange: Any) -> None:
    await exchange.send_head("200 OK", "Content-Length: 100000")
    await exchange.send(text_chunk("Hi"))
    raise ConnectionError


@pytest.mark.parametrize(
    ("handler", "timeouts", "outcome", "named"),
    [
        (hang, Timeouts(first_token=ARRIVED, between_tokens=PATIENT), Outcome.UNKNOWN, "first_token"),
        (hang, Timeouts(total=ARRIVED), Outcome.UNKNOWN, "total"),
        (hang_after_head, Timeouts(first_token=ARRIVED, between_tokens=PATIENT), Outcome.UNKNOWN, "first_token"),
        (hang_after_role, Timeouts(first_token=ARRIVED, between_tokens=PATIENT), Outcome.BROKEN_STREAM, "first_token"),
        (hang_after_text, Timeouts(first_token=PATIENT, between_tokens=SOON), Outcome.BROKEN_STREAM, "between_tokens"),
        (hang_after_text, Timeouts(total=ARRIVED), Outcome.BROKEN_STREAM, "total"),
        (hang_up_after_text, Timeouts(), Outcome.BROKEN_STREAM, "broke"),
    ],
)
async def test_every_silence_and_hang_up_has_its_outcome(
    socket_server: Any, handler: Any, timeouts: Timeouts, outcome: Outcome, named: str
) -> None:
    with pytest.raises(ProviderError, match=named) as caught:
        async with asyncio.timeout(60):
            await collect(await socket_server.start(handler), model_call(timeouts=timeouts))
    assert caught.value.outcome is outcome
    assert len(socket_server.requests) == 1


async def test_a_hang_up_after_the_finish_reason_loses_only_the_count(socket_server: Any) -> None:
    async def handler(exchange: Any) -> None:
        await exchange.send_head("200 OK", "Content-Length: 100000")
        await exchange.send(text_chunk("Hi", "stop"))
        raise ConnectionError

    events = await collect(await socket_server.start(handler), model_call())
    assert events[-1] == Completed(FinishReason.STOP, "gpt-test-1", "chatcmpl-7", None)


@pytest.mark.parametrize("timeouts", [Timeouts(connect=SOON), Timeouts(connect=PATIENT, total=SOON)])
async def test_a_call_without_a_free_connection_fails_unsent(socket_server: Any, timeouts: Timeouts) -> None:
    url = await socket_server.start(hang_after_text)
    client = HttpStream(max_connections=1)
    async with aclosing(OpenAICompatible(url, KEY, client).complete(model_call())) as first:
        assert await anext(first) == TextDelta("Hi")
        with pytest.raises(ProviderError) as caught:
            await collect(url, model_call(timeouts=timeouts), client)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert len(socket_server.requests) == 1
    await client.aclose()


async def test_calls_one_after_another_share_a_connection(socket_server: Any) -> None:
    async def handler(exchange: Any) -> None:
        body = "".join(f"{len(part.encode()):x}\r\n{part}\r\n" for part in (REPLY,))
        await exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.send(body + "0\r\n\r\n")

    url = await socket_server.start(handler)
    client = HttpStream()
    for _ in range(3):
        assert await collect(url, model_call(), client) == EVENTS
    assert (socket_server.connections, len(socket_server.requests)) == (1, 3)
    await client.aclose()


async def refuse(exchange: Any) -> None:
    await exchange.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("handler", [refuse, hang])
async def test_proxies_of_the_environment_are_used_and_their_failures_were_not_sent(
    socket_server: Any, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    url = await socket_server.start(handler)
    monkeypatch.setenv("HTTPS_PROXY", url.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ProviderError) as caught:
        await collect("https://models.example/v1", model_call(timeouts=Timeouts(connect=ARRIVED)))
    assert socket_server.requests[0].head.startswith("CONNECT models.example:443")
    assert caught.value.outcome is Outcome.NOT_SENT
