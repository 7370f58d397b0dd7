"""What happens elsewhere while a question is read or decided: it appears by itself, and takes nothing away."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from playwright.async_api import Browser, Route, expect

from holdfast.contracts import Status
from tests.pages.browsers import Window, window
from tests.pages.staged import Stage


async def test_a_new_question_appears_without_a_reload(stage: Stage, shown: Window) -> None:
    await shown.sign_in("ann")
    await expect(shown.page.locator("#list")).to_contain_text("Nothing waits for you.")
    await shown.page.evaluate("window.kept = true")
    await stage.ask("Just in.")
    await expect(shown.page.locator(".row .head")).to_have_text("Just in.")
    await expect(shown.page.locator("article .prose")).to_have_text("Just in.")
    await expect(shown.page).to_have_title("(1) Inbox · Holdfast")
    assert await shown.page.evaluate("window.kept")


async def test_a_question_that_someone_else_decides_is_shown_as_settled(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    await shown.sign_in("ann")
    await expect(shown.page.locator(".decide")).to_be_visible()
    waiting = stage.engine.executions[request_id]
    stage.engine.put(replace(waiting, status=Status.RUNNING, approval=None))
    await expect(shown.page.locator("article.settled")).to_contain_text("Nothing waits here now")
    await expect(shown.page.locator(".row")).to_have_count(0)


async def test_what_is_being_written_is_not_thrown_away_when_the_question_changes(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    await shown.sign_in("ann")
    await shown.page.click('[data-verb="edit"]')
    await shown.page.fill("#payload", "Pay half.")
    stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
    await expect(shown.page.locator(".decide .problem")).to_contain_text("decided while you were writing")
    await expect(shown.page.locator("#payload")).to_have_value("Pay half.")


async def test_what_was_begun_while_a_change_was_on_its_way_is_not_thrown_away(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    await shown.sign_in("ann")
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        asked.set()
        await go_on.wait()
        await route.continue_()

    await shown.page.route("**/inbox/*part=question", late)
    stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
    await asked.wait()
    await shown.page.keyboard.press("e")
    await shown.page.fill("#payload", "Pay half.")
    go_on.set()
    await expect(shown.page.locator(".decide .problem")).to_contain_text("decided while you were writing")
    await expect(shown.page.locator("#payload")).to_have_value("Pay half.")


async def test_a_decision_that_is_taken_late_leaves_what_was_begun_meanwhile(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.", due=timedelta(hours=1))
    second = await stage.ask("Send the letter.")
    await shown.sign_in("ann")
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        sent.set()
        await go_on.wait()
        await route.continue_()

    await shown.page.route("**/decisions", late)
    await shown.page.keyboard.press("a")
    await shown.page.keyboard.press("Enter")
    await sent.wait()
    await shown.page.click(f'[data-id="{second}"]')
    await expect(shown.page.locator("article")).to_have_attribute("data-id", second)
    await shown.page.keyboard.press("e")
    await shown.page.fill("#payload", "Send it tomorrow.")
    go_on.set()
    await expect(shown.page.locator(".toast")).to_contain_text("Approved.")
    await expect(shown.page.locator(".row:not(.gone)")).to_have_count(1)
    await expect(shown.page.locator("#payload")).to_have_value("Send it tomorrow.")
    await shown.page.keyboard.press("Control+Enter")
    await expect(shown.page.locator(".toast").last).to_contain_text("Edited and approved.")
    assert [decision.decision for _, decision, _ in stage.engine.decisions] == ["approve", "edit"]


@pytest.mark.parametrize("width", [1030, 1280])
async def test_a_message_covers_nothing(stage: Stage, browser: Browser, width: int) -> None:
    await stage.ask("Pay.", due=timedelta(hours=1))
    await stage.ask("Send the letter.")
    async with window(browser, stage.url, width=width) as shown:
        await shown.sign_in("ann")
        await shown.page.keyboard.press("a")
        await shown.page.keyboard.press("Enter")
        await expect(shown.page.locator(".toast")).to_contain_text("Approved.")
        assert await shown.page.evaluate(COVERED) == []


COVERED = """() => {
  const box = document.querySelector(".toast").getBoundingClientRect();
  return [...document.querySelectorAll("body *")].filter((element) => {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const own = element.getBoundingClientRect();
    return text && own.width && !element.closest(".toast, .skip") && own.left < box.right && own.right > box.left &&
      own.top < box.bottom && own.bottom > box.top;
  }).map((element) => element.textContent);
}"""
"""Texts that share their place with the message."""
