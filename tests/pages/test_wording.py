"""How our own sentences read on the pages: code, names of roles, counts, money, and what is for programs left out."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.async_api import Browser, expect

from gateway.pages.payload import spans
from gateway.pages.rendering import people
from gateway.pages.run_sheet import timeline
from holdfast.contracts import Event, EventKind
from holdfast.contracts.tools import ToolLine
from tests.pages.browsers import Window, window
from tests.pages.scenes import a_team_at_work
from tests.pages.staged import Stage, staged
from tests.pages.test_hostile import CLEAN, FOREIGN, PAYLOADS

WHY = "`args.amount > 20.0` holds"


@given(st.text(st.sampled_from("ab `\n<>&")))
def test_only_pairs_of_backticks_are_left_out_of_a_sentence(sentence: str) -> None:
    cut = spans(sentence)
    assert "".join(f"`{span.text}`" if span.code else span.text for span in cut) == sentence
    assert not any("`" in span.text for span in cut if span.code)


async def test_code_in_a_reason_is_code_and_a_backtick_of_a_model_is_a_backtick(stage: Stage, shown: Window) -> None:
    content = json.dumps({"tool": "refund", "arguments": {"note": "run `rm` now"}})
    await stage.ask(content, kind="tool", subject="refund", why=WHY, asked="What is `x`?")
    await shown.sign_in("ann")
    why = shown.page.locator(".why")
    await expect(why).to_contain_text("args.amount > 20.0 holds")
    await expect(why.locator("code")).to_have_text("args.amount > 20.0")
    await expect(shown.page.locator(".arguments td")).to_have_text("run `rm` now")
    await expect(shown.page.locator("article .muted")).to_have_text("What is `x`?")


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_hostile_text_between_backticks_is_only_text(stage: Stage, shown: Window, payload: str) -> None:
    hostile = f"`{payload}` and `"
    await stage.ask("Pay.", why=hostile, rule={"why": hostile})
    await shown.sign_in("ann")
    await expect(shown.page.locator(".why code").first).to_have_text(payload)
    assert await shown.page.evaluate(FOREIGN) == CLEAN


@pytest.mark.parametrize(
    ("approvers", "told"),
    [
        (("role:finance", "ann"), "Role finance, ann"),
        (("ann", "role:finance"), "ann, role finance"),
        (("*",), "Anyone"),
    ],
)
def test_a_sentence_begins_with_a_capital_but_a_name_stays_as_it_is(approvers: tuple[str, ...], told: str) -> None:
    assert people(approvers, first=True) == told


@pytest.mark.parametrize(
    ("kind", "summary", "told"),
    [
        (EventKind.STEP_FINISHED, "1 tools, catalog 0123456789ab", "1 tool"),
        (EventKind.STEP_FINISHED, "1 calls asked for: refund", "1 call asked for: refund"),
        (EventKind.STEP_FINISHED, "1 results, 41 tokens of them in all", "1 result, 41 tokens of them in all"),
        (EventKind.STEP_FINISHED, "11 calls, 0.1 calls", "11 calls, 0.1 calls"),
        (EventKind.TOOL_STARTED, "1.0", ""),
        (EventKind.TOOL_FINISHED, "12.3: returned 41 tokens", "returned 41 tokens"),
        (EventKind.DECISION_ACCEPTED, "approve by ann, content 4f30fd5a924b", "approve by ann"),
        (
            EventKind.APPROVAL_OPENED,
            "waiting for *, role:finance until 2026-03-01 16:20 UTC, content 4f30fd5a924b",
            "waiting for anyone, role finance until 2026-03-01 16:20 UTC",
        ),
        (EventKind.FINISHED, "1 model call, 9 tokens, $0.0000", "1 model call, 9 tokens, $0"),
        (EventKind.FINISHED, "2 model calls, 9 tokens, $1.2345", "2 model calls, 9 tokens, $1.23"),
        (EventKind.FINISHED, "ann rejected it: $5.0000 is too much", "ann rejected it: $5.0000 is too much"),
    ],
)
def test_the_timeline_is_told_for_people(kind: EventKind, summary: str, told: str) -> None:
    event = Event(sequence=1, kind=kind, name="x", summary=summary, at=datetime.now(UTC))
    assert [entry.summary for entry in timeline([event])] == [told]


async def test_the_name_of_a_budget_is_code_in_its_question(stage: Stage, shown: Window) -> None:
    await stage.ask("May it go past budget `monthly`?", kind="budget")
    await shown.sign_in("ann")
    for place in (".row .head", ".content .prose"):
        await expect(shown.page.locator(place)).to_have_text("May it go past budget monthly?")
        await expect(shown.page.locator(f"{place} code")).to_have_text("monthly")


async def test_calls_that_were_not_made_are_listed_and_not_counted(stage: Stage, shown: Window) -> None:
    request_id = await a_team_at_work(stage)
    sheet = stage.engine.sheets[request_id]
    refused = ToolLine(key="3.0", name="pay", state="refused", summary="not made; the model was told why")
    stage.engine.sheets[request_id] = sheet.model_copy(update={"tools": (*sheet.tools, refused)})
    await shown.sign_in("carl", f"/requests/{request_id}")
    await expect(shown.page.locator(".call")).to_have_count(4)
    await expect(shown.page.locator(".facts div", has_text="Tool calls").locator("dd")).to_have_text("3")
    await expect(shown.page.locator(".call.refused summary")).to_have_text("pay not made the model was told why")


async def test_why_a_call_waits_is_told_with_its_code(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask('{"tool": "pay", "arguments": {}}', kind="tool", approvers=("role:finance",))
    progress = await stage.engine.progress(request_id)
    assert progress is not None
    lines = (
        ToolLine(key="1.0", name="pay", state="asking", summary=WHY),
        ToolLine(key="1.1", name="read", state="failed", summary="the server said `no`"),
    )
    stage.engine.sheets[request_id] = progress.model_copy(update={"tools": lines})
    await shown.sign_in("carl", f"/requests/{request_id}")
    await expect(shown.page.locator(".call.asking .soft code")).to_have_text("args.amount > 20.0")
    await expect(shown.page.locator(".call.failed summary .soft")).to_have_text("the server said `no`")
    await expect(shown.page.locator(".banner p")).to_contain_text("Role finance may decide, due in 3 h")
    await shown.page.click(".banner a")
    await expect(shown.page.locator("article")).to_contain_text("Role finance may.")


async def test_people_of_a_role_are_suggested_by_name(browser: Browser, tmp_path: Path) -> None:
    agent = 'deployments = ["extractive"]\nprompt = "prompt.md"\n[approval]\napprovers = ["role:finance", "zoe"]\n'
    agent += '[[approval.escalation]]\napprovers = ["role:lead"]\nwithin = "2h"\n[budget_approval]\napprovers = ["*"]\n'
    roles = '[tenants.local.roles]\nfinance = ["ann", "bob"]\nlead = ["dora"]\nother = ["eve"]\n'
    roles += '[tenants.acme.roles]\nfinance = ["mallory"]\n'
    async with (
        staged(tmp_path, agent=agent, people=roles, config_dir=tmp_path / "config") as stage,
        window(browser, stage.url) as shown,
    ):
        await shown.goto("/inbox/login")
        options = shown.page.locator("#names option")
        names = [await option.get_attribute("value") for option in await options.all()]
        assert names == ["ann", "bob", "dora", "zoe"]


def test_an_entry_that_began_and_ended_is_one_line_without_its_key() -> None:
    at = datetime.now(UTC)
    started = Event(sequence=1, kind=EventKind.TOOL_STARTED, name="pay", summary="1.0", at=at)
    done = Event(
        sequence=2, kind=EventKind.TOOL_FINISHED, name="pay", summary="1.0: no result", at=at + timedelta(seconds=1)
    )
    assert [(one.title, one.summary) for one in timeline([started, done])] == [("Call pay", "no result")]
