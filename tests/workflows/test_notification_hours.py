"""A receiver that is away for hours, or for good: the hours pass in seconds, by the engine's own time skipping."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from holdfast.contracts import NotifyRun
from holdfast.ledger import Delivery, DeliveryState
from tests.house import AGENTS, House, open_house
from tests.notify.receiver import OK, Receiver, reply
from tests.notify.targets import SECRET

TOML = """
[webhooks.ops]
url = "%s"
secret_env = "OPS_SECRET"
private_hosts = ["127.0.0.1"]
http = true
"""


CHAIN = (
    'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
    '[approval]\napprovers = ["ann"]\nwithin = "4h"\nreminders = ["1h"]\n'
    '[[approval.escalation]]\napprovers = ["boss"]\nwithin = "2h"\n'
)


@pytest.fixture(scope="module")
async def shared_receiver() -> AsyncIterator[Receiver]:
    """The module's receiver."""
    async with Receiver() as opened:
        yield opened


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Receiver:
    """The receiver, away, as if nothing had been sent."""
    shared_receiver.received.clear()
    shared_receiver.always = reply(503)
    return shared_receiver


@pytest.fixture(scope="module")
async def shared_house(
    skipping: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory, shared_receiver: Receiver
) -> AsyncIterator[House]:
    """A house that tells the receiver."""
    async with open_house(
        tmp_path_factory.mktemp("house"),
        skipping.client,
        agents={**AGENTS, "chain": CHAIN},
        notifications=TOML % shared_receiver.url,
        environment={"OPS_SECRET": SECRET},
    ) as opened:
        yield opened


async def ended(house: House, message_id: str) -> tuple[Delivery, WorkflowHandle[object, object]]:
    """Wait for the end of a notification's run, over hours that pass by themselves."""
    handle = house.client.get_workflow_handle(f"notify-{message_id}")
    async with asyncio.timeout(120):
        await handle.result()
    delivery = await house.services.ledger.deliveries.get("local", message_id)
    assert delivery is not None
    return delivery, handle


async def test_a_receiver_that_is_down_for_hours_is_told_when_it_is_back(house: House, receiver: Receiver) -> None:
    receiver.script += [reply(503)] * 8
    receiver.always = OK
    await house.ask("plain", "Are you back?")
    (first, *_) = await receiver.until(1)
    delivery, handle = await ended(house, first.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.SENT, 9)
    assert {message.id for message in receiver.received} == {first.id}
    assert len({message.body for message in receiver.received}) == 1
    events = (await handle.fetch_history()).events
    assert events[-1].event_time.ToDatetime() - events[0].event_time.ToDatetime() > timedelta(hours=5)
    scheduled = [event for event in events if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED]
    assert len(scheduled) == 1, "attempts leave no trace in the history"


async def test_a_receiver_that_stays_away_is_given_up_after_a_day_and_can_be_told_later(
    house: House, receiver: Receiver
) -> None:
    await house.ask("plain", "Will you ever be back?")
    (first, *_) = await receiver.until(1)
    delivery, _ = await ended(house, first.id)
    assert (delivery.state, delivery.problem) == (DeliveryState.DEAD, "given up: HTTP 503")
    # Four hours apart at last; how many that makes of a day depends on the spread, and on how long the first ones took.
    assert 11 <= delivery.attempts <= 13
    receiver.always = OK
    assert await house.services.ledger.deliveries.revive("local", first.id)
    await house.client.execute_workflow(
        "NotificationWorkflow",
        NotifyRun(tenant="local", deliveries=(first.id,)),
        id=f"retry-{first.id}",
        task_queue=house.settings.engine.task_queue,
    )
    again = await house.services.ledger.deliveries.get("local", first.id)
    assert again is not None
    assert (again.state, again.attempts) == (DeliveryState.SENT, delivery.attempts + 1)


async def test_a_retry_after_of_hours_is_kept(house: House, receiver: Receiver) -> None:
    receiver.script.append(reply(429, Retry_After="36000"))
    receiver.always = OK
    await house.ask("plain", "Later?")
    (first, *_) = await receiver.until(1)
    delivery, handle = await ended(house, first.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.SENT, 2)
    events = (await handle.fetch_history()).events
    assert events[-1].event_time.ToDatetime() - events[0].event_time.ToDatetime() >= timedelta(hours=10)


async def test_whoever_is_asked_is_reminded_before_the_deadline_and_the_next_are_asked_after_it(
    house: House, receiver: Receiver
) -> None:
    receiver.always = OK
    await house.submit("chain", "Does nobody decide?")
    events = [json.loads(message.body) for message in await receiver.until(6)]
    # The end has the worker's own time, which skips nothing.
    told = sorted(events, key=lambda event: (event["type"] == "request.completed", str(event["timestamp"])))
    assert [(event["type"], event["data"].get("approvers")) for event in told] == [
        ("approval.opened", ["ann"]),
        ("approval.reminder", ["ann"]),
        ("approval.escalated", ["boss"]),
        ("approval.reminder", ["boss"]),
        ("approval.decided", ["boss"]),
        ("request.completed", None),
    ]
    assert [event["data"]["status"] for event in told[-2:]] == ["rejected", "rejected"]


async def test_a_request_whose_time_is_up_is_told_as_expired(house: House, receiver: Receiver) -> None:
    receiver.always = OK
    await house.submit("held", "In time?", limits={"deadline": "1h"})
    events = [json.loads(message.body) for message in await receiver.until(3)]
    assert {event["type"]: event["data"]["status"] for event in events} == {
        "approval.opened": "waiting",
        "approval.closed": "closed",
        "request.completed": "expired",
    }
