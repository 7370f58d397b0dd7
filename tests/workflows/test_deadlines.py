"""Hours pass in a second: deadlines of approvals and requests, and waits that a provider asks for.

The engine's own time skipping gives each run a virtual clock; everything else is the house of the other tests.
"""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.testing import WorkflowEnvironment

from holdfast.health import MemoryHealth
from tests.house import AGENTS, House, open_house

Script = Callable[..., None]

TIMER_STARTED = EventType.EVENT_TYPE_TIMER_STARTED
TIMER_FIRED = EventType.EVENT_TYPE_TIMER_FIRED
ACTIVITY_SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED

_HELD = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[approval]\napprovers = ["ann"]\nwithin = "4h"\n'


@pytest.fixture(scope="module")
async def shared_house(skipping: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose runs skip time."""
    agents = {**AGENTS, "trusting": _HELD + 'default = "approve"\n'}
    hours = count()
    # The engine skips its own time only: for the breakers, too, an hour passes between two looks.
    health = MemoryHealth(clock=lambda: datetime.now(UTC) + timedelta(hours=next(hours)))
    async with open_house(tmp_path_factory.mktemp("house"), skipping.client, agents=agents, health=health) as opened:
        yield opened


async def ended(house: House, request_id: str) -> dict[str, Any]:
    """Wait for the end, over hours that pass by themselves as soon as nothing is under way."""
    await house.ended(request_id)
    return await house.show(request_id)


async def now(house: House, request_id: str) -> datetime:
    """The run's virtual clock, as its last event has it."""
    history = await house.history(request_id)
    return history.events[-1].event_time.ToDatetime(tzinfo=UTC)


async def test_an_approval_nobody_decides_is_rejected_at_its_deadline(house: House) -> None:
    reply = await house.ask("held", "May this leave?")
    final = await ended(house, reply["id"])
    assert final["status"] == "rejected"
    assert final["decided_by"] == "deadline"
    assert "nobody decided before" in final["reason"]
    assert final["answer"] is None
    assert timedelta(hours=4) <= await now(house, reply["id"]) - _time(reply["submitted_at"]) < timedelta(hours=5)


async def test_a_rule_may_release_at_its_deadline(house: House) -> None:
    final = await ended(house, (await house.ask("trusting", "May this leave?"))["id"])
    assert (final["status"], final["decided_by"]) == ("completed", "deadline")
    assert final["answer"]["text"]


async def test_the_deadline_of_the_request_ends_an_approval_that_would_stay_open_longer(house: House) -> None:
    reply = await house.ask("trusting", "May this leave in an hour?", limits={"deadline": "1h"})
    final = await ended(house, reply["id"])
    assert final["status"] == "expired", "the rule's default is for its own deadline only"
    assert "limits.deadline" in final["reason"]
    assert final["answer"] is None
    assert final["decided_by"] is None
    assert await now(house, reply["id"]) - _time(reply["submitted_at"]) < timedelta(hours=2)


async def test_a_long_retry_after_is_slept_through(house: House, script: Script) -> None:
    script({"kind": "rate_limited", "retry_after": 300}, {"kind": "ok", "content": "Patience."})
    final = await ended(house, (await house.submit("plain", "Wait five minutes."))["id"])
    assert final["status"] == "completed", final
    assert final["answer"]["text"] == "Patience."
    assert house.simulator.bill()["requests"] == 1
    history = await house.history(final["id"])
    timers = [event.timer_started_event_attributes for event in history.events if event.event_type == TIMER_STARTED]
    assert [timer.start_to_fire_timeout.ToTimedelta() for timer in timers] == [timedelta(seconds=300)]
    fired = next(event for event in history.events if event.event_type == TIMER_FIRED)
    calls = [event for event in history.events if event.event_type == ACTIVITY_SCHEDULED]
    assert calls[0].event_id < fired.event_id < calls[1].event_id


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(house: House, script: Script) -> None:
    script({"kind": "rate_limited", "retry_after": 7_200})
    final = await ended(house, (await house.submit("plain", "Hurry.", limits={"deadline": "1h"}))["id"])
    assert final["status"] == "expired"
    assert "7200 s" in final["reason"], "the provider's wait is what stands in the way"
    history = await house.history(final["id"])
    assert TIMER_STARTED not in [event.event_type for event in history.events]


async def test_a_decision_after_the_deadline_is_refused_and_changes_nothing(house: House) -> None:
    reply = await house.ask("held", "Too late?")
    final = await ended(house, reply["id"])
    late = await house.decide(reply["id"], "approve", by="ann")
    assert late.status_code == 409, late.text
    assert "ended" in late.json()["detail"]
    again = await house.show(reply["id"])
    assert (again["status"], again["decided_by"]) == (final["status"], final["decided_by"]) == ("rejected", "deadline")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
