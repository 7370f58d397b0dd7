"""Approvals over hours that pass in a second: reminders, escalation by deadline, and what is left at the last one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.testing import WorkflowEnvironment

from holdfast.contracts import EventKind
from holdfast.ledger import ApprovalEvent
from tests.house import AGENTS as PLAIN_AGENTS
from tests.house import House, open_house

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
_CHAIN = (
    '[approval]\napprovers = ["ann", "bob"]\nquorum = 2\nwithin = "4h"\nreminders = ["1h", "3h"]\ndefault = "%s"\n'
    '[[approval.escalation]]\napprovers = ["boss", "chief"]\nwithin = "2h"\n'
    '[[approval.escalation]]\napprovers = ["*"]\nwithin = "30m"\n'
)
AGENTS = {
    **PLAIN_AGENTS,
    "chained": _PLAIN + _CHAIN % "reject",
    "trusting": _PLAIN + _CHAIN % "approve",
}
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
async def shared_house(skipping: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose runs skip time."""
    async with open_house(tmp_path_factory.mktemp("house"), skipping.client, agents=AGENTS) as opened:
        yield opened


async def ended(house: House, agent: str, **body: Any) -> dict[str, Any]:
    """A request that nobody decides, at its end."""
    reply = await house.submit(agent, "May this leave?", **body)
    await house.ended(reply["id"])
    return await house.show(reply["id"])


async def happened(house: House, request_id: str) -> list[ApprovalEvent]:
    """What is on record of a request's approvals, in its order."""
    events = await house.services.ledger.approval_events.list("local", request_id=request_id)
    return sorted(events, key=lambda event: event.sequence)


def after(events: list[ApprovalEvent]) -> list[tuple[str, float]]:
    """What happened, and how many hours after the question was asked, to the minute."""
    return [(event.happening, round((event.at - events[0].at) / HOUR, 1)) for event in events]


async def test_reminders_and_escalations_come_in_their_time_and_the_last_deadline_settles(house: House) -> None:
    final = await ended(house, "chained")
    assert (final["status"], final["decided_by"]) == ("rejected", "deadline")
    events = await happened(house, final["id"])
    assert after(events) == [
        ("opened", 0),
        ("reminded", 1),
        ("reminded", 3),
        ("escalated", 4),
        ("reminded", 5),
        ("escalated", 6),
        ("rejected", 6.5),
    ]
    assert [event.approvers for event in events if event.happening == "escalated"] == [("boss", "chief"), ("*",)]
    assert all(event.actor is None for event in events)


async def test_a_chain_that_nobody_answers_may_release_what_the_model_wrote(house: House) -> None:
    final = await ended(house, "trusting")
    assert (final["status"], final["decided_by"]) == ("completed", "deadline")
    assert [event.happening for event in await happened(house, final["id"])][-1] == "approved"


async def test_the_request_s_own_deadline_ends_the_chain_without_its_default(house: House) -> None:
    final = await ended(house, "trusting", limits={"deadline": "5h"})
    assert (final["status"], final["decided_by"], final["answer"]) == ("expired", None, None)
    events = await happened(house, final["id"])
    assert [event.happening for event in events] == ["opened", "reminded", "reminded", "escalated", "closed"]
    assert events[3].deadline - events[0].at < timedelta(hours=5), "no stage is open longer than the request"


async def test_the_run_sheet_tells_who_was_asked_and_reminded(house: House) -> None:
    final = await ended(house, "chained")
    progress = await house.progress(final["id"])
    told = [event for event in progress.events if event.kind is EventKind.APPROVAL_ESCALATED]
    assert [event.summary.split(" until ")[0] for event in told] == ["to boss, chief", "to *"]
    assert len([event for event in progress.events if event.kind is EventKind.APPROVAL_REMINDED]) == 3
    assert progress.decisions[-1].actor == "deadline"
    assert progress.decisions[-1].decided_at.astimezone(UTC) > datetime.fromisoformat(final["submitted_at"]) + 6 * HOUR
