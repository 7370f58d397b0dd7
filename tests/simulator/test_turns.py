"""A model that works with tools does what its profile says for the turn, whatever the wire format."""

from typing import Any

import httpx
import pytest

from simulator.behaviour import BehaviourError
from simulator.program import Profile
from simulator.server import Simulator

TURNS = {
    "models": {
        "clerk": {
            "turns": [
                {"content": "Looking.", "tool_calls": [{"name": "look", "arguments": {"for": "{question}"}}]},
                {"content": "Found: {result 1}"},
            ]
        }
    }
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
async def simulator() -> Any:
    async with Simulator(profile=Profile.read(TURNS)) as running:
        yield running


async def chat(simulator: Simulator, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        body = {"model": "clerk", "messages": messages, "tools": [TOOL], **more}
        reply = await client.post("/v1/chat/completions", json=body)
        reply.raise_for_status()
        return dict(reply.json()["choices"][0])


async def test_it_calls_its_tool_first_and_answers_from_the_result(simulator: Simulator) -> None:
    asked = {"role": "user", "content": "the key"}
    first = await chat(simulator, [asked])
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["content"] == "Looking."
    (call,) = first["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("look", '{"for": "the key"}')
    result = {"role": "tool", "tool_call_id": call["id"], "content": "data follows\n<<r-1>>\nunder the mat\n<<r-1>>"}
    second = await chat(simulator, [asked, first["message"], result])
    assert (second["finish_reason"], second["message"]["content"]) == ("stop", "Found: under the mat")
    again = await chat(simulator, [asked, first["message"], result, second["message"], asked])
    assert again["finish_reason"] == "tool_calls", "a new question begins with the first turn"


async def test_without_leave_to_call_it_answers(simulator: Simulator) -> None:
    reply = await chat(simulator, [{"role": "user", "content": "x"}], tool_choice="none")
    assert reply["finish_reason"] == "stop"


async def test_the_other_wire_format_counts_the_same_turns(simulator: Simulator) -> None:
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"for": "x"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "under the mat"}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        body = {"model": "clerk", "max_tokens": 100, "messages": messages, "tools": tools}
        reply = await client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
    assert reply.json()["content"] == [{"type": "text", "text": "Found: under the mat"}]


async def test_scripted_turns_last_until_the_script_is_deleted(simulator: Simulator) -> None:
    simulator.script({"model": "clerk", "turns": [{"content": "Scripted."}]})
    asked = [{"role": "user", "content": "x"}]
    said = [(await chat(simulator, asked))["message"]["content"] for _ in range(3)]
    assert said == ["Scripted."] * 3
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        await client.delete("/_simulator/script")
    assert (await chat(simulator, asked))["finish_reason"] == "tool_calls", "the profile is back"


async def test_scripted_turns_with_times_apply_so_often(simulator: Simulator) -> None:
    simulator.script({"model": "clerk", "turns": [{"content": "Scripted."}], "times": 1})
    asked = [{"role": "user", "content": "x"}]
    assert (await chat(simulator, asked))["message"]["content"] == "Scripted."
    assert (await chat(simulator, asked))["finish_reason"] == "tool_calls"


def test_a_turn_with_another_key_is_refused_by_name() -> None:
    with pytest.raises(BehaviourError, match="turns"):
        Profile.read({"models": {"clerk": {"turns": [{"says": "x"}]}}})
