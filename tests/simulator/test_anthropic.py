"""Anthropic's wire format: messages as bodies and as events, errors, headers, stop reasons."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import pytest

from holdfast.tokens import count_tokens
from simulator.behaviour import Kind
from simulator.program import Profile
from simulator.server import Simulator
from tests.simulator.conftest import Ask

SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["bug", "other"]}, "summary": {"type": "string"}},
    "required": ["category", "summary"],
    "additionalProperties": False,
}
TOOL = {
    "name": "lookup",
    "input_schema": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
}


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    data: Any


def events(text: str) -> list[Event]:
    """The events of a stream; each names in its data the type that its `event:` line names."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = Event(name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        assert event.data["type"] == event.name
        found.append(event)
    return found


def assembled(stream: list[Event]) -> dict[str, Any]:
    """The message that a client puts together: blocks by index, usage overwritten."""
    message: dict[str, Any] = {}
    partial: dict[int, str] = {}
    open_block: int | None = None
    for name, data in stream:
        match name:
            case "message_start":
                message = data["message"]
            case "content_block_start":
                assert open_block is None
                open_block = data["index"]
                assert open_block == len(message["content"])
                message["content"].append(data["content_block"])
            case "content_block_delta":
                assert data["index"] == open_block
                match data["delta"]:
                    case {"type": "text_delta", "text": text}:
                        message["content"][open_block]["text"] += text
                    case {"type": "input_json_delta", "partial_json": part}:
                        partial[data["index"]] = partial.get(data["index"], "") + part
            case "content_block_stop":
                assert data["index"] == open_block
                open_block = None
            case "message_delta":
                message |= {key: value for key, value in data["delta"].items() if key != "stop_details"}
                message["usage"] |= data["usage"]
    for index, arguments in partial.items():
        message["content"][index]["input"] = json.loads(arguments)
    return message


def only_text(message: dict[str, Any]) -> str:
    [block] = message["content"]
    assert block["type"] == "text"
    return str(block["text"])


async def test_a_message_carries_usage_that_equals_its_text_and_the_bill(tell: Ask, simulator: Simulator) -> None:
    response = await tell()
    message = response.json()
    assert response.status_code == 200
    assert response.headers["request-id"].startswith("req_")
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "m")
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["output_tokens"] == count_tokens(only_text(message)) == 24
    [entry] = simulator.bill()["entries"]
    assert (entry["id"], entry["output_tokens"], entry["completed"]) == (message["id"], 24, True)
    assert entry["input_tokens"] == message["usage"]["input_tokens"] > 0


async def test_a_stream_begins_with_a_placeholder_and_ends_with_cumulative_usage(tell: Ask) -> None:
    whole = (await tell()).json()
    response = await tell(stream=True)
    stream = events(response.text)
    names = [event.name for event in stream if event.name != "content_block_delta"]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert names == [
        *("message_start", "content_block_start", "ping"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert stream[0].data["message"]["usage"]["output_tokens"] == 1
    assert stream[0].data["message"]["content"] == []
    assert assembled(stream) | {"id": ""} == whole | {"id": ""}


async def test_tools_are_used_in_blocks_with_input_in_pieces(tell: Ask, simulator: Simulator) -> None:
    calls = [{"name": "lookup", "arguments": {"id": 1}}, {"name": "refund", "arguments": {"note": "x" * 80}}]
    behaviour = {"kind": "tool_calls", "tool_calls": calls}
    whole = (await tell(behaviour)).json()
    streamed = assembled(events((await tell(behaviour, stream=True)).text))
    assert streamed | {"id": ""} == whole | {"id": ""}
    assert whole["stop_reason"] == "tool_use"
    assert [(block["type"], block["name"], block["input"]) for block in whole["content"]] == [
        ("tool_use", "lookup", {"id": 1}),
        ("tool_use", "refund", {"note": "x" * 80}),
    ]
    assert all(block["id"].startswith("toolu_") for block in whole["content"])
    assert [entry["output_tokens"] for entry in simulator.bill()["entries"]] == [whole["usage"]["output_tokens"]] * 2


async def test_text_may_come_before_the_tools(tell: Ask, ask: Ask) -> None:
    behaviour = {"kind": "tool_calls", "content": "Let me look.", "tool_calls": [{"name": "lookup", "arguments": {}}]}
    streamed = assembled(events((await tell(behaviour, stream=True)).text))
    assert [block["type"] for block in streamed["content"]] == ["text", "tool_use"]
    assert streamed["content"][0]["text"] == "Let me look."
    assert (await ask(behaviour)).json()["choices"][0]["message"]["content"] == "Let me look."


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "lookup"}])
async def test_a_forced_tool_is_used_unscripted(tell: Ask, choice: dict[str, str]) -> None:
    message = (await tell(tools=[TOOL], tool_choice=choice)).json()
    [block] = message["content"]
    assert isinstance(block["input"]["id"], int)


