"""What stands between a request and its model on the real engine: fallbacks by cause, escalation, budgets, intents."""

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest

from holdfast.contracts import AtLimit
from holdfast.errors import Outcome
from holdfast.spending import Period, ScopeKind
from tests.house import House

Script = Callable[..., None]


def models_called(house: House) -> list[str]:
    """The models that were called, in order."""
    return [call["model"] for call in house.simulator.calls()]


async def test_a_request_is_answered_through_the_messages_api(house: House) -> None:
    reply = await house.ask("anthropic", "What holds fast?")
    assert reply["status"] == "completed"
    assert models_called(house) == ["sim-claude"]
    (entry,) = house.simulator.bill()["entries"]
    assert reply["usage"]["output_tokens"] == entry["completion_tokens"]


async def test_a_prompt_too_long_for_the_provider_goes_to_the_context_window_list(house: House, script: Script) -> None:
    script({"kind": "context_length", "model": "sim-large"})
    reply = await house.ask("careful", "A long question.")
    assert reply["status"] == "completed"
    assert models_called(house) == ["sim-large", "sim-long"]


@pytest.mark.parametrize("kind", ["refusal", "content_filter"])
async def test_a_refusal_goes_to_the_content_policy_list(house: House, script: Script, kind: str) -> None:
    script({"kind": kind, "model": "sim-large"})
    reply = await house.ask("careful", f"A question that draws a {kind}.")
    assert reply["status"] == "completed", reply
    assert models_called(house) == ["sim-large", "sim-claude"]
    assert reply["attempts"] == 2


async def test_an_unsure_reply_is_asked_again_of_a_better_deployment(house: House, script: Script) -> None:
    script({"kind": "ok", "confidence": 0.4, "content": "Perhaps.", "model": "sim-large"})
    reply = await house.ask("unsure", "Are you sure?")
    assert models_called(house) == ["sim-large", "sim-long"]
    assert reply["answer"]["text"] != "Perhaps."
    assert reply["deployment"] == "long"


async def test_an_unsure_reply_is_better_than_none(house: House, script: Script) -> None:
    script(
        {"kind": "ok", "confidence": 0.4, "content": "Perhaps.", "model": "sim-large"},
        {"kind": "unauthorized", "model": "sim-long"},
    )
    reply = await house.ask("unsure", "Are you sure this time?")
    assert reply["status"] == "completed"
    assert reply["answer"]["text"] == "Perhaps."
    assert reply["deployment"] == "sim"


async def test_a_reply_that_says_it_is_unsure_is_asked_again(house: House, script: Script) -> None:
    script(
        {"kind": "ok", "content": '{"answer": "maybe", "confidence": 0.2}', "model": "sim-large"},
        {"kind": "ok", "content": '{"answer": "yes", "confidence": 0.9}', "model": "sim-spare"},
    )
    reply = await house.ask("sureof", "Is it?")
    assert "yes" in reply["answer"]["text"]
    assert reply["attempts"] == 2


async def test_a_question_with_a_handler_calls_no_model(house: House) -> None:
    reply = await house.ask("helpdesk", "please reset my password")
    assert reply["status"] == "completed"
    assert "https://example.org/reset" in reply["answer"]["text"]
    assert reply["deployment"] == "password-reset"
    assert house.simulator.bill()["requests"] == 0
    assert Decimal(reply["usage"]["cost_usd"]) == 0


async def test_a_question_the_handler_is_not_for_goes_to_the_model(house: House) -> None:
    reply = await house.ask("helpdesk", "What is the capital of Peru?")
    assert reply["deployment"] == "sim"


async def test_a_used_up_budget_denies_with_its_name_and_remedy(house: House) -> None:
    budgets = house.services.ledger.budgets
    await budgets.set("local", ScopeKind.USER, "poor", Period.DAY, tokens=10, at_limit=AtLimit.BLOCK)
    reply = await house.http.post(
        "/v1/requests", params={"wait": 30}, json={"agent": "plain", "input": "Hi"}, headers={"X-Holdfast-User": "poor"}
    )
    document = await house.show(reply.json()["id"])
    assert document["status"] == "denied"
    assert "poor" in document["reason"]
    assert "holdfast budget" in document["reason"]
    assert house.simulator.bill()["requests"] == 0


