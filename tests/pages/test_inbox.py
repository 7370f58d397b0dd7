"""The inbox in a real browser: reading, deciding, and what happens when something is in the way."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from playwright.async_api import expect

from holdfast.contracts import Passage
from holdfast.errors import DecisionRefused, Unavailable
from tests.pages.browsers import Window
from tests.pages.staged import Stage

TOOL = {"tool": "refund", "arguments": {"order": "A-1", "amount": 120, "notify": {"customer": True}}}


async def test_what_waits_is_listed_by_deadline_and_the_nearest_is_open(stage: Stage, shown: Window) -> None:
    late = await stage.ask("The later one.", due=timedelta(days=2))
    over = await stage.ask("The overdue one.", due=timedelta(minutes=-5))
    soon = await stage.ask("The next one.", due=timedelta(minutes=30, seconds=58))
    await stage.ask("Not for ann.", approvers=("bob",))
    await shown.sign_in("ann")
    rows = shown.page.locator(".row")
    assert [await row.get_attribute("data-id") for row in await rows.all()] == [over, soon, late]
    await expect(rows.nth(0).locator("time")).to_have_class("due overdue")
    await expect(rows.nth(1).locator("time")).to_have_class("due soon")
    await expect(rows.nth(1).locator("time")).to_have_text("due in 30 min")
    assert "UTC" in (await rows.nth(1).locator("time").get_attribute("title") or "")
    await expect(shown.page.locator("article .prose")).to_have_text("The overdue one.")


async def test_an_approval_is_sent_for_the_content_that_was_shown_and_the_next_question_opens(
    stage: Stage, shown: Window
) -> None:
    first = await stage.ask("Pay the invoice.", due=timedelta(hours=1))
    second = await stage.ask("Send the letter.")
    await shown.sign_in("ann")
    await shown.page.click('[data-verb="approve"]')
    await expect(shown.page.locator(".consequence")).to_have_text("The text is delivered exactly as it is shown.")
    await shown.page.fill("[name=reason]", "checked")
    await shown.page.click(".sure")
    await expect(shown.page.locator("article")).to_have_attribute("data-id", second)
    await expect(shown.page.locator(".toast")).to_contain_text("Approved.")
    await expect(shown.page.locator(f'.row[data-id="{first}"]:not(.gone)')).to_have_count(0)
    ((request_id, decision, _),) = stage.engine.decisions
    assert (request_id, decision.actor, decision.decision, decision.reason) == (first, "ann", "approve", "checked")
    assert decision.content_sha256 == (await stage.text("Pay the invoice.")).sha256


async def test_an_edit_shows_its_changes_before_it_is_sent(stage: Stage, shown: Window) -> None:
    await stage.ask("Dear Ann,\nwe pay on Friday.\nRegards")
    await shown.sign_in("ann")
    await shown.page.click('[data-verb="edit"]')
    await expect(shown.page.locator(".sure")).to_be_disabled()
    await shown.page.fill("#payload", "Dear Ann,\nwe pay on Monday.\nRegards")
    await expect(shown.page.locator(".editing del")).to_have_text("Friday")
    await expect(shown.page.locator(".editing ins")).to_have_text("Monday")
    await shown.page.click(".sure")
    await expect(shown.page.locator("#list")).to_contain_text("Nothing waits for you.")
    ((_, decision, _),) = stage.engine.decisions
    assert decision.decision == "edit"
    assert decision.payload is not None
    assert await stage.ledger.contents.get("local", decision.payload) == "Dear Ann,\nwe pay on Monday.\nRegards"


async def test_a_tools_arguments_are_a_table_and_are_edited_as_json(stage: Stage, shown: Window) -> None:
    await stage.ask(json.dumps(TOOL, indent=2), kind="tool", subject="refund", why="args.amount > 100")
    await shown.sign_in("ann")
    await expect(shown.page.locator("#title")).to_have_text("Call refund?")
    await expect(shown.page.locator(".why")).to_contain_text("args.amount > 100")
    table = shown.page.locator("table.arguments")
    await expect(table.locator("tbody > tr > th")).to_have_text(["order", "amount", "notify"])
    await table.locator("summary").click()
    await expect(table.locator(".tree li")).to_be_hidden()
    await shown.page.click('[data-verb="edit"]')
    assert json.loads(await shown.page.input_value("#payload")) == TOOL["arguments"]
    await shown.page.fill("#payload", '{"order": "A-1", "amount": 90}')
    await shown.page.click(".sure")
    await expect(shown.page.locator(".toast")).to_contain_text("Edited")
    decision = stage.engine.decisions[0][1]
    assert decision.payload is not None
    assert await stage.ledger.contents.get("local", decision.payload) == '{"order": "A-1", "amount": 90}'


async def test_json_is_shown_as_a_tree_that_folds_and_exactly_as_it_is_written(stage: Stage, shown: Window) -> None:
    content = '{"total": 1.10, "lines": [{"sku": "x", "n": 2}], "total": 1.20}'
    await stage.ask(content)
    await shown.sign_in("ann")
    tree = shown.page.locator(".json")
    await expect(tree.locator("> details > ul > li > .number")).to_have_text(["1.10", "1.20"])
    await tree.locator("summary").nth(1).click()
    await expect(tree.locator("li", has_text="sku").last).to_be_hidden()
    await shown.page.locator(".exact summary").click()
    await expect(shown.page.locator(".exact pre")).to_have_text(content)


async def test_a_citation_opens_the_passage_it_points_to(stage: Stage, shown: Window) -> None:
    passages = [Passage(source=f"doc-{n}.md", start=0, end=9, text=f"Quote {n}.", score=0.5) for n in (1, 2)]
    await stage.ask("As said [2], but not in `rows[1]`.", passages=passages)
    await shown.sign_in("ann")
    await expect(shown.page.locator(".prose .cite")).to_have_text(["2"])
    await expect(shown.page.get_by_text("Quote 2.")).to_be_hidden()
    await shown.page.click(".prose .cite")
    await expect(shown.page.get_by_text("Quote 2.")).to_be_visible()
    await shown.page.click(".more > summary")
    await expect(shown.page.locator(".more .source")).to_contain_text("doc-1.md")


async def test_a_refused_decision_shows_its_reason_and_changes_nothing(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    stage.engine.refusal = DecisionRefused("'bob' already decided 'reject' at 10:00:00 UTC.", code="already_decided")
    shown.allowed = ("409",)
    await shown.sign_in("ann")
    await shown.page.click('[data-verb="reject"]')
    await shown.page.fill("[name=reason]", "too much")
    await shown.page.click(".sure")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("'bob' already decided 'reject'")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("Nothing needs to be done")
    await expect(shown.page.locator("[name=reason]")).to_have_value("too much")
    await expect(shown.page.locator("article")).to_have_attribute("data-id", request_id)
    assert not await shown.page.locator(".toast").count()


async def test_what_is_wrong_with_an_edit_is_told_line_by_line(stage: Stage, shown: Window) -> None:
    await stage.ask('{"x": 1}')
    lines = "The edited text is not valid:\n- /x: not an integer\n- /y: missing"
    stage.engine.refusal = DecisionRefused(lines, code="invalid_edit")
    shown.allowed = ("422",)
    await shown.sign_in("ann")
    await shown.page.keyboard.press("e")
    await shown.page.fill("#payload", '{"x": "one"}')
    await shown.page.keyboard.press("Control+Enter")
    problem = shown.page.locator(".decide .problem")
    await expect(problem).to_contain_text("/y: missing")
    assert (await problem.inner_text()).split("\n")[:3] == lines.split("\n")
    assert (await problem.inner_text()).split("\n")[3].startswith("Mend the text")


async def test_an_edit_that_is_not_valid_keeps_what_was_written(stage: Stage, shown: Window) -> None:
    await stage.ask('{"x": 1}')
    stage.engine.refusal = DecisionRefused("The edited text is not valid: /x: not an integer", code="invalid_edit")
    shown.allowed = ("422",)
    await shown.sign_in("ann")
    await shown.page.keyboard.press("e")
    await shown.page.fill("#payload", '{"x": "one"}')
    await shown.page.keyboard.press("Control+Enter")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("/x: not an integer")
    await expect(shown.page.locator("#payload")).to_have_value('{"x": "one"}')
    stage.engine.refusal = None
    await shown.page.fill("#payload", '{"x": 2}')
    await shown.page.keyboard.press("Control+Enter")
    await expect(shown.page.locator(".toast")).to_contain_text("Edited and approved.")


async def test_a_decision_that_may_have_arrived_is_sent_again_under_the_same_key(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    stage.engine.refusal = Unavailable("No worker took the decision within 15 s.")  # type: ignore[assignment]
    shown.allowed = ("503",)
    keys: list[str | None] = []
    await shown.sign_in("ann")
    shown.page.on(
        "request",
        lambda request: keys.append(request.headers.get("idempotency-key")) if request.method == "POST" else None,
    )
    await shown.page.click('[data-verb="approve"]')
    await shown.page.click(".sure")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("No worker took the decision")
    stage.engine.refusal = None
    await shown.page.click(".sure")
    await expect(shown.page.locator(".toast")).to_contain_text("Approved.")
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None


async def test_votes_of_a_quorum_and_an_edited_draft_are_told(stage: Stage, shown: Window) -> None:
    sha = (await stage.text("We pay on Monday.")).sha256
    vote = {"actor": "bob", "content_sha256": sha, "at": datetime.now(UTC), "reason": "Monday is right"}
    await stage.ask("We pay on Monday.", draft="We pay on Friday.", rule={"quorum": 2}, votes=(vote,))
    await shown.sign_in("ann")
    await expect(shown.page.locator(".row .rowend")).to_contain_text("1 of 2 agrees")
    await expect(shown.page.locator(".votes")).to_contain_text("bob approved")
    await expect(shown.page.locator(".votes q")).to_have_text("Monday is right")
    await expect(shown.page.locator(".diff del")).to_have_text("Friday")
    await expect(shown.page.locator(".diff ins")).to_have_text("Monday")


async def test_who_has_voted_or_asked_is_told_why_there_is_nothing_to_decide(stage: Stage, shown: Window) -> None:
    sha = (await stage.text("Voted.")).sha256
    vote = {"actor": "ann", "content_sha256": sha, "at": datetime.now(UTC)}
    await stage.ask("Voted.", rule={"quorum": 2}, votes=(vote,), due=timedelta(hours=1))
    own = await stage.ask("Own.", user="ann")
    await shown.sign_in("ann")
    await expect(shown.page.locator(".decide")).to_have_text("You have approved this; others still have to.")
    await shown.page.click(f'[data-id="{own}"]')
    await expect(shown.page.locator(".decide")).to_contain_text("You asked for this yourself")
    await shown.page.keyboard.press("a")
    await expect(shown.page.locator(".sure")).to_have_count(0)


async def test_a_budget_is_approved_or_rejected_but_not_edited(stage: Stage, shown: Window) -> None:
    await stage.ask("May this request go past a budget?", kind="budget")
    await shown.sign_in("ann")
    await expect(shown.page.locator('[data-verb="edit"]')).to_have_count(0)
    await shown.page.keyboard.press("e")
    await expect(shown.page.locator(".confirm")).to_be_hidden()


async def test_a_content_is_not_shown_to_who_is_not_asked(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("The secret plan.", approvers=("bob",), user="ann")
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await expect(shown.page.locator("article")).to_contain_text("Not yours to decide")
    assert "secret plan" not in await shown.page.content()


async def test_an_engine_that_is_away_is_told_and_the_page_comes_back_by_itself(stage: Stage, shown: Window) -> None:
    shown.allowed = ("503",)
    await shown.sign_in("ann")
    await stage.ask("Pay.")
    await expect(shown.page.locator(".row")).to_have_count(1)
    stage.engine.away = True
    await expect(shown.page.locator("#live")).to_have_text("paused")
    await expect(shown.page.locator(".row")).to_have_count(1)
    stage.engine.away = False
    await expect(shown.page.locator("#live")).to_have_text("live")


async def test_an_inbox_opened_while_the_engine_is_away_says_so(stage: Stage, shown: Window) -> None:
    shown.allowed = ("503",)
    await shown.sign_in("ann")
    stage.engine.away = True
    await shown.goto("/inbox")
    await expect(shown.page.locator("main")).to_contain_text("The engine does not answer")
    await expect(shown.page.locator("main")).to_contain_text("Nothing is lost")


async def test_more_than_a_page_of_questions_is_counted_and_paged(stage: Stage, shown: Window) -> None:
    for number in range(60):
        await stage.ask(f"Question {number:02}.", due=timedelta(hours=1 + number))
    await shown.sign_in("ann")
    await expect(shown.page.locator(".count")).to_have_text("60")
    await expect(shown.page.locator(".row")).to_have_count(50)
    await shown.page.click("[rel=next]")
    await expect(shown.page.locator(".row .head").first).to_have_text("Question 50.")
    await expect(shown.page.locator(".row")).to_have_count(10)


async def test_a_text_that_is_no_longer_stored_cannot_be_approved(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Gone.")
    waiting = stage.engine.executions[request_id]
    assert waiting.approval is not None
    lost = waiting.approval.content.model_copy(update={"sha256": "f" * 64})
    stage.engine.put(replace(waiting, approval=waiting.approval.model_copy(update={"content": lost})))
    await shown.sign_in("ann")
    await expect(shown.page.locator(".content .problem")).to_contain_text("no longer stored")
    await expect(shown.page.locator("[data-verb]")).to_have_count(0)
