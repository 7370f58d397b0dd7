"""What holds for every kind in both wire formats: it ends as it says, and the bill is what the client was told."""

import json
from typing import Any, Literal

import httpx
import pytest

from simulator.behaviour import Kind
from simulator.errors import ERROR_KINDS
from simulator.server import Simulator

MESSAGES = [{"role": "user", "content": "Hello?"}]
OPENAI_TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
ANTHROPIC_TOOL = {"name": "lookup", "input_schema": {"type": "object"}}
HANGS = (Kind.HANG, Kind.HANG_MID_STREAM)
BREAKS = (Kind.DISCONNECT_BEFORE_RESPONSE, Kind.DISCONNECT_MID_STREAM)
both = pytest.mark.parametrize("wire", ["openai", "anthropic"])
either_way = pytest.mark.parametrize("stream", [False, True])


def payload(wire: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Path and body of a request."""
    if wire == "openai":
        usage = {"stream_options": {"include_usage": True}} if more.get("stream") else {}
        return "/v1/chat/completions", {"model": "m", "messages": MESSAGES, "tools": [OPENAI_TOOL]} | usage | more
    return "/v1/messages", {"model": "m", "max_tokens": 500, "messages": MESSAGES, "tools": [ANTHROPIC_TOOL]} | more


async def sent(
    client: httpx.AsyncClient, wire: str, simulate: dict[str, Any], *, read_timeout: float = 60, **more: Any
) -> tuple[int | None, str, str | None]:
    """Status, what arrived of the body, and the name of the error that ended it."""
    path, body = payload(wire, **more)
    headers = {"anthropic-version": "2023-06-01", "X-Simulate": json.dumps(simulate)}
    status, received = None, ""
    try:
        async with client.stream(
            "POST", path, json=body, headers=headers, timeout=httpx.Timeout(60, read=read_timeout)
        ) as response:
            status = response.status_code
            async for text in response.aiter_text():
                received += text
    except httpx.TransportError as error:
        return status, received, type(error).__name__
    return status, received, None


def reported_output(wire: str, text: str, *, stream: bool) -> int | None:
    """Output tokens that the response reports."""
    bodies = [json.loads(text)] if not stream else []
    if stream:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        bodies = [json.loads(line) for line in lines]
    found = None
    for body in bodies:
        usage = body.get("usage")
        if usage:
            found = usage["completion_tokens" if wire == "openai" else "output_tokens"]
    return found


@both
@either_way
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (*HANGS, *BREAKS)])
@pytest.mark.parametrize("bill_on_error", [False, True])
async def test_the_bill_is_what_the_client_was_told(
    client: httpx.AsyncClient, simulator: Simulator, wire: str, stream: bool, kind: Kind, bill_on_error: bool
) -> None:
    status, text, failed = await sent(client, wire, {"kind": kind, "bill_on_error": bill_on_error}, stream=stream)
    assert failed is None
    [call] = simulator.calls()
    assert (call["kind"], call["status"], call["ended"], call["format"]) == (kind, status, "answered", wire)
    if kind in ERROR_KINDS:
        assert status is not None
        assert status >= 400
        billed = bill_on_error and not kind.is_refusal
        assert [entry["output_tokens"] for entry in simulator.bill()["entries"]] == ([24] if billed else [])
        return
    assert status == 200
    [entry] = simulator.bill()["entries"]
    assert entry["completed"] is not (kind is Kind.ERROR_MID_STREAM)
    if kind is Kind.ERROR_MID_STREAM:
        assert entry["output_tokens"] == (24 if bill_on_error else 5)
    if kind not in (Kind.NO_USAGE, Kind.MALFORMED_JSON, Kind.HTML_200, Kind.ERROR_MID_STREAM):
        assert reported_output(wire, text, stream=stream) == entry["output_tokens"] > 0


@both
@either_way
@pytest.mark.parametrize("kind", [*HANGS, *BREAKS])
async def test_every_kind_of_silence_and_break_happens(
    client: httpx.AsyncClient, simulator: Simulator, wire: str, stream: bool, kind: Kind
) -> None:
    patience = 1 if kind in HANGS else 60
    status, text, failed = await sent(client, wire, {"kind": kind}, stream=stream, read_timeout=patience)
    mid_stream = kind in (Kind.HANG_MID_STREAM, Kind.DISCONNECT_MID_STREAM)
    assert failed == ("ReadTimeout" if kind in HANGS else "RemoteProtocolError")
    assert (status, bool(text)) == ((200, True) if mid_stream else (None, False))
    [entry] = simulator.bill()["entries"]
    assert (entry["output_tokens"], entry["completed"]) == (5 if mid_stream else 0, False)


@both
@either_way
async def test_an_error_may_come_after_200(
    client: httpx.AsyncClient, simulator: Simulator, wire: str, stream: bool
) -> None:
    behaviour = {"kind": "error_mid_stream", "after_tokens": 7, "token_ms": 0.1}
    status, text, _ = await sent(client, wire, behaviour, stream=stream)
    last = text.rstrip().splitlines()[-1].removeprefix("data: ")
    error = json.loads(last)["error"]
    assert status == 200
    assert error["type"] == ("server_error" if wire == "openai" else "overloaded_error")
    assert "[DONE]" not in text
    assert "message_stop" not in text
    if stream and wire == "anthropic":
        assert text.count("event: error\n") == 1
    assert simulator.bill(entries=False)["output_tokens"] == 7


@pytest.mark.parametrize("format_", ["gemini", "gemini_array"])
@both
async def test_an_error_can_have_geminis_shape(client: httpx.AsyncClient, wire: str, format_: str) -> None:
    async def details(kind: Literal["rate_limited", "insufficient_quota"]) -> dict[str, Any]:
        given = {"kind": kind, "error_format": format_, "retry_after": 46 if kind == "rate_limited" else None}
        path, body = payload(wire)
        headers = {"anthropic-version": "2023-06-01", "X-Simulate": json.dumps(given)}
        response = await client.post(path, json=body, headers=headers)
        [whole] = response.json() if format_ == "gemini_array" else [response.json()]
        assert response.status_code == whole["error"]["code"] == 429
        assert whole["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert "retry-after" not in response.headers
        return {detail["@type"].rsplit(".", 1)[-1]: detail for detail in whole["error"]["details"]}

    limited = await details("rate_limited")
    assert limited["RetryInfo"]["retryDelay"] == "46s"
    assert "PerMinute" in limited["QuotaFailure"]["violations"][0]["quotaId"]
    exhausted = await details("insufficient_quota")
    assert "RetryInfo" not in exhausted
    assert "PerDay" in exhausted["QuotaFailure"]["violations"][0]["quotaId"]


@both
async def test_a_confidently_wrong_answer_is_right_in_form_only(client: httpx.AsyncClient, wire: str) -> None:
    question = "[1] Refunds are paid within 30 days.\n[2] Cats sleep a lot.\n\nWhen are refunds paid?"
    messages = [{"role": "user", "content": question}]
    for simulate, marker in (({}, "[1]"), ({"kind": "confidently_wrong"}, "[2]")):
        _, text, _ = await sent(client, wire, simulate, messages=messages)
        assert marker in text


async def test_confidently_wrong_json_satisfies_the_schema_with_other_values(client: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"category": {"enum": ["bug", "other", "billing"]}, "urgent": {"type": "boolean"}},
        "required": ["category", "urgent"],
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "triage", "schema": schema}}
    values = []
    for kind in ("ok", "confidently_wrong"):
        _, text, _ = await sent(client, "openai", {"kind": kind}, response_format=format_)
        values.append(json.loads(json.loads(text)["choices"][0]["message"]["content"]))
    right, wrong = values
    assert wrong["category"] in ("bug", "other", "billing")
    assert wrong["category"] != right["category"]
    assert wrong["urgent"] is not right["urgent"]


@either_way
async def test_log_probabilities_say_how_sure_the_model_is(client: httpx.AsyncClient, stream: bool) -> None:
    for confidence in (0.95, 0.2, 0):
        _, text, _ = await sent(client, "openai", {"confidence": confidence}, stream=stream, logprobs=True)
        if stream:
            chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
            said = "".join(choice["delta"].get("content", "") for choice in choices)
            found = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
        else:
            choice = json.loads(text)["choices"][0]
            said, found = choice["message"]["content"], choice["logprobs"]["content"]
        assert "".join(entry["token"] for entry in found) == said
        assert len(found) == 24
        for entry in found:
            assert entry["logprob"] == pytest.approx({0.95: -0.0513, 0.2: -1.6094, 0: -9999}[confidence], abs=1e-4)


async def test_there_are_no_log_probabilities_unless_asked_for(client: httpx.AsyncClient) -> None:
    _, text, _ = await sent(client, "openai", {})
    assert json.loads(text)["choices"][0]["logprobs"] is None
