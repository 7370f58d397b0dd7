"""The chat-completions shape: what is sent, and how chunks fold into a reply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contracts import FinishReason, Usage
from holdfast.providers import Message, ModelCall
from holdfast.providers.chat import MalformedChunk, Reply, read_usage, request_body

CALL = ModelCall(
    model="gpt-test",
    messages=(Message("system", "Be brief."), Message("user", "Hello?")),
    max_output_tokens=50,
    question="Hello?",
)


def chunk(text: str | None = None, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish_reason}]}


def test_the_body_asks_for_a_stream_with_usage_and_nothing_that_was_not_set() -> None:
    assert request_body(CALL, "max_completion_tokens") == {
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
    reply = Reply("gpt-test")
    head = {"id": "chatcmpl-1", "model": "gpt-test-2026", "usage": None}
    texts = [
        reply.add({**head, **chunk("", role="assistant")}),
        reply.add({**head, **chunk("Hel")}),
        reply.add({**head, **chunk("lo")}),
        reply.add({**head, **chunk(finish_reason="stop")}),
        reply.add({**head, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
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
    reply = Reply("m")
    reply.add(chunk("text", finish_reason=said))
    assert reply.finished
    assert not reply.failed
    assert reply.completed().finish_reason is meant


def test_refusal_words_are_text_and_the_finish_reason_says_refusal() -> None:
    reply = Reply("m")
    text = reply.add(chunk(refusal="I cannot ")) + reply.add(chunk(refusal="help.", finish_reason="stop"))
    assert text == "I cannot help."
    assert reply.completed().finish_reason is FinishReason.REFUSAL


def test_only_the_first_choice_counts() -> None:
    reply = Reply("m")
    other = {"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}
    assert reply.add({"choices": [other, *chunk("first")["choices"]]}) == "first"
    assert not reply.finished


def test_reasoning_counts_as_the_first_token_but_is_not_shown() -> None:
    reply = Reply("m")
    assert reply.add(chunk("", role="assistant")) == ""
    assert not reply.tokens_begun
    assert reply.add(chunk(reasoning_content="Let me think")) == ""
    assert reply.tokens_begun


def test_text_parts_of_a_list_are_joined() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert Reply("m").add({"choices": [{"delta": {"content": parts}}]}) == "ab"


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 20))
def test_text_can_always_be_written_as_utf8_wherever_it_is_cut(text: str, cut: int) -> None:
    reply = Reply("m")
    units = text.encode("utf-16-le", "surrogatepass")
    pieces = [units[: 2 * cut], units[2 * cut :]]  # cuts between UTF-16 units, as JSON escapes can
    joined = "".join(reply.add(chunk(piece.decode("utf-16-le", "surrogatepass"))) for piece in pieces)
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
    reply = Reply("m")
    for tokens in (1, 2, 3):
        reply.add({**chunk("x"), "usage": {"prompt_tokens": 5, "completion_tokens": tokens}})
    assert reply.completed().usage == Usage(input_tokens=5, output_tokens=3, cost_usd=None)


@pytest.mark.parametrize(
    "wrong", [None, "text", 7, [], {}, {"choices": {}}, {"choices": [7]}, {"choices": [{"delta": [1]}]}]
)
def test_another_shape_is_refused(wrong: Any) -> None:
    with pytest.raises(MalformedChunk):
        Reply("m").add(wrong)
