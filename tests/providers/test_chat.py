"""The chat-completions shape: what is sent, and how chunks fold into a reply."""

import math
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from holdfast.contracts import FinishReason, ToolCall, ToolOffer, Usage
from holdfast.providers import Completed, Message, ModelCall, TextDelta, ToolCallDelta
from holdfast.providers.chat import ChatReply, read_usage
from holdfast.providers.chat_request import request_body
from holdfast.providers.pieces import MalformedChunk

CALL = ModelCall(
    model="gpt-test",
    messages=(Message("system", "Be brief."), Message("user", "Hello?")),
    max_output_tokens=50,
    question="Hello?",
)


def chunk(text: str | None = None, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish_reason}]}


def said(reply: ChatReply, value: Any) -> str:
    """The text that a chunk adds."""
    return "".join(event.text for event in reply.add(value) if isinstance(event, TextDelta))


def test_the_body_asks_for_a_stream_with_usage_and_nothing_that_was_not_set() -> None:
    assert request_body(CALL) == {
        "model": "gpt-test",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_completion_tokens": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_temperature_seed_and_the_older_limit_field_are_sent_when_asked_for() -> None:
    call = ModelCall("m", (), 7, "q", temperature=0.0, seed=0)
    body = request_body(call, "max_tokens")
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.0, 0, 7)
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize(
    ("title", "name"),
    [(None, "reply"), ("Support ticket (v2)", "Support_ticket_v2"), ("x" * 100, "x" * 64), ("票", "reply")],
)
def test_an_output_schema_becomes_a_strict_response_format_with_a_lawful_name(title: str | None, name: str) -> None:
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False} | ({"title": title} if title else {})
    call = ModelCall("m", (), 7, "q", output_schema=schema)
    assert request_body(call, "max_tokens")["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    ("changes", "strict"),
    [
        ({}, True),
        ({"additionalProperties": True}, False),
        ({"required": []}, False),
        ({"properties": {"a": {"type": "object"}}}, False),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "object"}]}}}, False),
    ],
)
def test_a_schema_that_strict_mode_would_refuse_is_sent_as_a_hint(changes: dict[str, Any], strict: bool) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    body = request_body(ModelCall("m", (), 7, "q", output_schema=schema | changes), "max_tokens")
    assert body["response_format"]["json_schema"]["strict"] is strict


def test_chunks_fold_into_text_and_one_completed() -> None:
    reply = ChatReply("gpt-test")
    head = {"id": "chatcmpl-1", "model": "gpt-test-2026", "usage": None}
    texts = [
        said(reply, {**head, **chunk("", role="assistant")}),
        said(reply, {**head, **chunk("Hel")}),
        said(reply, {**head, **chunk("lo")}),
        said(reply, {**head, **chunk(finish_reason="stop")}),
        said(reply, {**head, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
    ]
    assert texts == ["", "Hel", "lo", "", ""]
    completed = reply.completed()
    assert completed.finish_reason is FinishReason.STOP
    assert (completed.model, completed.response_id) == ("gpt-test-2026", "chatcmpl-1")
    assert completed.usage == Usage(input_tokens=9, output_tokens=2, cost_usd=None)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("end_of_text", FinishReason.STOP),
    ],
)
def test_finish_reasons_are_mapped(said: str, meant: FinishReason) -> None:
    reply = ChatReply("m")
    reply.add(chunk("text", finish_reason=said))
    assert reply.finished
    assert not reply.failed
    assert reply.completed().finish_reason is meant


def test_refusal_words_are_text_and_the_finish_reason_says_refusal() -> None:
    reply = ChatReply("m")
    text = said(reply, chunk(refusal="I cannot ")) + said(reply, chunk(refusal="help.", finish_reason="stop"))
    assert text == "I cannot help."
    assert reply.completed().finish_reason is FinishReason.REFUSAL


def test_only_the_first_choice_counts() -> None:
    reply = ChatReply("m")
    other = {"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}
    assert said(reply, {"choices": [other, *chunk("first")["choices"]]}) == "first"
    assert not reply.finished


def test_reasoning_counts_as_the_first_token_but_is_not_shown() -> None:
    reply = ChatReply("m")
    assert reply.add(chunk("", role="assistant")) == []
    assert not reply.tokens_begun
    assert reply.add(chunk(reasoning_content="Let me think")) == []
    assert reply.tokens_begun


def test_text_parts_of_a_list_are_joined() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(ChatReply("m"), {"choices": [{"delta": {"content": parts}}]}) == "ab"


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 20))
def test_text_can_always_be_written_as_utf8_wherever_it_is_cut(text: str, cut: int) -> None:
    reply = ChatReply("m")
    units = text.encode("utf-16-le", "surrogatepass")
    pieces = [units[: 2 * cut], units[2 * cut :]]  # cuts between UTF-16 units, as JSON escapes can
    joined = "".join(said(reply, chunk(piece.decode("utf-16-le", "surrogatepass"))) for piece in pieces)
    whole = units.decode("utf-16-le", "replace")
    assert joined == whole or (joined == whole[:-1] and whole[-1] == "\ufffd")
    joined.encode()


