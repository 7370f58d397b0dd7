"""A call as it goes out: the agent's tools and transcript are in it, and in what it may cost at worst."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.contracts import (
    CatalogEntry,
    ContentRef,
    Conversation,
    GenerateInput,
    Limits,
    ToolCall,
    ToolOffer,
    Turn,
)
from holdfast.ledger import Ledger
from holdfast.preparation import CATALOG, TRANSCRIPT, ConnectedDeployment, Preparation
from holdfast.prices import Prices
from holdfast.providers import Extractive, ModelCall
from holdfast.tokens import TOKENIZER_MARGIN, count_tokens

TENANT = "acme"
DEPLOYMENT = ConnectedDeployment("sim", Extractive(), "openai", "m")
REFUND = CatalogEntry(
    offer=ToolOffer(name="refund", description="Give money back.", parameters={"type": "object"}),
    source="function",
    tool="refund",
    digest="0" * 16,
)
MADE = ToolCall(id="call_1", name="refund", arguments='{"order":"7"}')
TURNS = (
    Turn(role="assistant", tool_calls=(MADE,)),
    Turn(role="tool", content="Refunded. " * 100, tool_call_id="call_1"),
)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


async def prepared(ledger: Ledger, *, conversation: Conversation | None = None, **given: Any) -> ModelCall:
    async def put(text: str) -> ContentRef:
        return await ledger.contents.put(TENANT, text)

    asked = GenerateInput(
        request_id="req_12345678",
        tenant=TENANT,
        deployment="sim",
        turn=1,
        question=await put("Refund order 7."),
        instructions=await put("Be kind."),
        limits=Limits(),
        conversation=await put(conversation.model_dump_json()) if conversation else None,
        **given,
    )
    return await Preparation(ledger, Prices()).prepare(asked, DEPLOYMENT)


async def equipped(ledger: Ledger) -> dict[str, Any]:
    catalog = await ledger.contents.put(TENANT, CATALOG.dump_json((REFUND,)).decode())
    return {"catalog": catalog, "transcript": await ledger.contents.put(TENANT, TRANSCRIPT.dump_json(TURNS).decode())}


async def test_the_agents_tools_and_transcript_are_in_the_call(ledger: Ledger) -> None:
    call = await prepared(ledger, **await equipped(ledger))
    assert call.tools == (REFUND.offer,)
    assert [message.role for message in call.messages] == ["system", "user", "assistant", "tool"]
    assert call.messages[2].tool_calls == (MADE,)
    assert call.messages[3].tool_call_id == "call_1"
    assert (call.tool_choice, call.stable_messages) == (None, 1)


async def test_the_worst_case_counts_catalog_and_transcript(ledger: Ledger) -> None:
    preparation = Preparation(ledger, Prices())
    bare = preparation.hold(DEPLOYMENT, await prepared(ledger))
    whole = preparation.hold(DEPLOYMENT, await prepared(ledger, **await equipped(ledger)))
    added = count_tokens(TURNS[1].content) + count_tokens(REFUND.offer.model_dump_json()) + count_tokens(MADE.arguments)
    assert whole.input_tokens - bare.input_tokens >= added * TOKENIZER_MARGIN


async def test_a_final_call_admits_no_calls_and_says_so(ledger: Ledger) -> None:
    call = await prepared(ledger, final=True, **await equipped(ledger))
    assert call.tool_choice == "none"
    assert call.tools == (REFUND.offer,), "servers want the tools of earlier calls described"
    assert call.messages[-1].role == "user"
    assert "No further tools" in call.messages[-1].content


async def test_a_final_call_of_an_agent_without_tools_is_a_call_like_any_other(ledger: Ledger) -> None:
    assert await prepared(ledger, final=True) == await prepared(ledger)


async def test_the_agents_tools_stand_before_the_clients_and_its_transcript_after_the_clients(ledger: Ledger) -> None:
    theirs = ToolCall(id="c", name="lookup", arguments="{}")
    conversation = Conversation(
        continuation=(
            Turn(role="assistant", tool_calls=(theirs,)),
            Turn(role="tool", content="7", tool_call_id="c"),
        ),
        tools=(ToolOffer(name="lookup"), ToolOffer(name="refund", description="The client's.")),
    )
    call = await prepared(ledger, conversation=conversation, **await equipped(ledger))
    assert [(tool.name, tool.description) for tool in call.tools] == [("refund", "Give money back."), ("lookup", "")]
    assert [message.tool_call_id for message in call.messages if message.role == "tool"] == ["c", "call_1"]
