"""Handing a question to the next people: who may, what is said of it, and what those who are asked next are told."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect

from holdfast.contracts.plan import EscalationStage
from holdfast.ledger import ApprovalEvent
from tests.pages.browsers import Window
from tests.pages.staged import Stage

NEXT_PEOPLE = {"escalation": (EscalationStage(approvers=("boss",), within=timedelta(hours=1)),)}


async def test_escalation_is_offered_while_there_are_next_people(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.", rule=NEXT_PEOPLE)
    await shown.sign_in("ann")
    await shown.page.keyboard.press("x")
    await expect(shown.page.locator(".consequence")).to_have_text("boss decides from now on, not you.")
    await expect(shown.page.locator(".facts")).to_contain_text("boss is asked")
    await shown.page.click(".sure")
    await expect(shown.page.locator(".toast")).to_contain_text("Escalated.")
    assert stage.engine.decisions[0][1].decision == "escalate"


async def test_the_last_people_cannot_escalate_and_are_told_that_it_was(stage: Stage, shown: Window) -> None:
    await stage.ask("Pay.", rule=NEXT_PEOPLE, stage=1)
    await shown.sign_in("boss")
    await expect(shown.page.locator(".note")).to_contain_text("stage 2 of 2")
    await expect(shown.page.locator('[data-verb="escalate"]')).to_have_count(0)


@pytest.mark.parametrize(
    ("actor", "reason", "said"),
    [
        ("carl", "above my limit", "because carl escalated it: above my limit."),
        ("carl", None, "because carl escalated it."),
        (None, "nobody decided before 10:00:00 UTC", "because nobody decided in time."),
    ],
)
async def test_who_is_asked_next_is_told_how_it_came_to_that(
    stage: Stage, shown: Window, actor: str | None, reason: str | None, said: str
) -> None:
    request_id = await stage.ask("Pay.", rule=NEXT_PEOPLE, stage=1)
    await record_escalation(stage, request_id, stage_reached=2, actor="zoe", reason="of another stage")
    await record_escalation(stage, request_id, stage_reached=1, actor=actor, reason=reason)
    await shown.sign_in("boss")
    await expect(shown.page.locator(".note")).to_have_text(
        f"Escalated: you are the next to be asked, stage 2 of 2, {said}"
    )


async def record_escalation(
    stage: Stage, request_id: str, *, stage_reached: int, actor: str | None, reason: str | None
) -> None:
    """Write down that a question was handed on, as the activity does."""
    question = stage.engine.executions[request_id].approval
    assert question is not None
    await stage.ledger.approval_events.record(
        ApprovalEvent(
            tenant="local",
            request_id=request_id,
            sequence=1 + stage_reached,
            agent="refunds",
            round=question.round,
            kind=question.kind,
            subject=question.subject,
            happening="escalated",
            actor=actor,
            reason=reason,
            content_sha256=question.content.sha256,
            stage=stage_reached,
            approvers=question.approvers,
            deadline=question.deadline,
            at=datetime.now(UTC),
        )
    )
