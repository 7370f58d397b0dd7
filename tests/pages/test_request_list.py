"""The list of requests: what each is about, for those who may read it, and what it has cost so far."""

from dataclasses import replace

from playwright.async_api import expect

from tests.pages.browsers import Window
from tests.pages.staged import Stage

QUESTION = "Where is\norder A-1? Write to <EMAIL_1>. " + "It is late. " * 40


async def test_what_was_asked_is_told_in_a_line_to_who_asked_and_who_decides(stage: Stage, shown: Window) -> None:
    await stage.ask("The letter.", asked=QUESTION, approvers=("ann",))
    for reader in ("carl", "ann"):
        await shown.sign_in(reader, "/requests")
        told = shown.page.locator("td .asked")
        await expect(told).to_contain_text("Where is order A-1? Write to <EMAIL_1>.")
        assert len(await told.inner_text()) <= 110
        await shown.page.click("text=Change")
    await shown.sign_in("dora", "/requests")
    await expect(shown.page.locator("tbody tr")).to_have_count(1)
    await expect(shown.page.locator("td .asked")).to_have_count(0)
    assert "A-1" not in await shown.page.content()


async def test_a_request_that_waits_says_what_it_has_cost(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("The letter.")
    # The index has no cost before the end.
    stage.engine.put(replace(stage.engine.executions[request_id], cost_usd=None))
    await shown.sign_in("carl", "/requests")
    await expect(shown.page.locator("td.right")).to_have_text("$0")
