"""Batches of both APIs: what is sent, what comes back, and that each line is billed as its result says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from holdfast.contracts import FinishReason
from holdfast.errors import InvalidInput, Outcome, ProviderError
from holdfast.providers import (
    AnthropicBatches,
    BatchPhase,
    BatchProvider,
    BatchReply,
    BatchResult,
    BatchState,
    HttpStream,
    ModelCall,
    OpenAIBatches,
    anthropic_batch,
    openai_batch,
)
from simulator.server import Simulator
from tests.providers.wire import KEY, Handler, answers, model_call

Connect = Callable[[str, HttpStream], BatchProvider]


def openai(url: str, client: HttpStream) -> BatchProvider:
    return OpenAIBatches(f"{url}/v1", KEY, client)


def anthropic(url: str, client: HttpStream) -> BatchProvider:
    return AnthropicBatches(url, KEY, client)


BOTH = pytest.mark.parametrize("connect", [openai, anthropic])


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_batch_file_has_a_line_for_each_call_and_asks_for_no_stream() -> None:
    first, second = (
        json.loads(line)
        for line in openai_batch.batch_file([("att_1", model_call()), ("att_2", model_call(seed=7))], "max_tokens")
        .decode()
        .splitlines()
    )
    assert (first["custom_id"], first["method"], first["url"]) == ("att_1", "POST", "/v1/chat/completions")
    assert first["body"]["max_tokens"] == 64
    assert "stream" not in first["body"]
    assert second["body"]["seed"] == 7


def test_a_message_batch_has_params_for_each_call_and_asks_for_no_stream() -> None:
    (line,) = anthropic_batch.batch_body([("att_1", model_call())])["requests"]
    assert line["custom_id"] == "att_1"
    assert line["params"]["max_tokens"] == 64
    assert "stream" not in line["params"]


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("validating", BatchPhase.RUNNING),
        ("in_progress", BatchPhase.RUNNING),
        ("finalizing", BatchPhase.RUNNING),
        ("cancelling", BatchPhase.RUNNING),
        ("a_status_of_the_future", BatchPhase.RUNNING),
        ("completed", BatchPhase.ENDED),
        ("expired", BatchPhase.ENDED),
        ("cancelled", BatchPhase.ENDED),
        ("failed", BatchPhase.REFUSED),
    ],
)
def test_every_status_of_an_openai_batch_is_a_phase(status: str, phase: BatchPhase) -> None:
    state = openai_batch.read_state({"id": "b", "status": status, "request_counts": {"total": 5, "completed": 3}})
    assert (state.phase, state.total, state.succeeded) == (phase, 5, 3)
    assert state.failed == (2 if phase is BatchPhase.ENDED else 0)


@pytest.mark.parametrize(
    ("status", "phase"),
    [("in_progress", BatchPhase.RUNNING), ("canceling", BatchPhase.RUNNING), ("ended", BatchPhase.ENDED)],
)
def test_every_status_of_a_message_batch_is_a_phase(status: str, phase: BatchPhase) -> None:
    counts = {"processing": 1, "succeeded": 2, "errored": 3, "canceled": 4, "expired": 5}
    state = anthropic_batch.read_state({"id": "b", "processing_status": status, "request_counts": counts})
    assert state == BatchState("b", phase, total=15, succeeded=2, failed=12)


WHOLE = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "model": "m", "usage": None}


def answered(status: int, body: Any) -> dict[str, Any]:
    return {"custom_id": "att_1", "response": {"status_code": status, "body": body}, "error": None}


OPENAI_LINES: list[tuple[dict[str, Any], Outcome]] = [
    (answered(429, {"error": {"code": "insufficient_quota"}}), Outcome.BILLING),
    (answered(429, {"error": {"code": "rate_limit_exceeded"}}), Outcome.RATE_LIMITED),
    (answered(400, {"error": {"code": "context_length_exceeded"}}), Outcome.CONTEXT_LENGTH),
    (answered(500, None), Outcome.UNKNOWN),
    (answered(200, {"error": {"code": 502}}), Outcome.UNKNOWN),
    (answered(200, {"hello": 1}), Outcome.UNKNOWN),
    (answered(200, None), Outcome.UNKNOWN),
    (answered(200, {"choices": [{"message": {"content": "H"}, "finish_reason": "error"}]}), Outcome.BROKEN_STREAM),
    ({"custom_id": "att_1", "response": None, "error": {"code": "batch_expired"}}, Outcome.NOT_SENT),
    ({"custom_id": "att_1", "response": None, "error": {"code": "batch_cancelled"}}, Outcome.NOT_SENT),
    ({"custom_id": "att_1", "response": None, "error": {"code": "a_code_of_the_future"}}, Outcome.UNKNOWN),
    ({"custom_id": "att_1"}, Outcome.UNKNOWN),
]
ANTHROPIC_LINES: list[tuple[dict[str, Any], Outcome]] = [
    ({"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error"}}}, Outcome.OVERLOADED),
    ({"type": "errored", "error": {"type": "invalid_request_error"}}, Outcome.INVALID_REQUEST),
    ({"type": "errored", "error": {"type": "error", "error": {"type": "billing_error"}}}, Outcome.BILLING),
    ({"type": "errored"}, Outcome.UNKNOWN),
    ({"type": "expired"}, Outcome.NOT_SENT),
    ({"type": "canceled"}, Outcome.NOT_SENT),
    ({"type": "succeeded"}, Outcome.UNKNOWN),
    ({"type": "a_result_of_the_future"}, Outcome.UNKNOWN),
    ({}, Outcome.UNKNOWN),
]


@pytest.mark.parametrize(("line", "outcome"), OPENAI_LINES)
def test_every_line_of_an_openai_batch_that_is_no_reply_is_classified(line: Any, outcome: Outcome) -> None:
    result = openai_batch.read_result(line)
    assert result is not None
    assert result[0] == "att_1"
    assert isinstance(result[1], ProviderError)
    assert result[1].outcome is outcome


@pytest.mark.parametrize(("result", "outcome"), ANTHROPIC_LINES)
def test_every_line_of_a_message_batch_that_is_no_reply_is_classified(result: Any, outcome: Outcome) -> None:
    read = anthropic_batch.read_result({"custom_id": "att_1", "result": result})
    assert read is not None
    assert isinstance(read[1], ProviderError)
    assert read[1].outcome is outcome


def test_what_expired_may_be_sent_again_and_what_was_cancelled_may_not() -> None:
    for kind, again in (("expired", True), ("canceled", False)):
        read = anthropic_batch.read_result({"custom_id": "att_1", "result": {"type": kind}})
        assert read is not None
        assert isinstance(read[1], ProviderError)
        assert (read[1].retryable, read[1].outcome.billed) == (again, False)


def test_a_line_that_cannot_be_told_whose_it_is_is_skipped() -> None:
    assert openai_batch.read_result({"response": {}}) is None
    assert anthropic_batch.read_result({"result": {"type": "expired"}}) is None


@pytest.mark.parametrize(
    ("ids", "named"),
    [([], "1 to"), (["a", "a"], "same"), (["a b"], "letters"), (["x" * 65], "letters"), ([""], "letters")],
)
@BOTH
async def test_what_cannot_be_a_batch_is_not_sent(connect: Connect, ids: list[str], named: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing is sent")

    client = HttpStream(transport=httpx.MockTransport(handler))
    with pytest.raises(InvalidInput, match=named):
        await connect("http://h", client).submit([(custom_id, model_call()) for custom_id in ids])
    await client.aclose()


async def test_an_address_cannot_be_smuggled_in_as_an_id() -> None:
    client = HttpStream(transport=httpx.MockTransport(answers("{}")))
    for connect in (openai, anthropic):
        for wrong in ("../files", "a?b", "", "a/b"):
            with pytest.raises(InvalidInput):
                await connect("http://h", client).poll(wrong)
    await client.aclose()


# --- failures of the wire ---------------------------------------------------------------------------------------------


async def told(connect: Connect, handler: Handler) -> ProviderError:
    client = HttpStream(transport=httpx.MockTransport(handler))
    with pytest.raises(ProviderError) as caught:
        await connect("http://h", client).submit([("att_1", model_call())])
    await client.aclose()
    return caught.value


@BOTH
async def test_a_batch_that_is_not_accepted_says_why(connect: Connect) -> None:
    body = json.dumps({"error": {"type": "billing_error", "message": KEY}, "type": "error"})
    error = await told(connect, answers(body, status=429, content_type="application/json", retry_after="9"))
    assert error.outcome is Outcome.BILLING
    assert str(error).startswith("Batch 'to be ")
    assert KEY not in str(error)


async def test_a_batch_whose_acceptance_got_lost_may_have_been_made() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/files"):
            return httpx.Response(200, json={"id": "file-1"})
        raise httpx.ReadError("lost")

    assert (await told(openai, lost)).outcome is Outcome.UNKNOWN
    assert (await told(anthropic, lost)).outcome is Outcome.UNKNOWN
    assert (await told(anthropic, answers("[]", content_type="application/json"))).outcome is Outcome.UNKNOWN


async def test_an_upload_that_got_lost_costs_nothing() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/files")
        raise httpx.ReadError("lost")

    assert (await told(openai, lost)).outcome is Outcome.NOT_SENT


async def test_results_are_read_line_by_line_however_the_network_cuts_them() -> None:
    whole = b"".join(
        json.dumps({"custom_id": f"att_{number}", "result": {"type": "expired"}}).encode() + end
        for number, end in enumerate((b"\n", b"\r\n", b"\n\n", b""))
    )
    for size in (1, 7, 64, len(whole)):
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        client = HttpStream(transport=httpx.MockTransport(answers(*pieces, content_type="application/x-jsonl")))
        found = [custom_id async for custom_id, _ in anthropic("http://h", client).results("b")]
        assert found == ["att_0", "att_1", "att_2", "att_3"]
        await client.aclose()


# --- against the simulator --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def running_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    return running_simulator


async def finished(provider: BatchProvider, batch_id: str) -> BatchState:
    async with asyncio.timeout(60):
        while True:
            state = await provider.poll(batch_id)
            if state.phase is not BatchPhase.RUNNING:
                return state
            await asyncio.sleep(0.02)  # there is nothing to wait on but the answer to the next question


async def collected(provider: BatchProvider, batch_id: str) -> dict[str, BatchResult]:
    pairs = [pair async for pair in provider.results(batch_id)]
    assert len({custom_id for custom_id, _ in pairs}) == len(pairs)
    return dict(pairs)


def lines(count: int, **changes: Any) -> list[tuple[str, ModelCall]]:
    return [(f"att_{number}", model_call(**changes)) for number in range(count)]


@BOTH
async def test_a_batch_is_answered_line_by_line_and_billed_as_its_results_say(
    simulator: Simulator, connect: Connect
) -> None:
    simulator.script({"batch_ms": 50}, {"kind": "rate_limited"}, {"kind": "truncated"}, {"kind": "error_500"})
    client = HttpStream()
    provider = connect(simulator.url, client)
    batch_id = await provider.submit(lines(6))
    state = await finished(provider, batch_id)
    assert (state.id, state.phase, state.total) == (batch_id, BatchPhase.ENDED, 6)
    results = await collected(provider, batch_id)
    await client.aclose()
    assert set(results) == {f"att_{number}" for number in range(6)}
    replies = {custom_id: result for custom_id, result in results.items() if isinstance(result, BatchReply)}
    assert len(replies) == state.succeeded == 4
    assert state.failed == 2
    failures = [result for result in results.values() if isinstance(result, ProviderError)]
    # Anthropic's results name no status, so nothing tells a `rate_limit_error` apart from one that came alive.
    assert {failure.outcome for failure in failures} == {Outcome.RATE_LIMITED, Outcome.UNKNOWN}
    assert {reply.completed.finish_reason for reply in replies.values()} == {FinishReason.STOP, FinishReason.LENGTH}
    billed = {entry["client_request_id"]: entry for entry in simulator.bill()["entries"] if entry["batch"]}
    for custom_id, reply in replies.items():
        usage = reply.completed.usage
        assert usage is not None
        assert reply.text
        assert usage.output_tokens == billed[custom_id]["output_tokens"]
    for custom_id in set(billed) - set(replies):
        failure = results[custom_id]
        assert isinstance(failure, ProviderError)
        assert failure.outcome.billed is not False


@BOTH
async def test_a_cancelled_batch_keeps_what_was_answered_and_bills_nothing_else(
    simulator: Simulator, connect: Connect
) -> None:
    simulator.script(*({"batch_ms": 60_000} for _ in range(3)))
    client = HttpStream()
    provider = connect(simulator.url, client)
    batch_id = await provider.submit(lines(3))
    await provider.cancel(batch_id)
    state = await finished(provider, batch_id)
    assert (state.phase, state.succeeded, state.failed) == (BatchPhase.ENDED, 0, 3)
    for result in (await collected(provider, batch_id)).values():
        assert isinstance(result, ProviderError)
        assert result.outcome.billed is False
    assert simulator.bill()["entries"] == []
    await provider.cancel(batch_id)
    await client.aclose()


@BOTH
async def test_a_batch_that_nobody_knows_is_an_error_naming_it(simulator: Simulator, connect: Connect) -> None:
    client = HttpStream()
    provider = connect(simulator.url, client)
    with pytest.raises(ProviderError, match="Batch 'b_1'"):
        await provider.poll("b_1")
    with pytest.raises(ProviderError, match="Batch 'b_1'"):
        await anext(provider.results("b_1"))
    with pytest.raises(ProviderError, match="Batch 'b_1'"):
        await provider.cancel("b_1")
    await client.aclose()