async def test_results_of_tools_are_no_question_but_count_as_prompt(tell: Ask) -> None:
    def messages(result: str) -> list[dict[str, Any]]:
        content = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]
        return [
            {"role": "user", "content": "[1] Refunds take 30 days.\n\nWhen are refunds paid?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {}}]},
            {"role": "user", "content": content},
        ]

    short, long = [(await tell(messages=messages(result))).json() for result in ("x", "word " * 50)]
    assert only_text(short).endswith("[1]")
    assert long["usage"]["input_tokens"] > short["usage"]["input_tokens"] + 40


async def test_an_output_format_gets_an_instance(tell: Ask) -> None:
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    jsonschema_rs.validate(SCHEMA, json.loads(only_text((await tell(output_config=config)).json())))
    wrong = (await tell({"kind": "schema_violating_json"}, output_config=config)).json()
    assert not jsonschema_rs.is_valid(SCHEMA, json.loads(only_text(wrong)))


@pytest.mark.parametrize(
    ("behaviour", "body", "reason"),
    [
        ({}, {}, "end_turn"),
        ({}, {"max_tokens": 3}, "max_tokens"),
        ({"kind": "truncated"}, {}, "max_tokens"),
        ({"content": "one STOP two"}, {"stop_sequences": ["STOP"]}, "stop_sequence"),
        ({"kind": "tool_calls"}, {"tools": [TOOL]}, "tool_use"),
        ({"kind": "refusal"}, {}, "refusal"),
        ({"kind": "content_filter"}, {}, "refusal"),
        ({"kind": "context_window_exceeded"}, {}, "model_context_window_exceeded"),
    ],
)
async def test_every_end_has_its_stop_reason(
    tell: Ask, simulator: Simulator, behaviour: dict[str, Any], body: dict[str, Any], reason: str
) -> None:
    whole = (await tell(behaviour, **body)).json()
    stream = events((await tell(behaviour, **body, stream=True)).text)
    [delta] = [event.data["delta"] for event in stream if event.name == "message_delta"]
    assert whole["stop_reason"] == delta["stop_reason"] == reason
    assert (delta["stop_details"] is not None) == (reason == "refusal")
    billed = [entry["output_tokens"] for entry in simulator.bill()["entries"]]
    assert billed == [whole["usage"]["output_tokens"]] * 2


async def test_a_stop_sequence_ends_the_text_before_it_and_is_named(tell: Ask, ask: Ask) -> None:
    message = (await tell({"content": "one STOP two END"}, stop_sequences=["END", "STOP"])).json()
    assert (only_text(message), message["stop_sequence"]) == ("one ", "STOP")
    choice = (await ask({"content": "one STOP two"}, stop="STOP")).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one ", "stop")


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (Kind.RATE_LIMITED, 429, "rate_limit_error", None),
        (Kind.SLOW_DOWN, 429, "rate_limit_error", "ramp_limit_exceeded"),
        (Kind.INSUFFICIENT_QUOTA, 429, "rate_limit_error", "enforced_spend_limit_reached"),
        (Kind.BILLING_402, 402, "billing_error", None),
        (Kind.BILLING_400, 400, "invalid_request_error", "linked_organization_spend_limit_reached"),
        (Kind.UNAUTHORIZED, 401, "authentication_error", None),
        (Kind.FORBIDDEN, 403, "permission_error", None),
        (Kind.MODEL_NOT_FOUND, 404, "not_found_error", None),
        (Kind.REQUEST_TOO_LARGE, 413, "request_too_large", None),
        (Kind.CONFLICT_409, 409, "conflict_error", None),
        (Kind.CONTEXT_LENGTH, 400, "invalid_request_error", None),
        (Kind.POLICY_400, 400, "invalid_request_error", None),
        (Kind.OVERLOADED_503, 503, "overloaded_error", None),
        (Kind.OVERLOADED_529, 529, "overloaded_error", None),
        (Kind.ERROR_500, 500, "api_error", None),
        (Kind.ERROR_502, 502, "api_error", None),
        (Kind.ERROR_504, 504, "timeout_error", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_has_anthropics_shape_and_bills_nothing(
    tell: Ask, simulator: Simulator, kind: Kind, status: int, type_: str, code: str | None, stream: bool
) -> None:
    response = await tell({"kind": kind}, stream=stream)
    body = response.json()
    assert response.status_code == status
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    assert body["error"]["type"] == type_
    assert body["error"].get("details") == (None if code is None else {"error_code": code})
    assert ("retry-after" in response.headers) == (kind in (Kind.RATE_LIMITED, Kind.SLOW_DOWN))
    assert simulator.bill()["entries"] == []


async def test_details_and_the_advice_to_retry_can_be_set(tell: Ask) -> None:
    given = {"kind": "insufficient_quota", "error_code": "contract_spend_limit_reached", "should_retry": False}
    response = await tell(given)
    assert response.json()["error"]["details"] == {"error_code": "contract_spend_limit_reached"}
    assert response.headers["x-should-retry"] == "false"
    assert (await tell({"kind": "error_500", "should_retry": True})).headers["x-should-retry"] == "true"


async def test_rate_limits_are_reported_with_resets_in_rfc_3339(tell: Ask) -> None:
    headers = (await tell()).headers
    for dimension in ("requests", "tokens", "input-tokens", "output-tokens"):
        assert int(headers[f"anthropic-ratelimit-{dimension}-limit"]) > 0
        assert int(headers[f"anthropic-ratelimit-{dimension}-remaining"]) > 0
        assert headers[f"anthropic-ratelimit-{dimension}-reset"].endswith("Z")
    limited = (await tell({"kind": "rate_limited", "retry_after": 3600})).headers
    reset = datetime.fromisoformat(limited["anthropic-ratelimit-requests-reset"]) - datetime.now(UTC)
    assert limited["retry-after"] == "3600"
    assert limited["anthropic-ratelimit-requests-remaining"] == "0"
    assert timedelta(minutes=55) < reset < timedelta(minutes=65)


async def test_a_real_limit_refuses_in_this_format_too() -> None:
    profile = Profile.read({"models": {"m": {"requests_per_minute": 1}}})
    async with (
        Simulator(profile=profile) as simulator,
        httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client,
    ):
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        headers = {"anthropic-version": "2023-06-01"}
        responses = [await client.post("/v1/messages", json=body, headers=headers) for _ in range(2)]
        assert [response.status_code for response in responses] == [200, 429]
        assert responses[1].json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(responses[1].headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0"),
        ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system.0"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "other"}}]}, "system.0.cache_control"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tools": 3}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "other"}}}, "output_config.format"),
        ({"stop_sequences": [3]}, "stop_sequences"),
    ],
)
async def test_a_bad_request_names_what_is_wrong(tell: Ask, body: dict[str, Any], named: str) -> None:
    response = await tell(**body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert named in response.json()["error"]["message"]


async def test_a_version_is_required_and_a_key_is_not(client: httpx.AsyncClient) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    response = await client.post("/v1/messages", json=body)
    assert response.status_code == 400
    assert "anthropic-version" in response.json()["error"]["message"]
    accepted = await client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
    assert accepted.status_code == 200


async def test_an_unknown_path_answers_in_the_format_of_its_api(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/messages/nothing")).json()["error"]["type"] == "not_found_error"
