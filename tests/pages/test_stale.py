"""A question that was decided or has ended while somebody was about to decide it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pytest
from playwright.async_api import expect

from holdfast.contracts import Status
from holdfast.errors import DecisionRefused
from holdfast.ledger import ApprovalEvent
from tests.pages.browsers import Window
from tests.pages.staged import Stage


async def record(
    stage: Stage,
    request_id: str,
    happening: Literal["opened", "approved", "rejected", "closed"],
    *,
    sequence: int,
    actor: str | None = None,
    reason: str | None = None,
) -> None:
    """What happened to a question, on record."""
    now = datetime.now(UTC)
    await stage.ledger.approval_events.record(
        ApprovalEvent(
            tenant="local",
            request_id=request_id,
            sequence=sequence,
            agent="refunds",
            round=1,
            kind="output",
            subject="",
            happening=happening,
            actor=actor,
            reason=reason,
            content_sha256="0" * 64,
            stage=0,
            approvers=("ann", "bob"),
            deadline=now,
            at=now,
        )
    )


async def decide_elsewhere(stage: Stage, request_id: str, refusal: DecisionRefused) -> None:
    """Bob decides; the index, and so the list, lags behind until `settle`."""
    await record(stage, request_id, "opened", sequence=1)
    await record(stage, request_id, "rejected", sequence=2, actor="bob", reason="paid <b>before</b>")
    stage.engine.refusal = refusal


@pytest.mark.parametrize(
    "refusal",
    [
        DecisionRefused("The request has ended; there is nothing left to decide.", code="not_open"),
        DecisionRefused("'bob' already decided 'reject'; a decision is final.", code="already_decided"),
        DecisionRefused("The approval closed; ask again with a new request.", code="too_late"),
    ],
    ids=lambda refusal: refusal.code,
)
async def test_a_question_that_is_over_cannot_be_decided_and_says_how_it_ended(
    stage: Stage, shown: Window, refusal: DecisionRefused
) -> None:
    request_id = await stage.ask("Pay.")
    shown.allowed = ("409",)
    await shown.sign_in("ann")
    page = shown.page
    await expect(page.locator("article .due")).to_be_visible()
    await page.click('[data-verb="edit"]')
    await page.fill("#payload", "Pay half.")
    # Of the text that is fetched after the refusal, only the list is late: the request itself has no question now.
    await decide_elsewhere(stage, request_id, refusal)

    async def ended(route: object) -> None:
        stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
        await route.continue_()  # type: ignore[attr-defined]

    await page.route("**/inbox/*part=question", ended)
    await page.click(".sure")
    await expect(page.locator(".decide .problem")).to_contain_text(str(refusal))
    await expect(page.locator(".decide .outcome")).to_contain_text("bob rejected the answer")
    await expect(page.locator(".decide .outcome q")).to_have_text("paid <b>before</b>")
    await expect(page.locator(".sure")).to_be_disabled()
    await expect(page.locator("article .due")).to_be_hidden()
    await expect(page.locator("article .while-open")).to_be_hidden()
    # What was written stays, and more of it is not to be sent either.
    await page.fill("#payload", "Pay a third.")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".sure")).to_be_disabled()
    await expect(page.locator("[data-verb]:enabled")).to_have_count(0)
    assert len(stage.engine.decisions) == 0
    await expect(page.locator("#payload")).to_have_value("Pay a third.")


async def test_back_from_a_question_that_is_over_shows_how_it_stands(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    shown.allowed = ("409",)
    await shown.sign_in("ann")
    await shown.page.click('[data-verb="approve"]')
    await decide_elsewhere(stage, request_id, DecisionRefused("It has ended.", code="not_open"))
    await shown.page.click(".sure")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("It has ended.")
    stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
    await shown.page.click("[data-back]")
    await expect(shown.page.locator("article.settled .outcome")).to_contain_text("bob rejected the answer")


async def test_a_default_that_was_taken_names_nobody(stage: Stage, shown: Window) -> None:
    request_id = await stage.ask("Pay.")
    await record(stage, request_id, "rejected", sequence=1, reason="nobody decided in time")
    stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await expect(shown.page.locator(".outcome")).to_contain_text("Nobody decided in time")


@pytest.mark.parametrize("happening", ["opened", "closed"])
async def test_an_earlier_decision_is_not_told_of_a_later_question(
    stage: Stage, shown: Window, happening: Literal["opened", "closed"]
) -> None:
    request_id = await stage.ask("Pay.")
    await record(stage, request_id, "approved", sequence=1, actor="bob")
    await record(stage, request_id, happening, sequence=2)
    stage.engine.put(replace(stage.engine.executions[request_id], status=Status.RUNNING, approval=None))
    await shown.sign_in("ann", f"/inbox/{request_id}")
    await expect(shown.page.locator("article.settled")).to_contain_text("Nothing waits here now")
    await expect(shown.page.locator(".outcome")).to_have_count(0)


async def test_a_complaint_about_a_text_goes_when_the_text_is_mended(stage: Stage, shown: Window) -> None:
    await stage.ask('{"x": 1}')
    stage.engine.refusal = DecisionRefused("The edited text is not valid: /x: not an integer", code="invalid_edit")
    shown.allowed = ("422",)
    await shown.sign_in("ann")
    await shown.page.keyboard.press("e")
    await shown.page.fill("#payload", '{"x": "one"}')
    await shown.page.keyboard.press("Control+Enter")
    await expect(shown.page.locator(".decide .problem")).to_contain_text("/x: not an integer")
    await expect(shown.page.locator(".sure")).to_be_enabled()
    await shown.page.fill("#payload", '{"x": 2}')
    await expect(shown.page.locator(".decide .problem")).to_be_hidden()
