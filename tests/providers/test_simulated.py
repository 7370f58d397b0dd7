"""Both adapters against the simulator: every way a call can end, and that its outcome and the bill agree."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from holdfast.contracts import FinishReason, ToolOffer
from holdfast.errors import Outcome, ProviderError
from holdfast.providers import (
    Anthropic,
    Completed,
    HttpStream,
    Message,
    ModelCall,
    ModelEvent,
    OpenAICompatible,
    Provider,
    Timeouts,
)
from simulator.behaviour import Kind
from simulator.server import Simulator
from tests.providers.wire import joined, model_call

Connect = Callable[[str, HttpStream], Provider]


def openai(url: str, client: HttpStream) -> Provider:
    return OpenAICompatible(f"{url}/v1", "key", client)


def anthropic(url: str, client: HttpStream) -> Provider:
    return Anthropic(url, "key", client)


BOTH = pytest.mark.parametrize("connect", [openai, anthropic])


@pytest.fixture(scope="module")
async def running_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    return running_simulator


async def ask(simulator: Simulator, connect: Connect, call: ModelCall) -> list[ModelEvent]:
    client = HttpStream()
    try:
        return [event async for event in connect(simulator.url, client).complete(call)]
    finally:
        await client.aclose()


def ended(events: list[ModelEvent]) -> Completed:
    completed = events[-1]
    assert isinstance(completed, Completed)
    return completed


FINISHED = {
    Kind.OK: FinishReason.STOP,
    Kind.TRUNCATED: FinishReason.LENGTH,
    Kind.CONTEXT_WINDOW_EXCEEDED: FinishReason.LENGTH,
    Kind.REFUSAL: FinishReason.REFUSAL,
    Kind.TOOL_CALLS: FinishReason.TOOL_CALLS,
}
FAILED = {
    Kind.RATE_LIMITED: Outcome.RATE_LIMITED,
    Kind.SLOW_DOWN: Outcome.RATE_LIMITED,
    Kind.INSUFFICIENT_QUOTA: Outcome.BILLING,
    Kind.BILLING_402: Outcome.BILLING,
    Kind.BILLING_400: Outcome.BILLING,
    Kind.UNAUTHORIZED: Outcome.AUTHENTICATION,
    Kind.FORBIDDEN: Outcome.AUTHENTICATION,
    Kind.MODEL_NOT_FOUND: Outcome.INVALID_REQUEST,
    Kind.REQUEST_TOO_LARGE: Outcome.INVALID_REQUEST,
    Kind.CONFLICT_409: Outcome.OVERLOADED,
    Kind.CONTEXT_LENGTH: Outcome.CONTEXT_LENGTH,
    Kind.OVERLOADED_503: Outcome.OVERLOADED,
    Kind.OVERLOADED_529: Outcome.OVERLOADED,
    Kind.ERROR_500: Outcome.UNKNOWN,
    Kind.ERROR_502: Outcome.UNKNOWN,
    Kind.ERROR_504: Outcome.UNKNOWN,
    Kind.ERROR_MID_STREAM: Outcome.BROKEN_STREAM,
    Kind.HANG: Outcome.UNKNOWN,
    Kind.DISCONNECT_BEFORE_RESPONSE: Outcome.UNKNOWN,
    Kind.HANG_MID_STREAM: Outcome.BROKEN_STREAM,
    Kind.DISCONNECT_MID_STREAM: Outcome.BROKEN_STREAM,
    Kind.MALFORMED_JSON: Outcome.BROKEN_STREAM,
    Kind.HTML_200: Outcome.UNKNOWN,
}
HANGS = {
    # By the first a request has arrived.
    Kind.HANG: Timeouts(first_token=timedelta(seconds=1)),
    Kind.HANG_MID_STREAM: Timeouts(between_tokens=timedelta(milliseconds=150)),
}
TOOL = ToolOffer(name="lookup", parameters={"type": "object", "properties": {"id": {"type": "string"}}})


@BOTH
@pytest.mark.parametrize(("kind", "finish"), FINISHED.items())
async def test_every_ending_of_a_reply_is_understood_and_counted_as_billed(
    simulator: Simulator, connect: Connect, kind: Kind, finish: FinishReason
) -> None:
    simulator.script({"kind": kind.value})
    completed = ended(await ask(simulator, connect, model_call(tools=(TOOL,))))
    assert completed.finish_reason is finish
    assert completed.usage is not None
    (entry,) = simulator.bill()["entries"]
    assert entry["client_request_id"] == "att_1"
    counted = completed.usage
    assert (counted.total_tokens - counted.output_tokens, counted.output_tokens) == (
        entry["prompt_tokens"],
        entry["output_tokens"],
    )


@BOTH
@pytest.mark.parametrize(("kind", "outcome"), FAILED.items())
@pytest.mark.parametrize("billed", [False, True])
async def test_every_failure_has_its_outcome_and_none_that_was_billed_passes_for_free(
    simulator: Simulator, connect: Connect, kind: Kind, outcome: Outcome, billed: bool
) -> None:
    simulator.script({"kind": kind.value, "bill_on_error": billed and not kind.is_refusal})
    bounds = HANGS.get(kind, Timeouts())
    with pytest.raises(ProviderError) as caught:
        await ask(simulator, connect, model_call(timeouts=bounds))
    assert caught.value.outcome is outcome
    if simulator.bill()["entries"]:
        assert outcome.billed is not False


def test_no_kind_of_ending_is_left_out() -> None:
    others = {
        Kind.POLICY_400,
        Kind.CONTENT_FILTER,
        Kind.NO_USAGE,
        Kind.SCHEMA_VIOLATING_JSON,
        Kind.REPAIRABLE_JSON,
        Kind.CONFIDENTLY_WRONG,
    }
    assert set(Kind) - set(FINISHED) - set(FAILED) == others, "the last three differ in what the reply says only"


async def test_a_filter_is_told_from_a_wrong_request(simulator: Simulator) -> None:
    simulator.script({"kind": "policy_400"})
    with pytest.raises(ProviderError) as caught:
        await ask(simulator, openai, model_call())
    assert caught.value.outcome is Outcome.CONTENT_FILTER
    for connect, finish in ((openai, FinishReason.CONTENT_FILTER), (anthropic, FinishReason.REFUSAL)):
        simulator.script({"kind": "content_filter"})
        assert ended(await ask(simulator, connect, model_call())).finish_reason is finish


@BOTH
async def test_a_reply_without_counts_is_uncounted(simulator: Simulator, connect: Connect) -> None:
    simulator.script({"kind": "no_usage"})
    assert ended(await ask(simulator, connect, model_call())).usage is None


@BOTH
@pytest.mark.parametrize("billing", ["credit_balance_exhausted", "contract_spend_limit_reached"])
async def test_a_billing_429_is_never_tried_again_whatever_its_headers_say(
    simulator: Simulator, connect: Connect, billing: str
) -> None:
    simulator.script({"kind": "rate_limited", "error_code": billing, "should_retry": True, "retry_after": 1})
    with pytest.raises(ProviderError) as caught:
        await ask(simulator, connect, model_call())
    assert caught.value.outcome is Outcome.BILLING
    assert not caught.value.retryable


@BOTH
async def test_the_wait_and_the_wish_of_the_provider_are_carried(simulator: Simulator, connect: Connect) -> None:
    simulator.script(
        {"kind": "rate_limited", "retry_after": 7, "should_retry": False},
        {"kind": "rate_limited", "retry_after": 46, "error_format": "gemini_array"},
    )
    for wait, wish in ((7, False), (46, None)):
        with pytest.raises(ProviderError) as caught:
            await ask(simulator, connect, model_call())
        assert caught.value.outcome is Outcome.RATE_LIMITED
        assert caught.value.retry_after == timedelta(seconds=wait)
        assert caught.value.should_retry is wish


@BOTH
async def test_a_tool_is_called_and_its_result_sent_back(simulator: Simulator, connect: Connect) -> None:
    wanted = {"name": "lookup", "arguments": {"id": "7 🌍"}}
    simulator.script({"kind": "tool_calls", "content": "One moment.", "tool_calls": [wanted, wanted]})
    question = Message("user", "Where is 7?")
    call = model_call(messages=(question,), tools=(TOOL,), tool_choice="required", parallel_tool_calls=True)
    events = await ask(simulator, connect, call)
    made = ended(events).tool_calls
    assert joined(events) == "One moment."
    assert [(one.name, one.arguments.replace(" ", "")) for one in made] == [("lookup", '{"id":"7🌍"}')] * 2
    assert made[0].id != made[1].id
    results = [Message("tool", "On its way.", tool_call_id=one.id) for one in made]
    again = model_call(messages=(question, Message("assistant", "One moment.", made), *results), tools=(TOOL,))
    assert ended(await ask(simulator, connect, again)).finish_reason is FinishReason.STOP


@BOTH
async def test_a_schema_is_asked_for_and_obeyed(simulator: Simulator, connect: Connect) -> None:
    schema = {
        "title": "Ticket",
        "type": "object",
        "properties": {"urgency": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["urgency"],
        "additionalProperties": False,
    }
    events = await ask(simulator, connect, model_call(output_schema=schema))
    assert "urgency" in joined(events)


@BOTH
async def test_a_stable_prefix_is_read_from_the_cache_and_counted_apart(simulator: Simulator, connect: Connect) -> None:
    call = model_call(
        messages=(Message("system", "Be brief and exact. " * 600), Message("user", "How far is the moon?")),
        stable_messages=1,
        cache_key="agent-7",
    )
    first, second = [ended(await ask(simulator, connect, call)).usage for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first.cache_read_tokens == 0
    assert second.cache_read_tokens > 1_000
    for usage, entry in zip((first, second), simulator.bill()["entries"], strict=True):
        assert usage.total_tokens - usage.output_tokens == entry["prompt_tokens"]


async def test_confidence_is_what_the_tokens_say(simulator: Simulator) -> None:
    simulator.script({"confidence": 0.8})
    completed = ended(await ask(simulator, openai, model_call(logprobs=True)))
    assert completed.confidence == pytest.approx(0.8)
    assert ended(await ask(simulator, openai, model_call())).confidence is None
