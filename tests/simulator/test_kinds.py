"""Every behaviour kind as a client sees it on the wire, and what it leaves on the bill."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import jsonschema_rs
import pytest

from holdfast.tokens import count_tokens
from simulator.behaviour import Kind
from simulator.server import Simulator
from tests.simulator.conftest import Ask, hangs

SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["bug", "other"]}, "summary": {"type": "string", "maxLength": 400}},
    "required": ["category", "summary"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "triage", "schema": SCHEMA, "strict": True}}
TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
}


def events(text: str) -> list[Any]:
    """The JSON payloads of a server-sent event stream that ended properly."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed_text(chunks: list[Any], channel: str = "content") -> str:
    return "".join(chunk["choices"][0]["delta"].get(channel) or "" for chunk in chunks if chunk["choices"])


async def test_an_answer_carries_usage_that_equals_its_text_and_the_bill(ask: Ask, simulator: Simulator) -> None:
    response = await ask()
    completion = response.json()
    text = completion["choices"][0]["message"]["content"]
    assert response.status_code == 200
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["completion_tokens"] == count_tokens(text) == 24
    [entry] = simulator.bill()["entries"]
    prompt_tokens = completion["usage"]["prompt_tokens"]
    assert datetime.now(UTC) - datetime.fromisoformat(entry.pop("accepted_at")) < timedelta(minutes=1)
    assert entry == {
        "id": completion["id"],
        "model": "m",
        "client_request_id": None,
        "credential": None,
        "batch": False,
        "prompt_tokens": prompt_tokens,
        "input_tokens": prompt_tokens,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "completion_tokens": 24,
        "output_tokens": 24,
        "completed": True,
    }


async def test_every_response_has_a_request_id_and_rate_limit_headers(ask: Ask) -> None:
    headers = (await ask()).headers
    assert headers["x-request-id"].startswith("req_")
    for dimension in ("requests", "tokens"):
        assert int(headers[f"x-ratelimit-limit-{dimension}"]) > 0
        assert int(headers[f"x-ratelimit-remaining-{dimension}"]) > 0
        assert headers[f"x-ratelimit-reset-{dimension}"] == "0s"


