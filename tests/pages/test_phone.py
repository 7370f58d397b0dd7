"""The pages on a phone: nothing is cut off, and a decision takes a thumb."""

import json

import pytest
from playwright.async_api import Browser, expect

from tests.pages.browsers import Window, window
from tests.pages.scenes import a_team_at_work, a_working_day
from tests.pages.staged import Stage

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 4


async def fits(shown: Window) -> bool:
    """Whether nothing is wider than the screen."""
    # A phone makes room for what is too wide, so its own idea of its width says nothing.
    size = shown.page.viewport_size
    return size is not None and await shown.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


async def test_a_list_leads_to_a_question_and_back(stage: Stage, phone: Window) -> None:
    ids = await a_working_day(stage)
    await phone.sign_in("ann")
    await expect(phone.page.locator("#question")).to_be_hidden()
    assert await fits(phone)
    await phone.page.tap(f'[data-id="{ids[1]}"]')
    await expect(phone.page.locator("#list")).to_be_hidden()
    await expect(phone.page.locator('[data-verb="approve"]')).to_be_in_viewport()
    assert await fits(phone)
    await phone.page.go_back()
    await expect(phone.page.locator("#list")).to_be_visible()
    await phone.page.tap(f'[data-id="{ids[0]}"]')
    await phone.page.tap(".back")
    await expect(phone.page.locator("#list")).to_be_visible()


async def test_a_decision_on_a_phone_leads_back_to_the_list(stage: Stage, phone: Window) -> None:
    ids = await a_working_day(stage)
    await phone.sign_in("ann")
    await phone.page.tap(f'[data-id="{ids[1]}"]')
    await phone.page.tap('[data-verb="reject"]')
    assert await fits(phone)
    await phone.page.fill("[name=reason]", "wrong customer")
    await expect(phone.page.locator(".sure")).to_be_in_viewport()
    await phone.page.tap(".sure")
    await expect(phone.page.locator("#list")).to_be_visible()
    await expect(phone.page.locator(".row:not(.gone)")).to_have_count(len(ids) - 1)


@pytest.mark.parametrize("width", [320, 390, 700])
async def test_a_small_screen_shows_who_is_signed_in_and_no_keys(stage: Stage, browser: Browser, width: int) -> None:
    request_id = await stage.ask("Pay.")
    async with window(browser, stage.url, width=width) as shown:
        await shown.sign_in("ann", f"/inbox/{request_id}")
        await expect(shown.page.locator(".who .name")).to_be_in_viewport()
        size = "element => [element.clientWidth, element.scrollWidth]"
        shows, needs = await shown.page.locator(".who .name").evaluate(size)
        assert shows >= needs > 0
        for badge in await shown.page.locator("button kbd").all():
            await expect(badge).to_be_hidden()
        assert await fits(shown)


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
async def test_words_without_end_do_not_break_the_page(stage: Stage, browser: Browser, width: int) -> None:
    arguments = {"tool": LONG[:64], "arguments": {LONG: LONG, "nested": {"deep": {"deeper": [LONG]}}}}
    request_id = await stage.ask(json.dumps(arguments), kind="tool", subject=LONG[:64], agent=LONG, why=LONG, user=LONG)
    running = await a_team_at_work(stage)
    async with window(browser, stage.url, width=width, height=800) as shown:
        await shown.sign_in("ann", f"/inbox/{request_id}")
        assert await fits(shown)
        await shown.page.locator('[data-verb="edit"]').click()
        assert await fits(shown)
        await shown.goto("/inbox")
        assert await fits(shown)
        await shown.goto(f"/requests/{running}")
        assert await fits(shown)
        await shown.goto("/requests")
        assert await fits(shown)


@pytest.mark.parametrize("dark", [False, True])
async def test_text_stands_out_from_its_ground(stage: Stage, browser: Browser, dark: bool) -> None:
    await a_working_day(stage)
    async with window(browser, stage.url, dark=dark) as shown:
        await shown.sign_in("ann")
        weak = await shown.page.evaluate(CONTRAST)
        assert weak == []


CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (css) => (css.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || !box.width || element.closest("dialog, noscript, .skip, kbd")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) weak.push(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(weak)];
}"""
"""Visible text with less contrast than WCAG 2.2, 1.4.3, asks for."""
