"""What servers of the chat-completions shape are sent, and answer, differently."""

import json
from typing import Any, get_args

import httpx
import pytest

from holdfast.contracts import ToolCall, ToolOffer
from holdfast.errors import Outcome, ProviderError
from holdfast.providers import (
    FLAVOURS,
    Completed,
    FlavourName,
    HttpStream,
    Message,
    ModelCall,
    ModelEvent,
    OpenAICompatible,
    TextDelta,
)
from holdfast.tokens import count_message_tokens
from tests.providers.wire import Handler, answers, data, exchange, joined, model_call

MADE = (ToolCall(id="a", name="lookup", arguments="{}"), ToolCall(id="b", name="lookup", arguments="{}"))
EVERYTHING = model_call(
    messages=(Message("user", "Q"), Message("assistant", "", MADE)),
    tools=(ToolOffer(name="lookup", strict=True),),
    tool_choice="required",
    parallel_tool_calls=False,
    cache_key="c",
    user_tag="u",
    tenant_tag="t",
)
REPLY = data({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}) + data("[DONE]")


async def ask(flavour: FlavourName, handler: Handler, call: ModelCall = EVERYTHING) -> list[ModelEvent]:
    def connect(client: HttpStream) -> OpenAICompatible:
        return OpenAICompatible("http://h/v1", "k", client, flavour=flavour)

    return await exchange(connect, handler, call)


async def sent(flavour: FlavourName, call: ModelCall = EVERYTHING) -> dict[str, Any]:
    """The body that reaches the server."""
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return answers(REPLY)(request)

    await ask(flavour, handler, call)
    return bodies[0]


async def failed(flavour: FlavourName, handler: Handler, call: ModelCall = EVERYTHING) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(flavour, handler, call)
    return caught.value


def test_every_flavour_has_its_row() -> None:
    assert set(FLAVOURS) == set(get_args(FlavourName))


@pytest.mark.parametrize(
    ("flavour", "understood"),
    [
        ("openai", {"tool_choice", "parallel_tool_calls", "prompt_cache_key", "safety_identifier"}),
        ("gemini", {"tool_choice"}),
        ("openrouter", {"tool_choice", "parallel_tool_calls", "user"}),
        ("ollama", set()),
        ("vllm", {"tool_choice", "parallel_tool_calls", "cache_salt"}),
        ("compatible", {"tool_choice", "parallel_tool_calls"}),
    ],
)
async def test_a_server_is_sent_only_what_it_understands(flavour: FlavourName, understood: set[str]) -> None:
    body = await sent(flavour)
    common = {"model", "messages", "max_completion_tokens", "stream", "stream_options", "tools"}
    assert set(body) == common | understood


async def test_vllm_keeps_tenants_prompt_caches_apart_and_counts_on_every_chunk() -> None:
    body = await sent("vllm")
    assert body["cache_salt"] == "t"
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_gemini_gets_a_stand_in_for_the_signature_of_a_turns_first_call() -> None:
    first, second = (await sent("gemini"))["messages"][1]["tool_calls"]
    assert first["extra_content"]["google"]["thought_signature"]
    assert "extra_content" not in second
    assert "strict" not in (await sent("gemini"))["tools"][0]["function"]


async def test_gemini_errors_in_an_array_are_read() -> None:
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDay"}]}
    body = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "words", "details": [quota]}}]
    told = await failed("gemini", answers(json.dumps(body), status=429, content_type="application/json"))
    assert (told.outcome, told.status) == (Outcome.BILLING, 429)


async def test_openrouters_comments_are_no_events() -> None:
    comments = ": OPENROUTER PROCESSING\n\n" * 3
    assert joined(await ask("openrouter", answers(comments + REPLY))) == "Hi"


@pytest.mark.parametrize("in_choice", [False, True])
async def test_openrouters_error_in_a_200_chunk_is_classified_by_what_came_before(in_choice: bool) -> None:
    error = {"code": 502, "message": "words", "metadata": {"provider_name": "Somebody"}}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    failing = (
        data({"id": "gen-1", "choices": [{**choice, "error": error}]})
        if in_choice
        else data({"id": "gen-1", "error": error, "choices": [choice]})
    )
    assert (await failed("openrouter", answers(failing))).outcome is Outcome.UNKNOWN
    begun = data({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    assert (await failed("openrouter", answers(begun + failing))).outcome is Outcome.BROKEN_STREAM


async def test_openrouters_error_in_a_whole_200_answer_is_classified() -> None:
    body = {"error": {"code": 429, "message": "words", "metadata": {"raw": "{}", "provider_name": "Somebody"}}}
    told = await failed("openrouter", answers(json.dumps(body), content_type="application/json"))
    assert told.outcome is Outcome.RATE_LIMITED


async def test_ollama_is_offered_no_tool_that_must_not_be_called() -> None:
    assert "tools" in await sent("ollama")
    assert "tools" not in await sent("ollama", model_call(tools=EVERYTHING.tools, tool_choice="none"))
    assert "tools" in await sent("openai", model_call(tools=EVERYTHING.tools, tool_choice="none"))


async def test_a_required_tool_that_ollama_did_not_call_is_no_failure() -> None:
    text, completed = await ask("ollama", answers(REPLY))
    assert text == TextDelta("Hi")
    assert isinstance(completed, Completed)
    assert completed.tool_calls == ()


async def test_ollama_is_never_sent_a_prompt_that_it_would_cut_off_in_silence() -> None:
    question = "How far is the moon? " * 50
    call = model_call(messages=(Message("user", question),), max_output_tokens=1_000)
    tokens = count_message_tokens([question, ""])
    for window, expected in ((None, 1_000), (tokens + 10_000, 1_000), (tokens + 7, 7)):
        body = await sent("ollama", ModelCall(**(vars(call) | {"context_window": window})))
        assert body["max_completion_tokens"] == expected
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers(REPLY)(request)

    told = await failed("ollama", handler, ModelCall(**(vars(call) | {"context_window": tokens})))
    assert (told.outcome, requests) == (Outcome.CONTEXT_LENGTH, [])
    await ask("openai", handler, ModelCall(**(vars(call) | {"context_window": tokens})))
    assert len(requests) == 1, "a server that says so itself is asked"
