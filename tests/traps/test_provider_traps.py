"""The traps of the best gateways that lie in the wire formats, each as a test that it does not catch us."""

import json
from typing import Any

import pytest

from holdfast.contracts import Usage
from holdfast.errors import Outcome, ProviderError
from holdfast.providers import Anthropic, Completed, HttpStream, OpenAICompatible, Provider
from tests.providers.wire import answers, data, exchange, failure, model_call


def anthropic(client: HttpStream) -> Provider:
    return Anthropic("http://h/v1", "key", client)


def openai(client: HttpStream) -> Provider:
    return OpenAICompatible("http://h/v1", "key", client)


STARTED = data({"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}})
TEXT = data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a long reply"}})
OVERLOADED = data({"type": "error", "error": {"type": "overloaded_error", "message": "words"}})
STOPPED = data({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 900}})


async def test_trap_9_an_error_event_after_200_is_no_reply() -> None:
    """Trap 9: Anthropic sends `error` after HTTP 200. Before any text it is what it says, and nothing was billed;
    after text the reply is broken, and what came of it is billed. It never passes for an empty or a short reply."""
    before: ProviderError = await failure(anthropic, answers(STARTED + OVERLOADED), model_call())
    assert (before.outcome, before.outcome.billed) == (Outcome.OVERLOADED, False)
    after: ProviderError = await failure(anthropic, answers(STARTED + TEXT + OVERLOADED), model_call())
    assert (after.outcome, after.outcome.billed) == (Outcome.BROKEN_STREAM, True)


@pytest.mark.parametrize(
    ("raw", "counted"),
    [
        (STARTED + TEXT + STOPPED, 900),
        (STARTED + TEXT + data({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), None),
        (STARTED + TEXT + data({"type": "message_stop"}), None),
    ],
)
async def test_trap_9_the_placeholder_count_is_never_taken_for_a_count(raw: str, counted: int | None) -> None:
    """Trap 9: the stream opens with `output_tokens: 1`. Without a final count the reply is uncounted, so that the worst
    case stays held, instead of having cost one token."""
    completed = (await exchange(anthropic, answers(raw), model_call()))[-1]
    assert isinstance(completed, Completed)
    assert (completed.usage and completed.usage.output_tokens) == counted


async def test_trap_9_a_broken_stream_has_no_usage_to_settle_with() -> None:
    """Trap 9: a stream that breaks after the placeholder ends in an error, which carries no count at all."""
    for raw in (STARTED, STARTED + TEXT):
        broken = await failure(anthropic, answers(raw), model_call())
        assert broken.outcome is Outcome.BROKEN_STREAM
        assert not hasattr(broken, "usage")


async def test_trap_10_the_same_prompt_counts_the_same_at_both_providers() -> None:
    """Trap 10: OpenAI counts cached and cache-written tokens inside `prompt_tokens`, Anthropic outside `input_tokens`.
    A prompt of 1,000 tokens, 600 read and 300 written, is 100 + 600 + 300 from either, and priced once."""
    openai_usage: dict[str, Any] = {
        "prompt_tokens": 1000,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
    }
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": openai_usage}
    anthropic_usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 300,
        "output_tokens": 7,
    }
    message = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": anthropic_usage}
    whole = answers(json.dumps(message), content_type="application/json")
    for connect, handler in ((openai, answers(data(chunk))), (anthropic, whole)):
        completed = (await exchange(connect, handler, model_call()))[-1]
        assert isinstance(completed, Completed)
        assert completed.usage == Usage(
            input_tokens=100, cache_read_tokens=600, cache_write_tokens=300, output_tokens=7, cost_usd=None
        )
        assert completed.usage.total_tokens == 1007