async def test_a_budget_that_degrades_sends_the_request_to_a_cheaper_deployment(house: House) -> None:
    budgets = house.services.ledger.budgets
    # One call of `sim` at worst: about 20 tokens in and 1024 out at 0.50 and 1.50 USD a million.
    await budgets.set(
        "local", ScopeKind.USER, "thrifty", Period.DAY, cost_usd=Decimal("0.0000001"), at_limit=AtLimit.DEGRADE
    )
    reply = await house.http.post(
        "/v1/requests",
        params={"wait": 30},
        json={"agent": "frugal", "input": "Hi"},
        headers={"X-Holdfast-User": "thrifty"},
    )
    document = await house.show(reply.json()["id"])
    assert document["status"] == "completed", document
    assert document["deployment"] == "extractive"


async def test_a_person_may_let_a_request_go_past_a_budget(house: House) -> None:
    budgets = house.services.ledger.budgets
    await budgets.set("local", ScopeKind.USER, "asker", Period.DAY, tokens=10, at_limit=AtLimit.ASK)
    reply = await house.http.post(
        "/v1/requests",
        params={"wait": 30},
        json={"agent": "asking", "input": "Hi"},
        headers={"X-Holdfast-User": "asker"},
    )
    waiting = await house.show(reply.json()["id"])
    assert waiting["status"] == "waiting", waiting
    edited = await house.decide(waiting["id"], "edit", by="boss", payload="Ask less.")
    assert edited.json()["code"] == "no_edit"
    decided = await house.decide(waiting["id"], "approve", by="boss")
    assert decided.status_code == 200, decided.text
    done = await house.show(waiting["id"])
    assert done["status"] == "completed"
    assert house.simulator.bill()["requests"] == 1


async def test_a_person_may_hold_a_request_to_its_budget(house: House) -> None:
    budgets = house.services.ledger.budgets
    await budgets.set("local", ScopeKind.USER, "asker2", Period.DAY, tokens=10, at_limit=AtLimit.ASK)
    reply = await house.http.post(
        "/v1/requests",
        params={"wait": 30},
        json={"agent": "asking", "input": "Hi"},
        headers={"X-Holdfast-User": "asker2"},
    )
    waiting = await house.show(reply.json()["id"])
    await house.decide(waiting["id"], "reject", by="boss", reason="not today")
    done = await house.show(waiting["id"])
    assert done["status"] == "denied"
    assert "boss" in done["reason"]
    assert house.simulator.bill()["requests"] == 0


async def test_calls_beyond_the_concurrency_wait_and_none_is_lost(house: House, script: Script) -> None:
    script({"kind": "ok", "first_token_ms": 150, "model": "sim-narrow", "times": 12})
    replies = await asyncio.gather(*(house.ask("throttled", f"Question {number}") for number in range(12)))
    assert {reply["status"] for reply in replies} == {"completed"}
    assert house.simulator.bill()["requests"] == 12
    assert {reply["attempts"] for reply in replies} == {1}, "a wait is no attempt"


@pytest.mark.parametrize("kind", ["overloaded_503", "html_200", "disconnect_mid_stream", "rate_limited"])
async def test_a_failing_primary_hands_over_and_the_books_cover_the_bill(
    house: House, script: Script, kind: str
) -> None:
    script({"kind": kind, "model": "sim-large", "times": 6, "retry_after": 30})
    reply = await house.ask("fallback", f"Who answers after {kind}?")
    assert reply["status"] == "completed"
    assert models_called(house)[-1] == "sim-spare"
    attempts = await house.services.ledger.attempts.list(reply["id"])
    billed = {entry["client_request_id"]: entry for entry in house.simulator.bill()["entries"]}
    for attempt in attempts:
        entry = billed.get(attempt.attempt_id)
        if entry is not None:
            assert attempt.usage.total_tokens >= entry["prompt_tokens"] + entry["completion_tokens"]
    assert attempts[-1].outcome is Outcome.OK
