"""The span of a model call, as the GenAI semantic conventions have it."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from holdfast.contracts import FinishReason, ToolCall, Usage
from holdfast.errors import Outcome, ProviderError
from holdfast.providers import Completed, ModelCall
from holdfast.providers.protocol import Message
from holdfast.telemetry import ModelSpan, names_of, provider_name
from tests.telemetry.conftest import Spans

QUESTION = "What is zanzibarite?"
REPLY = "Gneiss and gold."
CALL = ModelCall(
    model="sim-large",
    messages=(Message("system", "Answer the question."), Message("user", QUESTION)),
    max_output_tokens=64,
    question=QUESTION,
    temperature=0.5,
    seed=7,
    attempt_id="att_1",
)
USAGE = Usage(input_tokens=10, cache_read_tokens=3, cache_write_tokens=2, output_tokens=5)
COMPLETED = Completed(FinishReason.STOP, "sim-large-2026", "resp_1", USAGE)


def answered(spans: Spans, *, generation: str = "v1.41", capture: bool = False, cost: Decimal | None = None) -> None:
    """Trace one call that succeeds."""
    span = ModelSpan(generation=generation, capture_content=capture, provider=spans.provider)
    with span.around(CALL, provider="openai", request_id="req_1", deployment="primary") as live:
        live.delta()
        live.delta()
        live.ended(REPLY, COMPLETED, USAGE.model_copy(update={"cost_usd": cost}))


@pytest.mark.parametrize(
    ("generation", "cache_write"),
    [("v1.41", "gen_ai.usage.cache_creation.input_tokens"), ("next", "gen_ai.usage.cache_write.input_tokens")],
)
def test_a_model_call_has_the_attributes_of_the_conventions(spans: Spans, generation: str, cache_write: str) -> None:
    answered(spans, generation=generation, cost=Decimal("0.0012"))
    span = spans.only()
    assert (span.name, span.kind) == ("chat sim-large", SpanKind.CLIENT)
    attributes = dict(span.attributes or {})
    first_chunk = attributes.pop("gen_ai.response.time_to_first_chunk")
    assert isinstance(first_chunk, float)
    assert first_chunk >= 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "sim-large",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "text",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": "sim-large-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 15,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        cache_write: 2,
        "openinference.span.kind": "LLM",
        "holdfast.request.id": "req_1",
        "holdfast.attempt.id": "att_1",
        "holdfast.deployment": "primary",
        "holdfast.tool_calls": 0,
        "holdfast.cost_usd": 0.0012,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_call_without_a_price_has_no_cost(spans: Spans) -> None:
    answered(spans, cost=None)
    assert "holdfast.cost_usd" not in (spans.only().attributes or {})


def test_text_is_on_a_span_only_when_the_operator_wants_it(spans: Spans) -> None:
    answered(spans)
    assert QUESTION not in spans.text()
    assert REPLY not in spans.text()
    spans.exporter.clear()
    answered(spans, capture=True)
    attributes = spans.only().attributes or {}
    asked = json.loads(str(attributes["gen_ai.input.messages"]))
    assert asked[1] == {"role": "user", "parts": [{"type": "text", "content": QUESTION}]}
    said = json.loads(str(attributes["gen_ai.output.messages"]))
    assert said == [
        {"role": "assistant", "parts": [{"type": "text", "content": REPLY}], "finish_reason": "stop"},
    ]


def test_tool_calls_are_counted_and_shown_only_when_the_operator_wants_it(spans: Spans) -> None:
    asked = ToolCall(id="call_1", name="lookup", arguments='{"rock": "zanzibarite"}')
    call = replace(
        CALL,
        messages=(
            *CALL.messages,
            Message("assistant", "", (asked,)),
            Message("tool", "It is a rock.", tool_call_id="call_1"),
        ),
        top_p=0.9,
        stop=("zanzibarite",),
    )
    completed = Completed(FinishReason.TOOL_CALLS, "sim-large-2026", tool_calls=(asked, asked))
    for capture in (False, True):
        with ModelSpan(capture_content=capture, provider=spans.provider).around(
            call, provider="anthropic", request_id="req_1"
        ) as live:
            live.delta()
            live.ended("Let me look.", completed, None)
    hidden, shown = (dict(span.attributes or {}) for span in spans.finished())
    assert hidden["holdfast.tool_calls"] == 2
    assert hidden["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert hidden["gen_ai.request.top_p"] == 0.9
    assert not [text for text in map(str, hidden.values()) if "zanzibarite" in text or "lookup" in text]
    assert not [name for name in hidden if name.startswith("gen_ai.usage.")], "nobody reported any"
    part = {"type": "tool_call", "id": "call_1", "name": "lookup", "arguments": asked.arguments}
    assert json.loads(str(shown["gen_ai.input.messages"]))[2:] == [
        {"role": "assistant", "parts": [part]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "It is a rock."}]},
    ]
    (said,) = json.loads(str(shown["gen_ai.output.messages"]))
    assert said["parts"] == [{"type": "text", "content": "Let me look."}, part, part]
    assert shown["gen_ai.request.stop_sequences"] == ("zanzibarite",)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("gemini", "gcp.gemini"),
        ("google", "gcp.gemini"),
        ("mistral", "mistral_ai"),
        ("vllm", "vllm"),
    ],
)
def test_a_provider_has_the_name_that_the_conventions_give_it(spans: Spans, provider: str, name: str) -> None:
    with ModelSpan(provider=spans.provider).around(CALL, provider=provider, request_id="req_1"):
        pass
    assert (spans.only().attributes or {})["gen_ai.provider.name"] == name == provider_name(provider)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (ProviderError(f"broke at {QUESTION}", outcome=Outcome.BROKEN_STREAM), "broken_stream"),
        (ProviderError("slow down", outcome=Outcome.RATE_LIMITED), "rate_limited"),
        (asyncio.CancelledError(), "CancelledError"),
        (ValueError(f"cannot read {QUESTION}"), "ValueError"),
    ],
)
@pytest.mark.parametrize("capture", [False, True])
def test_a_failed_call_has_an_error_type_and_no_message(
    spans: Spans, failure: BaseException, kind: str, capture: bool
) -> None:
    span = ModelSpan(capture_content=capture, provider=spans.provider)
    with pytest.raises(type(failure)), span.around(CALL, provider="openai", request_id="req_1"):
        raise failure
    ended = spans.only()
    assert (ended.attributes or {})["error.type"] == kind
    assert ended.status.status_code is StatusCode.ERROR
    assert ended.status.description == kind
    assert not ended.events, "an exception event would hold the message"


def test_without_a_provider_a_span_costs_nothing_and_breaks_nothing() -> None:
    with ModelSpan(capture_content=True).around(CALL, provider="openai", request_id="req_1") as live:
        live.delta()
        live.ended(REPLY, COMPLETED, USAGE)


def test_there_are_two_generations_of_names() -> None:
    assert names_of("v1.41") != names_of("next")
    with pytest.raises(KeyError):
        names_of("v1.0")