@pytest.mark.parametrize(
    ("usage", "classes"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 7}, (100, 0, 0, 7)),
        ({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": None}, (100, 0, 0, 7)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            },
            (10, 60, 30, 7),
        ),
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 128}}, (0, 128, 0, 0)),
        ({"prompt_tokens": 100}, (100, 0, 0, 0)),
        (None, None),
        ({}, None),
        ({"prompt_tokens": "many", "completion_tokens": 7}, None),
        ({"prompt_tokens": -1, "completion_tokens": 7}, None),
        ({"prompt_tokens": 1, "completion_tokens": True}, None),
    ],
)
def test_usage_is_split_into_disjoint_classes(usage: Any, classes: tuple[int, int, int, int] | None) -> None:
    read = read_usage(usage)
    if classes is None:
        assert read is None
    else:
        assert read is not None
        assert (
            read.input_tokens,
            read.cache_read_tokens,
            read.cache_write_tokens,
            read.output_tokens,
        ) == classes
        assert read.cost_usd is None


def test_a_running_total_on_every_chunk_is_not_added_up() -> None:
    reply = ChatReply("m")
    for tokens in (1, 2, 3):
        reply.add({**chunk("x"), "usage": {"prompt_tokens": 5, "completion_tokens": tokens}})
    assert reply.completed().usage == Usage(input_tokens=5, output_tokens=3, cost_usd=None)


@pytest.mark.parametrize(
    "wrong", [None, "text", 7, [], {}, {"choices": {}}, {"choices": [7]}, {"choices": [{"delta": [1]}]}]
)
def test_another_shape_is_refused(wrong: Any) -> None:
    with pytest.raises(MalformedChunk):
        ChatReply("m").add(wrong)


# --- tools, confidence and what else a call can ask for ---------------------------------------------------------------

LOOKUP = ToolOffer(name="lookup", description="Looks up.", parameters={"type": "object"}, strict=True)
CALLED = ToolCall(id="call_1", name="lookup", arguments="{}")


def test_tools_turns_and_options_are_sent_in_openais_shape() -> None:
    body = request_body(
        ModelCall(
            "m",
            (
                Message("user", "Q"),
                Message("assistant", "", (CALLED,)),
                Message("tool", "R", tool_call_id="call_1"),
            ),
            7,
            "Q",
            tools=(LOOKUP, ToolOffer(name="now")),
            tool_choice="lookup",
            parallel_tool_calls=False,
            stop=("END",),
            top_p=0.5,
            logprobs=True,
            cache_key="agent-7",
            user_tag="u-1",
            tenant_tag="t-1",
        )
    )
    made = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "content": "R", "tool_call_id": "call_1"},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "lookup",
                "description": "Looks up.",
                "parameters": {"type": "object"},
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "lookup"}}
    assert body["parallel_tool_calls"] is False
    assert (body["stop"], body["top_p"], body["logprobs"]) == (["END"], 0.5, True)
    assert (body["prompt_cache_key"], body["safety_identifier"]) == ("agent-7", "u-1")
    assert "cache_salt" not in body
    assert set(body) <= set(get_type_hints(CompletionCreateParamsStreaming)), "fields that the official client knows"


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_the_modes_of_tool_choice_are_sent_as_words(choice: str) -> None:
    body = request_body(ModelCall("m", (), 7, "Q", tools=(LOOKUP,), tool_choice=choice))
    assert body["tool_choice"] == choice
    assert "tool_choice" not in request_body(ModelCall("m", (), 7, "Q", tool_choice=choice)), "there is no tool"


def test_a_batched_call_does_not_ask_for_a_stream() -> None:
    body = request_body(CALL, stream=False)
    assert "stream" not in body
    assert "stream_options" not in body


def part(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"function": function} | ({} if index is None else {"index": index}) | ({"id": call_id} if call_id else {})


def folded(*parts: list[dict[str, Any]]) -> tuple[list[Any], Completed]:
    reply = ChatReply("m")
    events = [event for some in parts for event in reply.add(chunk(tool_calls=some))]
    reply.add(chunk(finish_reason="tool_calls"))
    return events, reply.completed()


def test_tool_calls_are_put_together_by_index_however_their_pieces_are_mixed() -> None:
    events, completed = folded(
        [part(0, "call_a", "lookup")],
        [part(0, arguments='{"id"'), part(1, "call_b", "now", "{")],
        [part(1, arguments="}"), part(0, arguments=": 7}")],
    )
    assert events == [
        ToolCallDelta(0, "call_a", "lookup", ""),
        ToolCallDelta(0, "", "", '{"id"'),
        ToolCallDelta(1, "call_b", "now", "{"),
        ToolCallDelta(1, "", "", "}"),
        ToolCallDelta(0, "", "", ": 7}"),
    ]
    assert completed.finish_reason is FinishReason.TOOL_CALLS
    assert completed.tool_calls == (
        ToolCall(id="call_a", name="lookup", arguments='{"id": 7}'),
        ToolCall(id="call_b", name="now", arguments="{}"),
    )


