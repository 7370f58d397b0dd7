"""The inbox without a mouse, and for those who cannot see it."""

from datetime import timedelta

from playwright.async_api import expect

from holdfast.contracts.plan import EscalationStage
from tests.pages.browsers import Window
from tests.pages.staged import Stage


async def test_questions_are_walked_with_j_and_k_and_with_arrows(stage: Stage, shown: Window) -> None:
    ids = [await stage.ask(f"Question {number}.", due=timedelta(hours=1 + number)) for number in range(3)]
    await shown.sign_in("ann")
    article = shown.page.locator("article")
    for key, expected in (("j", 1), ("ArrowDown", 2), ("j", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)):
        await shown.page.keyboard.press(key)
        await expect(article).to_have_attribute("data-id", ids[expected])
        await expect(shown.page.locator(".row[aria-current]")).to_have_attribute("data-id", ids[expected])


async def test_a_then_enter_approves(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    await shown.sign_in("ann")
    await shown.page.keyboard.press("a")
    await expect(shown.page.locator(".sure")).to_be_focused()
    await shown.page.keyboard.press("Enter")
    await expect(shown.page.locator(".toast")).to_contain_text("Approved.")


async def test_r_asks_for_a_reason_and_enter_rejects(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    await shown.sign_in("ann")
    await shown.page.keyboard.press("r")
    await expect(shown.page.locator("[name=reason]")).to_be_focused()
    await shown.page.keyboard.type("a jar, exactly")
    await shown.page.keyboard.press("Enter")
    await expect(shown.page.locator(".toast")).to_contain_text("Rejected.")
    assert [decision.reason for _, decision, _ in stage.engine.decisions] == ["a jar, exactly"]


async def test_x_asks_for_a_reason_and_enter_escalates(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.", rule={"escalation": (EscalationStage(approvers=("boss",), within=timedelta(hours=1)),)})
    await shown.sign_in("ann")
    await shown.page.keyboard.press("x")
    await shown.page.keyboard.type("a jar, exactly")
    await shown.page.keyboard.press("Enter")
    await expect(shown.page.locator(".toast")).to_contain_text("Escalated.")
    assert [decision.reason for _, decision, _ in stage.engine.decisions] == ["a jar, exactly"]


async def test_escape_goes_back_to_the_button_it_began_with(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    await shown.sign_in("ann")
    await shown.page.keyboard.press("r")
    await shown.page.keyboard.press("Escape")
    await expect(shown.page.locator('[data-verb="reject"]')).to_be_focused()
    assert stage.engine.decisions == []


async def test_a_question_mark_opens_the_keys_and_escape_closes_them(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    await shown.sign_in("ann")
    await shown.page.keyboard.press("?")
    await expect(shown.page.locator("#help")).to_be_visible()
    await shown.page.keyboard.press("a")
    await expect(shown.page.locator(".confirm")).to_be_hidden()
    await shown.page.keyboard.press("Escape")
    await expect(shown.page.locator("#help")).to_be_hidden()


async def test_every_control_has_a_name_and_is_reached_by_tab_with_a_visible_focus(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.")
    await shown.sign_in("ann")
    unnamed = await shown.page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, textarea")].filter((control) =>
             control.type !== "hidden" && !control.textContent.trim() && !control.labels?.length &&
             !control.getAttribute("aria-label")).map((control) => control.outerHTML)"""
    )
    assert unnamed == []
    seen = set()
    for _ in range(25):
        await shown.page.keyboard.press("Tab")
        seen.add(
            await shown.page.evaluate(
                """() => [document.activeElement.dataset.verb ?? document.activeElement.className,
                          getComputedStyle(document.activeElement).outlineStyle].join(" ")"""
            )
        )
    assert {"approve solid", "edit solid", "reject solid", "row solid", "skip solid"} <= seen


async def test_what_happened_is_announced(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.", due=timedelta(hours=1))
    await stage.ask("Pay more.")
    await shown.sign_in("ann")
    assert await shown.page.get_attribute("#toasts", "aria-live") == "polite"
    await expect(shown.page.locator(".decide .problem")).to_have_attribute("role", "alert")
    await shown.page.keyboard.press("a")
    await shown.page.keyboard.press("Enter")
    await expect(shown.page.get_by_role("status")).to_contain_text("Approved.")
    await expect(shown.page.locator("#title")).to_be_focused()
