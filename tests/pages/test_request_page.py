"""A request's page: what it shows of a run, and that it follows the run without a reload."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from playwright.async_api import expect

from gateway.execution import Execution
from holdfast.contracts import Answer, AnswerDocument, Citation, EventKind, Status, StreamEvent
from holdfast.contracts.tools import ToolLine
from holdfast.ledger import ApprovalEvent
from tests.pages.browsers import Window
from tests.pages.scenes import a_team_at_work
from tests.pages.staged import Stage

ID = "req_" + "7" * 26


def begin(stage: Stage, status: Status = Status.RUNNING, **more: object) -> Execution:
    """A request on stage."""
    execution = Execution(ID, "local", "carl", "letters", status, submitted_at=datetime.now(UTC))
    return stage.engine.put(replace(execution, **more))  # type: ignore[arg-type]


async def end(stage: Stage, document: AnswerDocument) -> None:
    """Let the request complete."""
    reference = await stage.text(document.model_dump_json())
    answer = Answer(request_id=ID, status=Status.COMPLETED, document=reference, attempts=1, deployment="sim")
    begin(stage, Status.COMPLETED, answer=answer)
    stage.engine.run(ID).tell(EventKind.FINISHED, "completed")
    stage.engine.run(ID).end()


async def test_steps_and_text_appear_as_they_happen_and_the_answer_at_the_end(stage: Stage, shown: Window) -> None:
    begin(stage)
    run = stage.engine.run(ID)
    run.tell(EventKind.STEP_FINISHED, "sanitize", "nothing to mask")
    await shown.sign_in("carl", f"/requests/{ID}")
    await shown.page.evaluate("window.kept = true")
    await expect(shown.page.locator(".timeline li")).to_have_count(1)
    run.tell(EventKind.STEP_STARTED, "generate", "sim, attempt 1")
    await expect(shown.page.locator(".timeline li.running strong")).to_have_text("Ask the model")
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="began"))
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="text", text="It is <b>"))
    await expect(shown.page.locator("#text")).to_have_text("It is <b>")
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=9, kind="text", text=" Friday [1]."))
    await expect(shown.page.locator("#text")).to_have_text("It is <b> Friday [1].")
    citation = Citation(marker=1, source="plan.md", start=0, end=9, quote="On Friday.")
    await end(stage, AnswerDocument(text="It is <b> Friday [1].", citations=(citation,)))
    await expect(shown.page.locator(".status").first).to_have_text("completed")
    await expect(shown.page.locator("section.content .prose")).to_have_text("It is <b> Friday [1].")
    await shown.page.click(".prose .cite")
    await expect(shown.page.get_by_text("On Friday.")).to_be_visible()
    await expect(shown.page.locator("#live")).to_have_count(0)
    assert await shown.page.evaluate("window.kept")


async def test_a_new_attempt_discards_the_text_of_the_old_one(stage: Stage, shown: Window) -> None:
    begin(stage)
    await shown.sign_in("carl", f"/requests/{ID}")
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="began"))
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="text", text="Half a"))
    await expect(shown.page.locator("#text")).to_have_text("Half a")
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=2, offset=0, kind="began"))
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=2, offset=0, kind="text", text="All of it"))
    await expect(shown.page.locator("#text")).to_have_text("All of it")


async def test_tools_delegates_decisions_and_cost_are_told(stage: Stage, shown: Window) -> None:
    request_id = await a_team_at_work(stage)
    await shown.sign_in("carl", f"/requests/{request_id}")
    page = shown.page
    await expect(page.locator(".facts")).to_contain_text("$0.0217")
    await expect(page.locator(".facts")).to_contain_text("4\u202f822")
    await expect(page.locator(".call")).to_have_count(3)
    await expect(page.get_by_text("refunded 129.00 EUR")).to_be_hidden()
    await page.click("#call-2\\.0 summary")
    await expect(page.get_by_text("refunded 129.00 EUR")).to_be_visible()
    await expect(page.locator("#call-2\\.0 tbody th")).to_have_text(["amount", "currency", "order"])
    await expect(page.locator(".votes")).to_contain_text("ann approved a tool call")
    await expect(page.locator(".votes q")).to_have_text("photo is clear, below the limit")
    child = page.locator(".delegates a")
    assert await child.get_attribute("href") == "/requests/req_01m7ytkw3k8vsn1t0k2b3q9f4c"
    await expect(page.locator(".hint").last).to_contain_text("tools, delegates")


async def test_what_is_opened_stays_open_while_the_run_goes_on(stage: Stage, shown: Window) -> None:
    request_id = await a_team_at_work(stage)
    await shown.sign_in("carl", f"/requests/{request_id}")
    await shown.page.click("#call-2\\.0 summary")
    sheet = stage.engine.sheets[request_id]
    last = sheet.events[-1].model_copy(update={"sequence": 12, "kind": EventKind.STEP_FINISHED, "summary": "done now"})
    stage.engine.sheets[request_id] = sheet.model_copy(update={"events": (*sheet.events, last)})
    stage.engine.run(request_id).moved.set()
    await expect(shown.page.locator(".timeline li").last).to_contain_text("done now")
    await expect(shown.page.get_by_text("refunded 129.00 EUR")).to_be_visible()


async def test_a_request_is_cancelled_only_after_a_second_look(stage: Stage, shown: Window) -> None:
    begin(stage)
    await shown.sign_in("carl", f"/requests/{ID}")
    await shown.page.click("#cancel-open")
    await shown.page.click("text=Let it go on")
    assert stage.engine.cancelled == []
    await shown.page.click("#cancel-open")
    await shown.page.click("[data-cancel]")
    await expect(shown.page.locator(".toast")).to_contain_text("told to stop")
    assert stage.engine.cancelled == [ID]


async def test_a_cancellation_that_comes_too_late_says_so(stage: Stage, shown: Window) -> None:
    begin(stage)
    shown.allowed = ("409",)
    await shown.sign_in("carl", f"/requests/{ID}")
    await shown.page.click("#cancel-open")
    begin(stage, Status.CANCELLED, answer=Answer(request_id=ID, status=Status.CANCELLED, reason="Cancelled before."))
    await shown.page.click("[data-cancel]")
    await expect(shown.page.locator("#cancel .problem")).to_contain_text("has ended")


async def test_a_request_that_waits_leads_those_to_the_inbox_who_may_decide(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("The letter.", approvers=("ann",))
    await shown.sign_in("carl", f"/requests/{request_id}")
    await expect(shown.page.locator("section.banner")).to_contain_text("ann may decide, due in 3 h")
    await expect(shown.page.locator("section.banner a")).to_have_text("In the inbox")
    await expect(shown.page.get_by_text("Decide", exact=True)).to_have_count(0)
    assert "The letter." not in await shown.page.content()
    await shown.page.click("text=Change")
    await shown.sign_in("ann", f"/requests/{request_id}")
    await shown.page.click(".banner a")
    await expect(shown.page.locator("article")).to_have_attribute("data-id", request_id)


async def test_arguments_that_wait_for_a_decision_are_shown_to_those_who_are_asked(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask('{"tool": "pay", "arguments": {"to": "Zorro"}}', kind="tool", approvers=("ann",))
    line = ToolLine(key="1.0", name="pay", state="asking", arguments=await stage.text('{"to": "Zorro"}'))
    progress = await stage.engine.progress(request_id)
    assert progress is not None
    stage.engine.sheets[request_id] = progress.model_copy(update={"tools": (line,)})
    await shown.sign_in("carl", f"/requests/{request_id}")
    await expect(shown.page.locator(".call")).to_contain_text("waits for people")
    await shown.page.click(".call summary")
    await expect(shown.page.locator(".call .inside")).to_have_text(
        "Only those who are asked see the arguments while it waits."
    )
    assert "Zorro" not in await shown.page.content()
    await shown.page.click("text=Change")
    await shown.sign_in("ann", f"/requests/{request_id}")
    await expect(shown.page.locator(".call td")).to_have_text("Zorro")


async def test_arguments_that_people_refused_stay_with_those_who_were_asked(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Go past the budget?", kind="budget", approvers=("boss",))
    lines = (
        ToolLine(key="1.0", name="pay", state="refused", arguments=await stage.text('{"to": "Zorro"}')),
        ToolLine(key="1.1", name="read", state="done", arguments=await stage.text('{"page": "Diego"}')),
    )
    progress = await stage.engine.progress(request_id)
    assert progress is not None
    stage.engine.sheets[request_id] = progress.model_copy(update={"tools": lines})
    for sequence, (subject, round_number, approvers) in enumerate(
        [("pay", 1, ("ann",)), ("pay", 1, ("zoe",)), ("pay", 2, ("zoe",)), ("read", 3, ("bob",))]
    ):
        await stage.ledger.approval_events.record(
            ApprovalEvent(
                tenant="local",
                request_id=request_id,
                sequence=sequence,
                agent="refunds",
                round=round_number,
                kind="tool",
                subject=subject,
                happening="opened",
                actor=None,
                reason=None,
                content_sha256="0" * 64,
                stage=0,
                approvers=approvers,
                deadline=datetime.now(UTC),
                at=datetime.now(UTC),
            )
        )
    # Who asked, who decides something else, who was asked about another tool, and about one of two calls.
    for reader in ("carl", "boss", "bob", "ann"):
        await shown.sign_in(reader, f"/requests/{request_id}")
        await shown.page.click(".call.refused summary")
        await expect(shown.page.locator(".call.refused .inside")).to_have_text(
            "People did not agree to it; only those who were asked see the arguments."
        )
        await expect(shown.page.locator(".call.done td")).to_have_text("Diego")
        assert "Zorro" not in await shown.page.content()
        await shown.page.click("text=Change")
    await shown.sign_in("zoe", f"/requests/{request_id}")
    await expect(shown.page.locator(".call.refused td")).to_have_text("Zorro")


async def test_a_stream_that_was_refused_once_is_opened_again(stage: Stage, shown: Window) -> None:
    begin(stage)
    shown.allowed = ("503",)
    await shown.page.route("**/events", lambda route: route.fulfill(status=503, body="away"))
    await shown.sign_in("carl", f"/requests/{ID}")
    await expect(shown.page.locator("#live")).to_have_text("paused")
    await shown.page.unroute("**/events")
    await expect(shown.page.locator("#live")).to_have_text("live")
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="began"))
    await stage.relay.publish(StreamEvent(request_id=ID, attempt=1, offset=0, kind="text", text="Here again."))
    await expect(shown.page.locator("#text")).to_have_text("Here again.")


async def test_how_a_request_failed_is_told_with_what_to_do(stage: Stage, shown: Window) -> None:
    reason = "No deployment could answer. Try again later."
    begin(stage, Status.FAILED, answer=Answer(request_id=ID, status=Status.FAILED, reason=reason))
    await shown.sign_in("carl", f"/requests/{ID}")
    await expect(shown.page.locator(".ending")).to_contain_text(reason)
    await expect(shown.page.locator("#cancel-open")).to_have_count(0)


async def test_json_answers_are_trees(stage: Stage, shown: Window) -> None:
    begin(stage)
    await end(stage, AnswerDocument(text=json.dumps({"category": "billing", "actions": [{"do": "reply"}]})))
    await shown.sign_in("carl", f"/requests/{ID}")
    await expect(shown.page.locator(".json .key").first).to_have_text("category")


async def test_an_unknown_request_is_a_page_that_says_so(stage: Stage, shown: Window) -> None:
    shown.allowed = ("404",)
    await shown.sign_in("carl")
    await shown.goto("/requests/req_unknown000")
    await expect(shown.page.locator("main")).to_contain_text("There is nothing here")


async def test_the_tenants_requests_are_listed(stage: Stage, shown: Window) -> None:
    begin(stage)
    await stage.ask("The letter.", agent="letters")
    await shown.sign_in("carl", "/requests")
    await expect(shown.page.locator("tbody tr")).to_have_count(2)
    await shown.page.click(f'a[href="/requests/{ID}"]')
    await expect(shown.page.locator("h1")).to_have_text("letters")


async def test_a_status_in_words_is_no_larger_than_its_words(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("The letter.")
    await shown.sign_in("carl", "/requests")
    for path in ("/requests", f"/requests/{request_id}"):
        await shown.goto(path)
        chip = shown.page.locator(".status.waiting")
        width, height = await chip.evaluate("one => [one.offsetWidth, one.offsetHeight]")
        assert width < 80
        assert height < 30


@pytest.mark.parametrize(("cost", "words"), [("0.0008", "$0.0008"), ("0.000004", "$0.000004"), ("0", "$0")])
async def test_a_cost_however_small_is_told(stage: Stage, shown: Window, cost: str, words: str) -> None:
    await stage.ask("The letter.", cost=cost)
    await shown.sign_in("carl", "/requests")
    await expect(shown.page.locator("td.right")).to_have_text(words)