@pytest.mark.parametrize("numbers", [(0, 0), (None, None)])
def test_whole_calls_that_share_an_index_or_have_none_are_kept_apart_by_their_ids(numbers: Any) -> None:
    first, second = numbers
    _, completed = folded([part(first, "a", "lookup", '{"id": 1}')], [part(second, "b", "lookup", '{"id": 2}')])
    assert [made.arguments for made in completed.tool_calls] == ['{"id": 1}', '{"id": 2}']


def test_a_piece_with_neither_index_nor_id_belongs_to_the_latest_call() -> None:
    _, completed = folded([part(0, "a", "lookup", "{")], [part(1, "b", "now", "{")], [part(None, arguments="}")])
    assert [made.arguments for made in completed.tool_calls] == ["{", "{}"]


def test_an_id_that_is_repeated_on_every_piece_begins_no_new_call() -> None:
    _, completed = folded([part(0, "a", "lookup", "{")], [part(0, "a", None, "}")])
    assert completed.tool_calls == (ToolCall(id="a", name="lookup", arguments="{}"),)


def test_a_call_without_id_or_with_a_made_up_name_can_still_travel() -> None:
    _, completed = folded([part(0, None, "functions.lookup: now", "")])
    assert completed.tool_calls == (ToolCall(id="call_0", name="functions_lookup__now", arguments="{}"),)


def test_more_calls_or_longer_arguments_than_any_reply_has_are_refused() -> None:
    reply = ChatReply("m")
    with pytest.raises(MalformedChunk):
        reply.add(chunk(tool_calls=[part(number, f"id{number}", "n") for number in range(129)]))
    with pytest.raises(MalformedChunk):
        ChatReply("m").add(chunk(tool_calls=[part(0, "a", "n", "x" * 1_000_001)]))


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)), max_size=20))
def test_the_pieces_of_a_call_add_up_to_the_call(pieces: list[tuple[int, str]]) -> None:
    events, completed = folded(*([part(number, f"id{number}", "n", text)] for number, text in pieces))
    for position, made in enumerate(completed.tool_calls):
        joined = "".join(event.arguments for event in events if event.index == position)
        assert made.arguments == (joined.strip() or "{}")
    assert len(completed.tool_calls) == len({number for number, _ in pieces})


def test_a_whole_message_has_whole_calls() -> None:
    reply = ChatReply("m")
    calls = [part(None, "a", "lookup", "{}"), part(None, "b", "lookup", "{}")]
    reply.add({"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "stop"}]})
    assert [made.id for made in reply.completed().tool_calls] == ["a", "b"]
    assert reply.completed().finish_reason is FinishReason.TOOL_CALLS
    anonymous = ChatReply("m")
    anonymous.add({"choices": [{"message": {"tool_calls": [part(None, None, "lookup"), part(None, None, "now")]}}]})
    assert [made.name for made in anonymous.completed().tool_calls] == ["lookup", "now"]


def test_confidence_is_the_geometric_mean_of_the_tokens_probabilities() -> None:
    def sure(*probabilities: float) -> float | None:
        reply = ChatReply("m")
        for probability in probabilities:
            logprobs = {"content": [{"token": "x", "logprob": math.log(probability)}]}
            reply.add({"choices": [{"delta": {"content": "x"}, "logprobs": logprobs}]})
        return reply.completed().confidence

    assert sure() is None
    assert sure(0.25) == pytest.approx(0.25)
    assert sure(0.5, 0.125) == pytest.approx(0.25)
    assert sure(1.0, 1.0) == 1.0


@pytest.mark.parametrize("logprob", [None, "0", True, float("nan"), [1]])
def test_a_probability_that_is_none_is_not_counted(logprob: Any) -> None:
    reply = ChatReply("m")
    reply.add({"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"logprob": logprob}, 7]}}]})
    assert reply.completed().confidence is None


@given(st.floats(allow_nan=False))
def test_confidence_is_always_a_probability(logprob: float) -> None:
    reply = ChatReply("m")
    reply.add({"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"logprob": logprob}]}}]})
    confidence = reply.completed().confidence
    assert confidence is not None
    assert 0 <= confidence <= 1


def test_reasoning_that_only_the_total_shows_is_output_too() -> None:
    usage = read_usage({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115})
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (10, 105)
    inside = {"prompt_tokens": 10, "completion_tokens": 105, "total_tokens": 115}
    assert read_usage(inside | {"completion_tokens_details": {"reasoning_tokens": 100}}) == usage
