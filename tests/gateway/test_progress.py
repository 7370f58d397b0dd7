"""What clients read of tools, delegates and decisions: names, counts and states, none of the texts."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from holdfast.configuration import Configuration
from holdfast.contracts import (
    Answer,
    ContentRef,
    DecisionKind,
    DecisionReceipt,
    EventKind,
    LimitReached,
    Progress,
    Status,
    Usage,
)
from holdfast.contracts.tools import Delegated, ToolLine
from holdfast.ledger import Ledger
from tests.gateway.recorded import Edge
from tests.gateway.streams import Line, on_the_line

TEXT = ContentRef(sha256="e" * 64, size=9)


@pytest.fixture
async def line(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Line]:
    async with on_the_line(configuration, ledger) as line:
        yield line


async def test_progress_tells_tools_delegates_and_decisions_without_their_texts(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = (await edge.ask({"agent": "writer", "input": "Why?"})).json()["id"]
    usage = Usage(input_tokens=3, output_tokens=4, cost_usd=Decimal("0.01"))
    delegate = "req_" + "1" * 26
    taken = DecisionReceipt(
        request_id=request_id,
        decision=DecisionKind.APPROVE,
        actor="bob",
        content_sha256="a" * 64,
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
        kind="tool",
        reason="fine",
    )
    sheet = Progress(
        request_id=request_id,
        status=Status.RUNNING,
        step="generate",
        spent=usage,
        attempts=2,
        events=(),
        iterations=2,
        tool_calls=1,
        tools=(ToolLine(key="1.0", name="refund", state="done", arguments=TEXT, result=TEXT, summary="41 tokens"),),
        delegates=(Delegated(request_id=delegate, agent="sql", key="1.1", usage=usage),),
        decisions=(taken,),
        tainted=("web",),
    )

    async def progress(of: str) -> Progress:
        return sheet

    monkeypatch.setattr(edge.engine, "progress", progress)
    reply = await edge.http.get(f"/v1/requests/{request_id}?progress=true")
    told = reply.json()["progress"]
    assert told["tools"] == [{"key": "1.0", "name": "refund", "state": "done", "summary": "41 tokens", "delegate": ""}]
    assert told["delegates"][0]["links"]["request"] == f"/v1/requests/{delegate}"
    assert told["delegates"][0]["usage"]["cost_usd"] == "0.01"
    assert (told["decisions"][0]["actor"], told["decisions"][0]["kind"]) == ("bob", "tool")
    assert (told["iterations"], told["tool_calls"], told["tainted"]) == (2, 1, ["web"])
    assert TEXT.sha256 not in reply.text
    assert reply.json()["asked"] is None
    asked = await edge.ledger.contents.put("local", "Why, <EMAIL_1>?")
    sheet = sheet.model_copy(update={"asked": asked})
    assert (await edge.http.get(f"/v1/requests/{request_id}?progress=true")).json()["asked"] == "Why, <EMAIL_1>?"
    assert "asked" not in (await edge.http.get(f"/v1/requests/{request_id}")).json()


async def test_an_answer_tells_which_limit_ended_it_and_who_helped(edge: Edge) -> None:
    request_id = (await edge.ask({"agent": "writer", "input": "Why?"})).json()["id"]
    answer = Answer(
        request_id=request_id,
        status=Status.DENIED,
        reason="Too many calls.",
        tool_calls=9,
        delegates=("req_" + "1" * 26,),
        limit=LimitReached(limit="tool_calls", value="9", bound="8"),
        tainted=("web",),
    )
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.DENIED, answer=answer))
    shown = (await edge.http.get(f"/v1/requests/{request_id}")).json()
    assert shown["limit"] == {"limit": "tool_calls", "value": "9", "bound": "8"}
    assert (shown["tool_calls"], shown["delegates"], shown["tainted"]) == (9, ["req_" + "1" * 26], ["web"])


async def test_calls_of_tools_are_events_of_their_own(line: Line) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    async with line.following(request_id) as events:
        for kind in (
            EventKind.TOOL_STARTED,
            EventKind.TOOL_FAILED,
            EventKind.APPROVAL_ESCALATED,
            EventKind.STEP_FAILED,
        ):
            run.tell(kind, "refund")
        kinds = [(await anext(events)).kind for _ in range(4)]
    assert kinds == ["tool", "tool", "approval", "step"]
