"""Whatever a model, a document, a tool or a colleague writes is text on a page, never part of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect

from holdfast.contracts import (
    DecisionKind,
    DecisionReceipt,
    Event,
    EventKind,
    Passage,
    Progress,
    Status,
    StreamEvent,
    Usage,
)
from holdfast.contracts.plan import EscalationStage
from holdfast.contracts.tools import Delegated, ToolLine
from holdfast.errors import DecisionRefused
from tests.pages.browsers import Window
from tests.pages.staged import Stage

PAYLOADS = (
    '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1"><svg onload="window.pwned = 1">',
    "\"'></textarea></title></style></pre></q></code><script>window.pwned = 1</script>",
    "</script><iframe srcdoc=\"<script>parent.pwned = 1</script>\"></iframe><base href='//evil.example/'>",
    "\" autofocus onfocus=window.pwned=1 x=\" ' onmouseover='window.pwned=1' <a href=javascript:window.pwned=1>x</a>",
    "{{ 7 * 7 }}{% raw %}{{ cycler.__init__.__globals__ }}<form action=//evil.example><button autofocus>",
    "<style>*{display:none}</style><link rel=stylesheet href=//evil.example/x><meta http-equiv=refresh content=0>",
)

FOREIGN = """() => ({
  pwned: window.pwned ?? null,
  handlers: document.querySelectorAll("[onerror],[onload],[onfocus],[onmouseover],[srcdoc],[style]").length,
  made: document.querySelectorAll("iframe,object,embed,base,style,form[action^='//'],a[href^='javascript']").length,
  scripts: [...document.scripts].filter((script) => !script.src.startsWith(location.origin + "/static/")).length,
  images: [...document.images].filter((image) => !image.src.startsWith(location.origin + "/static/")).length,
})"""
CLEAN = {"pwned": None, "handlers": 0, "made": 0, "scripts": 0, "images": 0}


async def ask_with(stage: Stage, payload: str, kind: str) -> str:
    """A question that holds the payload wherever it can."""
    sha = "a" * 64
    passage = Passage(source=payload, start=0, end=5, text=payload, score=0.1)
    content = payload + " [1]"
    if kind == "tool":
        content = json.dumps({"tool": payload, "arguments": {payload: payload, "n": {payload: [payload]}}})
    elif kind == "json":
        content = json.dumps({payload: [payload, {payload: payload}]})
    return await stage.ask(
        content,
        agent=payload,
        user=payload,
        kind="tool" if kind == "tool" else "output",
        subject=payload[:64],
        why=payload,
        asked=payload,
        draft=content.replace("window", "document"),
        passages=[passage, passage],
        approvers=("ann", payload),
        rule={
            "quorum": 2,
            "escalation": (EscalationStage(approvers=(payload,), within=timedelta(hours=1)),),
        },
        votes=({"actor": payload, "content_sha256": sha, "at": datetime.now(UTC), "reason": payload},),
    )


@pytest.mark.parametrize("kind", ["text", "json", "tool"])
@pytest.mark.parametrize("payload", PAYLOADS)
async def test_hostile_text_in_a_question_is_only_text(stage: Stage, shown: Window, payload: str, kind: str) -> None:
    request_id = await ask_with(stage, payload, kind)
    await shown.sign_in("ann")
    await expect(shown.page.locator("article")).to_have_attribute("data-id", request_id)
    assert await shown.page.evaluate(FOREIGN) == CLEAN
    for details in await shown.page.locator("details:not([open]) > summary").all():
        if await details.is_visible():
            await details.click()
    await shown.page.keyboard.press("x")
    await shown.page.keyboard.press("Escape")
    await shown.page.keyboard.press("e")
    await shown.page.locator("#payload").press_sequentially("x")
    assert await shown.page.evaluate(FOREIGN) == CLEAN
    assert payload.split(">")[0] in await shown.page.inner_text("main")


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_hostile_text_in_a_run_is_only_text(stage: Stage, shown: Window, payload: str) -> None:
    request_id = await ask_with(stage, payload, "tool")
    waiting = stage.engine.executions[request_id]
    stage.engine.put(replace(waiting, status=Status.RUNNING, approval=None, session=payload))
    now, text = datetime.now(UTC), await stage.text(payload)
    stage.engine.sheets[request_id] = Progress(
        request_id=request_id,
        status=Status.RUNNING,
        step="generate",
        spent=Usage(),
        attempts=1,
        asked=text,
        events=tuple(
            Event(sequence=n, kind=kind, name=payload, summary=payload, at=now) for n, kind in enumerate(EventKind, 1)
        ),
        tools=(
            ToolLine(key="1.0", name=payload, state="done", arguments=text, result=text, summary=payload),
            ToolLine(
                key="1.1",
                name=payload,
                state="done",
                delegate=payload,
                arguments=await stage.text(json.dumps({payload: payload})),
            ),
        ),
        delegates=(Delegated(request_id=payload, agent="a", key="1.0", status=payload),),
        decisions=(
            DecisionReceipt(
                request_id=request_id,
                decision=DecisionKind.APPROVE,
                actor=payload,
                content_sha256="a" * 64,
                decided_at=now,
                reason=payload,
            ),
        ),
        tainted=(payload,),
    )
    await shown.sign_in("ann", f"/requests/{request_id}")
    await stage.relay.publish(StreamEvent(request_id=request_id, attempt=1, offset=0, kind="began"))
    await stage.relay.publish(StreamEvent(request_id=request_id, attempt=1, offset=0, kind="text", text=payload))
    await expect(shown.page.locator("#text")).to_have_text(payload)
    for details in await shown.page.locator("details > summary").all():
        await details.click()
    assert await shown.page.evaluate(FOREIGN) == CLEAN


async def test_a_hostile_refusal_is_only_text(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    stage.engine.refusal = DecisionRefused(PAYLOADS[0], code="not_open")
    shown.allowed = ("409",)
    await shown.sign_in("ann")
    await shown.page.keyboard.press("a")
    await shown.page.keyboard.press("Enter")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("<script>")
    assert await shown.page.evaluate(FOREIGN) == CLEAN


async def test_a_script_that_got_into_a_page_would_not_run(stage: Stage, shown: Window) -> None:
    shown.allowed = ("Content Security Policy",)
    await shown.sign_in("ann")
    await shown.page.evaluate(
        """() => { const script = document.createElement("script"); script.textContent = "window.pwned = 1";
                   document.body.append(script); }"""
    )
    assert await shown.page.evaluate("window.pwned ?? null") is None
    assert any("Content Security Policy" in fault for fault in shown.faults)
