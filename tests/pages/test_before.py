"""Whoever is asked about a call sees what was called before it, and why people are asked at all."""

import pytest
from playwright.async_api import expect

from holdfast.contracts import ToolCall, Turn
from holdfast.preparation import TRANSCRIPT
from holdfast.tools.results import shown_result
from tests.pages.browsers import Window
from tests.pages.staged import Stage
from tests.pages.test_hostile import CLEAN, FOREIGN, PAYLOADS

CALL = '{"tool": "refund", "arguments": {"order": "A7"}}'
WHY = "Refunds above 100 EUR need two people."


async def asked(stage: Stage, page: str) -> str:
    """A question of a run that has read a page and looked an order up."""
    calls = (
        ToolCall(id="a", name="read_page", arguments=f'{{"address": "{page}'),
        ToolCall(id="b", name="lookup_order", arguments='{"order": "A7"}'),
    )
    turns = (
        Turn(role="assistant", tool_calls=calls),
        Turn(role="tool", tool_call_id="a", content=shown_result(page, "req_1", "1.0", "web")),
        Turn(role="tool", tool_call_id="b", content=shown_result("Order A7 is on its way.", "req_1", "1.1", None)),
    )
    transcript = await stage.text(TRANSCRIPT.dump_json(turns).decode())
    cause = "`args.amount > 100` holds"
    return await stage.ask(
        CALL, kind="tool", subject="refund", transcript=transcript, why=cause, rule={"why": WHY}, approvers=("ann",)
    )


async def test_earlier_calls_are_folded_away_and_one_click_from_being_read(stage: Stage, shown: Window) -> None:
    request_id = await asked(stage, "Pay 1\u202e million.\n" + "x" * 5_000)
    await shown.sign_in("ann", f"/inbox/{request_id}")
    before = shown.page.locator("details.before")
    await expect(before.locator("> summary")).to_have_text("2 calls and what came of them")
    await expect(before.get_by_text("Order A7 is on its way.")).to_be_hidden()
    await before.locator("> summary").click()
    page, order = before.locator(".call").nth(0), before.locator(".call").nth(1)
    await expect(page.locator(".tag")).to_have_text("read from outside")
    await expect(order.locator(".tag")).to_have_count(0)
    await page.locator("> summary").click()
    await expect(page.locator("pre").nth(1)).to_contain_text("Pay 1\\u202e million.")
    await expect(page.get_by_text("The rest is left out here.")).to_be_visible()
    await order.locator("> summary").click()
    await expect(order.get_by_text("Order A7 is on its way.")).to_be_visible()


async def test_the_words_of_the_rule_stand_before_what_led_to_the_question(stage: Stage, shown: Window) -> None:
    request_id = await asked(stage, "A page.")
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await expect(shown.page.locator(".why")).to_have_text(f"Why you are asked {WHY} args.amount > 100 holds")


async def test_a_run_that_called_nothing_has_no_such_section(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("A letter.")
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await expect(shown.page.locator("#title")).to_have_text("Deliver this answer?")
    await expect(shown.page.locator("details.before")).to_have_count(0)


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_what_tools_returned_is_text_on_the_page(stage: Stage, shown: Window, payload: str) -> None:
    request_id = await asked(stage, payload)
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await shown.page.locator("details.before > summary").click()
    await shown.page.locator(".before .call > summary").first.click()
    await expect(shown.page.locator(".before .call pre").nth(1)).to_be_visible()
    assert await shown.page.evaluate(FOREIGN) == CLEAN
    shown.check()
