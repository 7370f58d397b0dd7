"""Streams of whole requests: real engine, real worker, simulated model, and OpenAI's own client over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from temporalio.client import Client

from gateway.app import create_app
from gateway.server import base_url, serving
from holdfast.contracts import Status
from tests.gateway.streams import Event, events_of
from tests.house import House, open_house

SLOWLY = {"kind": "ok", "content": "One two three four five six.", "token_ms": 100}
AT_LEISURE = {"token_ms": 1_000}
"""So slowly that a reader on a busy machine is there before the last word."""
ASK: list[Any] = [{"role": "user", "content": "Count."}]


@dataclass
class Whole:
    """A house with its door on a port."""

    house: House
    http: httpx.AsyncClient
    client: AsyncOpenAI

    async def follow(self, request_id: str, last: str | None = None, until: str = "done") -> list[Event]:
        """Follow a request until an event of a kind."""
        had: list[Event] = []
        headers = {"Last-Event-ID": last} if last else {}
        url = f"/v1/requests/{request_id}/events"
        # A stream that has nothing to tell sends comments, so it never comes to the client's own timeout.
        async with asyncio.timeout(120), self.http.stream("GET", url, headers=headers, timeout=60) as reply:
            assert reply.status_code == 200
            async for event in events_of(reply):
                had.append(event)
                if event.kind == until:
                    break
        return had


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory, temporal_client: Client) -> AsyncIterator[Whole]:
    directory: Path = tmp_path_factory.mktemp("whole")
    async with open_house(directory, temporal_client, sandbox=False) as house:
        app = create_app(
            house.settings, house.configuration, house.services.ledger, house.engine, relay=house.services.relay
        )
        async with serving(app, "127.0.0.1", 0) as port:
            url = base_url("127.0.0.1", port)
            async with (
                httpx.AsyncClient(base_url=url) as http,
                AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client,
            ):
                yield Whole(house, http, client)


@pytest.fixture(autouse=True)
def unscripted(whole: Whole) -> None:
    """Let no test find what another has scripted."""
    whole.house.simulator.clear_script()


def text_of(events: list[Event]) -> str:
    """What a client that obeys every event shows at the end."""
    shown = ""
    for one in events:
        if one.kind == "restart":
            shown = ""
        elif one.kind == "text":
            shown += one.data["text"]
    return shown


async def test_a_request_is_told_from_its_first_step_to_its_answer(whole: Whole) -> None:
    whole.house.simulator.script(SLOWLY | AT_LEISURE)
    request_id = (await whole.house.submit("plain", "Count."))["id"]
    had = await whole.follow(request_id)
    sequences = [one.data["sequence"] for one in had if one.kind == "step"]
    assert sequences == list(range(1, len(sequences) + 1))
    names = [one.data["name"] for one in had if one.kind == "step"]
    assert names[0] == "sanitize"
    assert {"route", "generate", "validate"} < set(names)
    # What was said before the reader came is one piece.
    assert len([one for one in had if one.kind == "text"]) > 1
    assert text_of(had) == SLOWLY["content"]
    assert had[-1].data["answer"]["text"] == SLOWLY["content"]
    again = await whole.follow(request_id)
    assert [one.data["sequence"] for one in again if one.kind == "step"] == sequences
    assert text_of(again) == SLOWLY["content"]


async def test_personal_data_is_put_back_while_it_streams(whole: Whole) -> None:
    whole.house.simulator.script(SLOWLY | {"content": "I wrote to <EMAIL_1> and <EMAIL_1> again today."})
    request_id = (await whole.house.submit("plain", "Write to ada@example.org please."))["id"]
    had = await whole.follow(request_id)
    assert text_of(had) == "I wrote to ada@example.org and ada@example.org again today."
    assert all("EMAIL_1" not in json.dumps(one.data) for one in had if one.kind in ("text", "done"))


async def test_a_model_that_breaks_off_is_replaced_and_a_reader_that_comes_back_has_each_word_once(
    whole: Whole,
) -> None:
    whole.house.simulator.script(SLOWLY | AT_LEISURE | {"kind": "disconnect_mid_stream", "after_tokens": 4}, SLOWLY)
    request_id = (await whole.house.submit("plain", "Count again."))["id"]
    had = await whole.follow(request_id, until="text")
    had += await whole.follow(request_id, had[-1].id)
    assert [one.kind for one in had].count("restart") == 1
    assert text_of(had) == SLOWLY["content"]


async def test_openais_client_streams_an_answer_with_its_usage(whole: Whole) -> None:
    whole.house.simulator.script(SLOWLY)
    stream = await whole.client.chat.completions.create(
        model="plain", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == SLOWLY["content"]
    assert len([text for text in texts if text]) > 2
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    request_id = chunks[0].id.removeprefix("chatcmpl-")
    native = (await whole.http.get(f"/v1/requests/{request_id}")).json()
    assert chunks[-1].usage.total_tokens == native["usage"]["total_tokens"] > 0


async def test_openais_client_calls_a_tool_and_brings_its_result(whole: Whole) -> None:
    whole.house.simulator.script(
        {"kind": "tool_calls", "tool_calls": [{"name": "weather", "arguments": {"city": "Ulm"}}]},
        {"kind": "ok", "content": "It rains in Ulm."},
    )
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Ulm?"}]
    first = (await whole.client.chat.completions.create(model="plain", messages=messages, tools=[tool])).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls is not None
    [call] = first.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ulm"})
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = (await whole.client.chat.completions.create(model="plain", messages=messages, tools=[tool])).choices[0]
    assert (second.finish_reason, second.message.content) == ("stop", "It rains in Ulm.")


async def test_a_refused_request_is_a_bad_request_to_openais_client(whole: Whole) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await whole.client.chat.completions.create(
            model="strict", messages=[{"role": "user", "content": "Let us speak of the forbidden topic."}], stream=True
        )
    assert caught.value.code == "content_policy"


async def test_an_answer_that_a_person_releases_comes_as_one_text(whole: Whole) -> None:
    whole.house.simulator.script(SLOWLY)
    before = datetime.now(UTC)
    stream_of = whole.client.chat.completions.create(model="held", messages=ASK, stream=True)
    streaming = asyncio.ensure_future(stream_of)
    async with asyncio.timeout(60):
        # The server is shared: requests of other tests may still be parked on it, without workers.
        while not (found := await _waiting_since(whole, before)):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
    request_id = found[0]
    had = await whole.follow(request_id, until="approval")
    assert had[-1].data["approval"]["kind"] == "output"
    assert "text" not in [one.kind for one in had]
    assert not streaming.done()
    assert (await whole.house.decide(request_id, "approve", by="ann")).status_code == 200
    texts = [chunk.choices[0].delta.content async for chunk in await streaming if chunk.choices[0].delta.content]
    assert texts == [SLOWLY["content"]]


async def _waiting_since(whole: Whole, moment: datetime) -> list[str]:
    waiting = await whole.house.engine.requests("local", status=Status.WAITING, agent="held", limit=100)
    return [found.request_id for found in waiting if found.submitted_at >= moment]


async def test_the_same_question_again_costs_nothing_and_has_no_run(whole: Whole) -> None:
    first = await whole.house.ask("recalling", "What is asked twice?")
    billed = whole.house.simulator.bill(entries=False)["requests"]
    again = (await whole.http.post("/v1/requests", json={"agent": "recalling", "input": "What is asked twice?"})).json()
    assert again["answer"] == first["answer"]
    assert (again["recalled"], again["attempts"], again["id"] != first["id"]) == (True, 0, True)
    assert whole.house.simulator.bill(entries=False)["requests"] == billed
    assert (await whole.follow(again["id"]))[-1].data["answer"] == first["answer"]


async def test_a_session_goes_on_where_it_was(whole: Whole) -> None:
    await whole.house.ask("plain", "My name is Ada.", session="talk")
    second = await whole.house.ask("plain", "What is my name?", session="talk")
    request = (await whole.house.history(second["id"])).events[0]
    assert "conversation" in str(request.workflow_execution_started_event_attributes.input)


async def test_a_client_that_leaves_breaks_the_model_call_off(whole: Whole) -> None:
    whole.house.simulator.script(SLOWLY | {"token_ms": 1_000})
    stream = await whole.client.chat.completions.create(model="fleeting", messages=ASK, stream=True)
    chunk = await anext(stream)
    await stream.close()
    request_id = chunk.id.removeprefix("chatcmpl-")
    shown = await whole.house.show(request_id)
    assert shown["status"] == "cancelled"
