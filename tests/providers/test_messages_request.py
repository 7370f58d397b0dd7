"""What is sent to Anthropic's messages API."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contracts import ToolCall, ToolOffer
from holdfast.providers import Message, ModelCall
from holdfast.providers.messages_request import request_body

LOOKUP = ToolOffer(
    name="lookup",
    description="Looks a thing up.",
    parameters={"type": "object", "properties": {"id": {"type": "string"}}},
)
CALLED = ToolCall(id="call_1", name="lookup", arguments='{"id": "7"}')
CLOSED = {
    "type": "object",
    "properties": {"urgency": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["urgency"],
    "additionalProperties": False,
}


def call(*messages: Message, **changes: Any) -> ModelCall:
    return ModelCall("claude-test", messages or (Message("user", "Hello?"),), 50, "Hello?", **changes)


def marked(value: Any) -> list[Any]:
    """Every block with a cache breakpoint."""
    if isinstance(value, list):
        return [found for item in value for found in marked(item)]
    if not isinstance(value, dict):
        return []
    return ([value] if "cache_control" in value else []) + [found for item in value.values() for found in marked(item)]


def test_the_body_holds_what_is_required_and_nothing_that_was_not_set() -> None:
    assert request_body(call(Message("system", "Be brief."), Message("user", "Hello?"), seed=7, logprobs=True)) == {
        "model": "claude-test",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}],
        "stream": True,
    }
    assert "stream" not in request_body(call(), stream=False)


def test_what_is_configured_is_sent() -> None:
    body = request_body(call(temperature=0.0, top_p=0.9, stop=("END", "\n"), user_tag="u-1"))
    assert (body["temperature"], body["top_p"]) == (0.0, 0.9)
    assert body["stop_sequences"] == ["END"], "blank ones are refused by the server"
    assert body["metadata"] == {"user_id": "u-1"}


def test_tool_calls_and_their_results_become_blocks_of_alternating_turns() -> None:
    body = request_body(
        call(
            Message("user", "Where is 7?"),
            Message("assistant", "I will look.", (CALLED, CALLED.model_copy(update={"id": "call_2"}))),
            Message("tool", "On its way.", tool_call_id="call_1"),
            Message("tool", "", tool_call_id="call_2"),
            Message("user", "Thanks. And 8?"),
        )
    )
    use = {"type": "tool_use", "name": "lookup", "input": {"id": "7"}}
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Where is 7?"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "I will look."}, use | {"id": "call_1"}, use | {"id": "call_2"}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "On its way."},
                {"type": "tool_result", "tool_use_id": "call_2"},
                {"type": "text", "text": "Thanks. And 8?"},
            ],
        },
    ]


@pytest.mark.parametrize("arguments", ["", "{", "7", '["7"]', "[" * 100_000])
def test_arguments_that_are_no_object_are_still_shown_to_the_model(arguments: str) -> None:
    made = CALLED.model_copy(update={"arguments": arguments})
    body = request_body(call(Message("user", "Q"), Message("assistant", "", (made,))))
    assert body["messages"][1]["content"][0]["input"] == {"arguments": arguments}


def test_ids_that_another_provider_made_are_brought_into_the_alphabet_alike() -> None:
    made = CALLED.model_copy(update={"id": "functions.lookup:0"})
    body = request_body(
        call(Message("user", "Q"), Message("assistant", "", (made,)), Message("tool", "R", tool_call_id=made.id))
    )
    assert body["messages"][1]["content"][0]["id"] == "functions_lookup_0"
    assert body["messages"][2]["content"][0]["tool_use_id"] == "functions_lookup_0"


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", " \n", "text"]))))
def test_no_blank_block_and_no_empty_conversation_is_ever_sent(turns: list[tuple[Any, str]]) -> None:
    body = request_body(call(*(Message(role, text) for role, text in turns)))
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    assert blocks
    assert all(block["text"].strip() for block in blocks)
    roles = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in pairwise(roles))


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("lookup", None, {"type": "tool", "name": "lookup"}),
    ],
)
def test_tool_choice_is_translated(choice: str | None, parallel: bool | None, sent: Any) -> None:
    body = request_body(call(tools=(LOOKUP,), tool_choice=choice, parallel_tool_calls=parallel))
    assert body.get("tool_choice") == sent
    assert body["tools"] == [
        {"name": "lookup", "description": "Looks a thing up.", "input_schema": LOOKUP.parameters},
    ]


def test_a_tool_without_parameters_has_an_object_schema_and_strictness_is_kept() -> None:
    tool = ToolOffer(name="now", strict=True)
    assert request_body(call(tools=(tool,)))["tools"] == [
        {"name": "now", "input_schema": {"type": "object"}, "strict": True}
    ]


def test_a_schema_the_server_can_enforce_goes_into_output_config_without_what_it_would_refuse() -> None:
    body = request_body(call(output_schema=CLOSED))
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"urgency": {"type": "integer"}},
                "required": ["urgency"],
                "additionalProperties": False,
            },
        }
    }
    assert "system" not in body


def test_a_schema_the_server_cannot_enforce_is_asked_for_in_words_behind_the_instructions() -> None:
    body = request_body(call(Message("system", "Be brief."), Message("user", "Q"), output_schema={"type": "object"}))
    assert "output_config" not in body
    instructions, hint = body["system"]
    assert instructions["text"] == "Be brief."
    assert hint["text"].endswith('{"type": "object"}')


def test_cache_breakpoints_mark_the_end_of_tools_system_and_history_and_nothing_else() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "Earlier."),
        Message("assistant", "Yes."),
        Message("user", "Now?"),
    )
    body = request_body(call(*messages, tools=(LOOKUP, ToolOffer(name="now")), stable_messages=3))
    assert len(marked(body)) == 3
    for block in (body["tools"][1], body["system"][0], body["messages"][1]["content"][0]):
        assert block["cache_control"] == {"type": "ephemeral"}
    assert marked(request_body(call(*messages, tools=(LOOKUP,)))) == [], "nothing is written that is not read again"


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", "text"])), max_size=12),
    st.integers(0, 14),
    st.integers(0, 3),
    st.booleans(),
)
def test_there_are_never_more_than_four_breakpoints_and_none_behind_the_stable_part(
    turns: list[tuple[Any, str]], stable: int, tools: int, hinted: bool
) -> None:
    messages = [Message(role, f"{text}{number}" if text else "") for number, (role, text) in enumerate(turns)]
    body = request_body(
        call(
            *messages,
            tools=tuple(ToolOffer(name=f"t{number}") for number in range(tools)),
            stable_messages=stable,
            output_schema={"type": "object"} if hinted else None,
        )
    )
    found = marked(body)
    assert len(found) <= 4
    behind = {message.content for message in messages[stable:] if message.role != "system"}
    assert not behind & {block.get("text") for block in found}