async def test_a_stream_says_the_same_as_the_body_and_ends_with_usage(ask: Ask) -> None:
    whole = (await ask()).json()
    response = await ask(stream=True, stream_options={"include_usage": True})
    chunks = events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert streamed_text(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_a_stream_without_include_usage_reports_none(ask: Ask) -> None:
    chunks = events((await ask(stream=True)).text)
    assert all("usage" not in chunk for chunk in chunks)


async def test_latencies_change_when_tokens_come_but_not_which(ask: Ask, simulator: Simulator) -> None:
    plain = events((await ask(stream=True)).text)
    slow = {"first_token_ms": 1, "token_ms": 0.3, "token_sigma": 0.5}
    paced = events((await ask(slow, stream=True)).text)
    body = (await ask(slow)).json()
    assert streamed_text(paced) == streamed_text(plain) == body["choices"][0]["message"]["content"]
    assert [entry["completion_tokens"] for entry in simulator.bill()["entries"]] == [24, 24, 24]


async def test_max_completion_tokens_cuts_the_answer_with_finish_reason_length(ask: Ask) -> None:
    choice = (await ask(max_completion_tokens=3)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert count_tokens(choice["message"]["content"]) == 3


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (Kind.RATE_LIMITED, 429, "requests", "rate_limit_exceeded"),
        (Kind.INSUFFICIENT_QUOTA, 429, "insufficient_quota", "insufficient_quota"),
        (Kind.UNAUTHORIZED, 401, "invalid_request_error", "invalid_api_key"),
        (Kind.SLOW_DOWN, 429, "rate_limit_error", "slow_down"),
        (Kind.BILLING_402, 402, "insufficient_quota", "credit_balance_exhausted"),
        (Kind.BILLING_400, 400, "invalid_request_error", "billing_hard_limit_reached"),
        (Kind.FORBIDDEN, 403, "invalid_request_error", "forbidden"),
        (Kind.MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found"),
        (Kind.REQUEST_TOO_LARGE, 413, "invalid_request_error", "request_too_large"),
        (Kind.CONFLICT_409, 409, "conflict_error", "conflict"),
        (Kind.CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded"),
        (Kind.POLICY_400, 400, "invalid_request_error", "content_filter"),
        (Kind.OVERLOADED_503, 503, "service_unavailable_error", "server_is_overloaded"),
        (Kind.OVERLOADED_529, 529, "overloaded_error", "overloaded"),
        (Kind.ERROR_500, 500, "server_error", None),
        (Kind.ERROR_502, 502, "server_error", "bad_gateway"),
        (Kind.ERROR_504, 504, "server_error", "timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_has_openais_shape_and_bills_nothing(
    ask: Ask, simulator: Simulator, kind: Kind, status: int, type_: str, code: str | None, stream: bool
) -> None:
    response = await ask({"kind": kind}, stream=stream)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["type"] == type_
    assert response.json()["error"]["code"] == code
    assert simulator.bill()["entries"] == []
    [call] = simulator.calls()
    assert (call["kind"], call["status"], call["bill_id"], call["ended"]) == (kind, status, None, "answered")


async def test_a_rate_limit_says_how_long_to_wait_in_the_asked_format(ask: Ask) -> None:
    seconds = await ask({"kind": "rate_limited", "retry_after": 2.5})
    assert seconds.headers["retry-after"] == "2.5"
    assert seconds.headers["x-ratelimit-remaining-requests"] == "0"
    assert seconds.headers["x-ratelimit-reset-requests"] == "2.5s"
    millis = await ask({"kind": "rate_limited", "retry_after": 2.5, "retry_after_format": "milliseconds"})
    assert millis.headers["retry-after-ms"] == "2500"
    assert "retry-after" not in millis.headers
    date = await ask({"kind": "rate_limited", "retry_after": 3600, "retry_after_format": "http_date"})
    wait = parsedate_to_datetime(date.headers["retry-after"]) - parsedate_to_datetime(date.headers["date"])
    assert 3590 <= wait.total_seconds() <= 3610
    none = await ask({"kind": "rate_limited", "retry_after_format": "none"})
    assert "retry-after" not in none.headers
    assert "retry-after" not in (await ask({"kind": "overloaded_503"})).headers


async def test_an_error_code_can_be_replaced(ask: Ask) -> None:
    response = await ask({"kind": "insufficient_quota", "error_code": "credit_balance_exhausted"})
    assert response.json()["error"]["code"] == "credit_balance_exhausted"


async def test_a_billed_500_bills_the_prompt_and_the_full_completion(ask: Ask, simulator: Simulator) -> None:
    response = await ask({"kind": "error_500", "bill_on_error": True, "completion_tokens": 40})
    assert response.status_code == 500
    [entry] = simulator.bill()["entries"]
    assert entry["prompt_tokens"] > 0
    assert entry["completion_tokens"] == 40
    assert entry["completed"] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_never_answers_and_bills_the_prompt(
    client: httpx.AsyncClient, simulator: Simulator, stream: bool
) -> None:
    simulator.script({"kind": "hang"})
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hello?"}]}
    await hangs(simulator, client.post("/v1/chat/completions", json=body))
    [entry] = simulator.bill()["entries"]
    assert entry["prompt_tokens"] > 0
    assert entry["completion_tokens"] == 0
    assert entry["completed"] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_before_the_response_sends_not_one_byte(
    ask: Ask, simulator: Simulator, stream: bool
) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await ask({"kind": "disconnect_before_response"}, stream=stream)
    [entry] = simulator.bill()["entries"]
    assert (entry["completion_tokens"], entry["completed"]) == (0, False)


async def read_until_failure(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, str]:
    """What arrived of a response, and the name of the error that ended it; a second without a byte is one."""
    received = ""
    request = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]} | body
    patience = httpx.Timeout(60, read=1)
    try:
        async with client.stream("POST", "/v1/chat/completions", json=request, timeout=patience) as response:
            async for text in response.aiter_text():
                received += text
    except httpx.TransportError as error:
        return received, type(error).__name__
    return received, "none"


@pytest.mark.parametrize(
    ("kind", "error"), [("hang_mid_stream", "ReadTimeout"), ("disconnect_mid_stream", "RemoteProtocolError")]
)
@pytest.mark.parametrize("token_ms", [0, 1])
async def test_a_stream_that_breaks_after_n_tokens_bills_the_n_tokens_it_sent(
    client: httpx.AsyncClient, simulator: Simulator, kind: str, error: str, token_ms: int
) -> None:
    simulator.script({"kind": kind, "after_tokens": 11, "token_ms": token_ms})
    received, ended = await read_until_failure(client, {"stream": True})
    chunks = [json.loads(event.removeprefix("data: ")) for event in received.split("\n\n") if event]
    assert ended == error
    assert count_tokens(streamed_text(chunks)) == 11
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    [entry] = simulator.bill()["entries"]
    assert (entry["completion_tokens"], entry["completed"]) == (11, False)


@pytest.mark.parametrize(
    ("kind", "error"), [("hang_mid_stream", "ReadTimeout"), ("disconnect_mid_stream", "RemoteProtocolError")]
)
async def test_a_body_that_breaks_arrives_in_part(
    client: httpx.AsyncClient, simulator: Simulator, kind: str, error: str
) -> None:
    simulator.script({"kind": kind, "after_tokens": 3})
    received, ended = await read_until_failure(client, {})
    assert ended == error
    assert received.startswith('{"id"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    [entry] = simulator.bill()["entries"]
    assert (entry["completion_tokens"], entry["completed"]) == (3, False)


async def test_a_broken_stream_can_be_billed_in_full(client: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.script({"kind": "disconnect_mid_stream", "after_tokens": 3, "bill_on_error": True})
    _, ended = await read_until_failure(client, {"stream": True})
    assert ended == "RemoteProtocolError"
    assert simulator.bill(entries=False)["completion_tokens"] == 24


async def test_a_client_that_leaves_is_billed_for_what_was_produced(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.script({"token_ms": 3_600_000})
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        first = await anext(response.aiter_text())
    assert "data: " in first
    [entry] = simulator.bill()["entries"]
    assert (entry["completion_tokens"], entry["completed"]) == (1, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_content_filter_stops_the_answer_early(ask: Ask, simulator: Simulator, stream: bool) -> None:
    response = await ask({"kind": "content_filter", "after_tokens": 4}, stream=stream)
    choice = events(response.text)[-1]["choices"][0] if stream else response.json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert simulator.bill(entries=False)["completion_tokens"] == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_in_the_refusal_field(ask: Ask, stream: bool) -> None:
    response = await ask({"kind": "refusal"}, stream=stream)
    if stream:
        chunks = events(response.text)
        assert streamed_text(chunks) == ""
        assert "can't help" in streamed_text(chunks, "refusal")
    else:
        message = response.json()["choices"][0]["message"]
        assert message["content"] is None
        assert "can't help" in message["refusal"]


async def test_a_truncated_answer_has_finish_reason_length(ask: Ask, simulator: Simulator) -> None:
    choice = (await ask({"kind": "truncated"})).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert count_tokens(choice["message"]["content"]) == 12
    assert simulator.bill(entries=False)["completion_tokens"] == 12


async def test_tool_calls_call_the_requests_tool_with_valid_arguments(ask: Ask, simulator: Simulator) -> None:
    completion = (await ask({"kind": "tool_calls"}, tools=[TOOL])).json()
    choice = completion["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert (call["type"], call["function"]["name"]) == ("function", "lookup")
    assert isinstance(json.loads(call["function"]["arguments"])["id"], int)
    assert simulator.bill(entries=False)["completion_tokens"] == completion["usage"]["completion_tokens"] > 0


async def test_streamed_tool_calls_add_up_by_index(ask: Ask) -> None:
    calls = [{"name": "lookup", "arguments": {"id": 1}}, {"name": "refund", "arguments": {"note": "x" * 80}}]
    response = await ask({"kind": "tool_calls", "tool_calls": calls}, stream=True)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in events(response.text):
        for part in chunk["choices"][0]["delta"].get("tool_calls", []):
            names.setdefault(part["index"], part["function"].get("name", ""))
            arguments[part["index"]] = arguments.get(part["index"], "") + part["function"]["arguments"]
    assert names == {0: "lookup", 1: "refund"}
    assert [json.loads(arguments[index]) for index in (0, 1)] == [{"id": 1}, {"note": "x" * 80}]


async def test_a_required_tool_choice_calls_the_tool_unscripted(ask: Ask) -> None:
    choice = {"type": "function", "function": {"name": "lookup"}}
    completion = (await ask(tools=[TOOL], tool_choice=choice)).json()
    assert completion["choices"][0]["finish_reason"] == "tool_calls"


async def test_tool_calls_without_any_tool_are_refused(ask: Ask, simulator: Simulator) -> None:
    response = await ask({"kind": "tool_calls"})
    assert response.status_code == 422
    assert simulator.bill(entries=False)["requests"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_no_usage_leaves_usage_out_but_bills(ask: Ask, simulator: Simulator, stream: bool) -> None:
    response = await ask({"kind": "no_usage"}, stream=stream, stream_options={"include_usage": True})
    found = [chunk.get("usage") for chunk in events(response.text)] if stream else [response.json().get("usage")]
    assert set(found) == {None}
    assert simulator.bill(entries=False)["completion_tokens"] == 24


@pytest.mark.parametrize("stream", [False, True])
async def test_malformed_json_is_a_200_that_does_not_parse(ask: Ask, simulator: Simulator, stream: bool) -> None:
    response = await ask({"kind": "malformed_json"}, stream=stream)
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        events(response.text) if stream else response.json()
    assert simulator.bill(entries=False)["completion_tokens"] == 24


@pytest.mark.parametrize("stream", [False, True])
async def test_html_200_is_a_page_instead_of_json(ask: Ask, stream: bool) -> None:
    response = await ask({"kind": "html_200"}, stream=stream)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<!doctype html>")


def content_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


async def test_a_json_schema_gets_an_instance(ask: Ask) -> None:
    jsonschema_rs.validate(SCHEMA, json.loads(content_of(await ask(response_format=RESPONSE_FORMAT))))


async def test_json_object_gets_an_object(ask: Ask) -> None:
    assert isinstance(json.loads(content_of(await ask(response_format={"type": "json_object"}))), dict)


async def test_schema_violating_json_is_json_that_the_schema_rejects(ask: Ask) -> None:
    content = content_of(await ask({"kind": "schema_violating_json"}, response_format=RESPONSE_FORMAT))
    assert not jsonschema_rs.is_valid(SCHEMA, json.loads(content))


async def test_repairable_json_is_fenced_with_a_trailing_comma(ask: Ask) -> None:
    content = content_of(await ask({"kind": "repairable_json"}, response_format=RESPONSE_FORMAT))
    assert content.startswith("```json\n{")
    assert content.endswith(",\n}\n```")
    mended = content.removeprefix("```json\n").removesuffix(",\n}\n```") + "}"
    jsonschema_rs.validate(SCHEMA, json.loads(mended))


async def test_an_unsupported_schema_is_refused_as_providers_do(ask: Ask, simulator: Simulator) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {"type": "string"}}}}
    response = await ask(response_format=format_)
    assert response.status_code == 400
    assert "'not'" in response.json()["error"]["message"]
    assert simulator.bill(entries=False)["requests"] == 0


async def test_scripted_content_is_sent_as_it_is(ask: Ask) -> None:
    text = "Ünïcode 🙂🙂🙂 and\nlines"
    assert content_of(await ask({"content": text})) == text
    assert streamed_text(events((await ask({"content": text, "token_ms": 0.01}, stream=True)).text)) == text


async def test_cached_tokens_are_reported_inside_the_prompt(ask: Ask) -> None:
    usage = (await ask({"cached_tokens": 5})).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 5
    assert usage["prompt_tokens"] > 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": [{"type": "x"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_a_bad_request_names_its_parameter(ask: Ask, body: dict[str, Any], param: str) -> None:
    response = await ask(**body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", content=b"{")
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_health_and_models_answer(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    models = (await client.get("/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["sim-large"]
    missing = await client.get("/v1/nothing")
    assert missing.status_code == 404
    assert "error" in missing.json()
