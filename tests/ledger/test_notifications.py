"""What happened to approvals and whom to tell, as rows: once each, in one transaction, and by tenant."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from holdfast.contracts import Answer, Status
from holdfast.ledger import ApprovalEvent, Delivery, DeliveryState, FinishedRequest, Ledger

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVENT = ApprovalEvent(
    tenant="acme",
    request_id="req_00000001",
    sequence=1,
    agent="support",
    round=1,
    kind="tool",
    subject="refund",
    happening="opened",
    actor=None,
    reason=None,
    content_sha256="a" * 64,
    stage=0,
    approvers=("ann", "role:finance"),
    deadline=NOW + timedelta(hours=4),
    at=NOW,
)
DELIVERY = Delivery(
    id="msg_1",
    tenant="acme",
    request_id="req_00000001",
    target="webhook:ops",
    event="approval.opened",
    payload="{}",
    created_at=NOW,
)
FINISHED = FinishedRequest(
    tenant="acme",
    user="ada",
    agent="support",
    plan_version="1" * 16,
    submitted_at=NOW,
    finished_at=NOW,
    answer=Answer(request_id="req_00000001", status=Status.REJECTED),
)


async def test_what_happened_to_an_approval_reads_as_it_was_written(ledger: Ledger) -> None:
    later = replace(EVENT, sequence=2, happening="approved", actor="ann", reason="fine", at=NOW + timedelta(hours=1))
    await ledger.approval_events.record(EVENT)
    await ledger.approval_events.record(later)
    assert await ledger.approval_events.list("acme") == (later, EVENT)
    assert await ledger.approval_events.list("acme", until=later.at) == (EVENT,)
    assert await ledger.approval_events.list("acme", since=later.at) == (later,)
    assert await ledger.approval_events.list("acme", limit=1) == (later,)
    assert await ledger.approval_events.list("acme", request_id="req_00000002") == ()


async def test_a_repeated_note_tells_nobody_twice_and_names_the_same_notifications(ledger: Ledger) -> None:
    first = await ledger.approval_events.record(EVENT, [DELIVERY])
    await ledger.deliveries.tried("acme", "msg_1", DeliveryState.SENT, NOW)
    again = await ledger.approval_events.record(EVENT, [DELIVERY, replace(DELIVERY, id="msg_2", target="webhook:new")])
    assert first == again == ("msg_1",)
    (only,) = await ledger.deliveries.list()
    assert only.state is DeliveryState.SENT


async def test_one_tenants_approvals_and_notifications_are_not_anothers(ledger: Ledger) -> None:
    await ledger.approval_events.record(EVENT, [DELIVERY])
    assert await ledger.approval_events.list("globex") == ()
    assert await ledger.deliveries.get("globex", "msg_1") is None
    assert await ledger.deliveries.list(tenant="globex") == ()
    assert not await ledger.deliveries.tried("globex", "msg_1", DeliveryState.SENT, NOW)
    await ledger.deliveries.tried("acme", "msg_1", DeliveryState.DEAD, NOW, problem="HTTP 500")
    assert not await ledger.deliveries.revive("globex", "msg_1")
    dead = await ledger.deliveries.get("acme", "msg_1")
    assert dead is not None
    assert (dead.state, dead.attempts, dead.problem) == (DeliveryState.DEAD, 1, "HTTP 500")


async def test_of_two_who_retry_a_dead_notification_at_once_one_succeeds(ledger: Ledger) -> None:
    await ledger.approval_events.record(EVENT, [DELIVERY])
    await ledger.deliveries.tried("acme", "msg_1", DeliveryState.DEAD, NOW, problem="HTTP 500")
    both = await asyncio.gather(ledger.deliveries.revive("acme", "msg_1"), ledger.deliveries.revive("acme", "msg_1"))
    assert sorted(both) == [False, True]
    (pending,) = await ledger.deliveries.list(states=[DeliveryState.PENDING])
    assert (pending.attempts, pending.ended_at) == (1, None)


async def test_a_notification_that_was_sent_stays_sent(ledger: Ledger) -> None:
    await ledger.approval_events.record(EVENT, [DELIVERY])
    assert await ledger.deliveries.tried("acme", "msg_1", DeliveryState.SENT, NOW)
    assert not await ledger.deliveries.tried("acme", "msg_1", DeliveryState.DEAD, NOW, problem="late")
    assert not await ledger.deliveries.revive("acme", "msg_1")
    assert await ledger.deliveries.list(states=[DeliveryState.DEAD]) == ()


async def test_the_end_of_a_request_and_its_notifications_are_one_transaction(ledger: Ledger) -> None:
    first = await ledger.finish(FINISHED, deliveries=[DELIVERY])
    cancelled = replace(FINISHED, answer=Answer(request_id="req_00000001", status=Status.CANCELLED))
    again = await ledger.finish(cancelled, deliveries=[replace(DELIVERY, payload='{"status":"cancelled"}')])
    assert first.deliveries == again.deliveries == ("msg_1",)
    (only,) = await ledger.deliveries.list()
    assert only.payload == "{}"


async def test_a_request_that_ended_before_anybody_wanted_to_know_tells_nobody(ledger: Ledger) -> None:
    assert (await ledger.finish(FINISHED)).deliveries == ()
    assert (await ledger.finish(FINISHED, deliveries=[DELIVERY])).deliveries == ()
    assert await ledger.deliveries.list() == ()


async def test_old_notifications_are_found_by_their_age(ledger: Ledger) -> None:
    await ledger.approval_events.record(EVENT, [DELIVERY, replace(DELIVERY, id="msg_2", created_at=NOW)])
    await ledger.approval_events.record(
        replace(EVENT, sequence=2), [replace(DELIVERY, id="msg_3", created_at=NOW + timedelta(days=1))]
    )
    found = await ledger.deliveries.list(created_before=NOW + timedelta(hours=1))
    assert {delivery.id for delivery in found} == {"msg_1", "msg_2"}
