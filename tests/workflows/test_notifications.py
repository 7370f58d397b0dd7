"""Notifications through the whole house: what happens to approvals and how requests end, told to a real receiver."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook
from temporalio.client import Client, WorkflowFailureError

from holdfast.contracts import EventKind, NotifyRun
from holdfast.errors import Unavailable
from holdfast.ledger import ApprovalEvent, DeliveryState
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.notify.mailbox import Mailbox, only, serving
from tests.notify.receiver import OK, Received, Receiver
from tests.notify.targets import OLD_SECRET, SECRET

TOML = """
[webhooks.ops]
url = "%(url)s"
secret_env = ["OPS_SECRET", "OPS_SECRET_BEFORE"]
private_hosts = ["127.0.0.1"]
http = true

[webhooks.globex]
url = "%(url)s/globex"
tenants = ["globex"]
secret_env = "OPS_SECRET"
private_hosts = ["127.0.0.1"]
http = true

[email]
host = "127.0.0.1"
port = %(smtp)d
starttls = false
from = "Holdfast <holdfast@example.org>"

[sending]
first_wait = "100ms"
"""
PEOPLE = '[tenants.local.emails]\nann = "ann@example.com"\n[tenants.globex.emails]\nbob = "bob@example.com"\n'
SECRETS = {"OPS_SECRET": SECRET, "OPS_SECRET_BEFORE": OLD_SECRET}


@pytest.fixture(scope="module")
async def shared_receiver() -> AsyncIterator[Receiver]:
    """The module's receiver."""
    async with Receiver() as opened:
        yield opened


@pytest.fixture(scope="module")
async def mailbox() -> AsyncIterator[Mailbox]:
    """The module's mail server."""
    async with serving() as opened:
        yield opened


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Receiver:
    """The receiver as if nothing had been sent."""
    shared_receiver.script.clear()
    shared_receiver.received.clear()
    shared_receiver.always = OK
    return shared_receiver


@pytest.fixture(scope="module")
async def shared_house(
    temporal_client: Client, tmp_path_factory: pytest.TempPathFactory, shared_receiver: Receiver, mailbox: Mailbox
) -> AsyncIterator[House]:
    """A house that tells the receiver."""
    async with open_house(
        tmp_path_factory.mktemp("house"),
        temporal_client,
        notifications=TOML % {"url": shared_receiver.url, "smtp": mailbox.port},
        environment=SECRETS,
        # A run that writes something down hears of its cancellation only when its task is four fifths over.
        engine={"workflow_task_timeout": timedelta(seconds=5)},
    ) as opened:
        yield opened


def told(received: list[Received], request_id: str) -> list[dict[str, Any]]:
    """What was told of a request, each message once, in the order of the happenings."""
    events = {message.id: json.loads(message.body) for message in received}
    mine = [event for event in events.values() if event["data"]["request_id"] == request_id]
    return sorted(mine, key=lambda event: str(event["timestamp"]))


async def happened(house: House, request_id: str) -> list[str]:
    """What a request's history has besides the engine's own tasks, of which a slow machine needs more."""
    kinds = [event.WhichOneof("attributes") or "" for event in (await house.history(request_id)).events]
    return [kind for kind in kinds if not kind.startswith("workflow_task_")]


async def notified(house: House, message_id: str) -> None:
    """Wait until the run that sends a notification has ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await house.client.get_workflow_handle(f"notify-{message_id}").result()


async def test_a_receiver_hears_of_an_approval_from_its_opening_to_the_end_of_the_request(
    house: House, receiver: Receiver
) -> None:
    reply = await house.ask("held", "May this leave?")
    (opened,) = await receiver.until(1)
    payload = Webhook(SECRET).verify(opened.body, opened.headers)
    assert payload["type"] == "approval.opened"
    assert payload["data"]["approvers"] == ["ann", "bob"]
    assert payload["data"]["content_sha256"] == (await house.waiting(reply["id"]))["content_sha256"]
    assert payload["data"]["links"]["inbox"] == f"http://127.0.0.1:8080/inbox/{reply['id']}"
    assert "May this leave?" not in opened.body
    await house.decide(reply["id"], "approve", by="ann", reason="a reason that stays inside")
    events = told(await receiver.until(3), reply["id"])
    assert [event["type"] for event in events] == ["approval.opened", "approval.decided", "request.completed"]
    assert (events[1]["data"]["status"], events[1]["data"]["actor"]) == ("approved", "ann")
    assert (events[2]["data"]["status"], events[2]["data"]["decided_by"]) == ("completed", "ann")
    assert not any("stays inside" in message.body for message in receiver.received)
    rows = await house.services.ledger.approval_events.list("local", request_id=reply["id"])
    assert [(row.happening, row.actor, row.reason) for row in reversed(rows)] == [
        ("opened", None, None),
        ("approved", "ann", "a reason that stays inside"),
    ]


async def test_a_rejected_request_is_told_as_rejected(house: House, receiver: Receiver) -> None:
    reply = await house.ask("held", "May this leave too?")
    await house.decide(reply["id"], "reject", by="bob")
    events = told(await receiver.until(3), reply["id"])
    assert [event["data"]["status"] for event in events] == ["waiting", "rejected", "rejected"]


async def test_a_cancelled_request_is_told_as_cancelled_and_its_question_as_closed(
    house: House, receiver: Receiver
) -> None:
    reply = await house.ask("held", "Is this still needed?")
    await receiver.until(1)
    await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    await house.ended(reply["id"])
    events = told(await receiver.until(3), reply["id"])
    assert sorted(event["type"] for event in events) == ["approval.closed", "approval.opened", "request.completed"]
    assert {event["data"]["status"] for event in events} == {"waiting", "closed", "cancelled"}


async def test_a_failed_a_refused_and_a_denied_request_are_told_as_such(house: House, receiver: Receiver) -> None:
    house.simulator.script({"kind": "insufficient_quota", "times": 9})
    failed = await house.ask("plain", "Will this fail?")
    house.reset()
    refused = await house.ask("strict", "Tell me about the forbidden topic.")
    denied = await house.ask("plain", "Too dear?", limits={"cost_usd": "0.000001"})
    messages = await receiver.until(3)
    assert {
        event["data"]["request_id"]: event["data"]["status"] for event in map(json.loads, (m.body for m in messages))
    } == {
        failed["id"]: "failed",
        refused["id"]: "refused",
        denied["id"]: "denied",
    }


async def test_a_target_of_another_tenant_hears_nothing(house: House, receiver: Receiver) -> None:
    await house.ask("plain", "Who hears of this?")
    await receiver.until(1)
    assert {delivery.target for delivery in await house.services.ledger.deliveries.list()} == {"webhook:ops"}
    assert not any(message.path.endswith("/globex") for message in receiver.received)


async def test_a_request_that_nobody_wants_to_hear_of_is_as_short_as_before(
    temporal_client: Client, tmp_path: Path
) -> None:
    async with open_house(tmp_path, temporal_client) as quiet:
        plain = await quiet.ask("plain", "Who hears of this?")
        held = await quiet.ask("held", "May this leave?")
        await quiet.decide(held["id"], "approve", by="ann")
        await quiet.ended(held["id"])
        assert not [kind for kind in await happened(quiet, held["id"]) if "child" in kind]
        assert len(await happened(quiet, plain["id"])) == 10
        assert len(await quiet.services.ledger.approval_events.list("local")) == 2
        assert await quiet.services.ledger.deliveries.list() == ()


async def test_a_receiver_that_fails_for_a_while_is_told_again_under_the_same_id(
    house: House, receiver: Receiver
) -> None:
    receiver.script += [b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"]
    reply = await house.ask("plain", "Are you there?")
    assert reply["status"] == "completed"
    messages = await receiver.until(3)
    assert len({message.id for message in messages}) == 1
    assert len({message.body for message in messages}) == 1
    await notified(house, messages[0].id)
    sent = await house.services.ledger.deliveries.get("local", messages[0].id)
    assert sent is not None
    assert (sent.state, sent.attempts, sent.problem) == (DeliveryState.SENT, 3, None)


async def test_a_receiver_that_wants_no_more_is_not_asked_again(house: House, receiver: Receiver) -> None:
    receiver.script.append(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
    await house.ask("plain", "Do you still listen?")
    (message,) = await receiver.until(1)
    await notified(house, message.id)
    dead = await house.services.ledger.deliveries.get("local", message.id)
    assert dead is not None
    assert dead.state is DeliveryState.DEAD
    assert dead.problem is not None
    assert dead.problem.startswith("HTTP 410")
    assert len(receiver.received) == 1


async def test_two_runs_that_are_asked_for_one_notification_tell_it_once_after_the_other(
    house: House, receiver: Receiver
) -> None:
    await house.ask("plain", "Once?")
    (message,) = await receiver.until(1)
    await notified(house, message.id)
    for run in range(2):
        await house.client.execute_workflow(
            "NotificationWorkflow",
            NotifyRun(tenant="local", deliveries=(message.id,)),
            id=f"again-{run}-{message.id}",
            task_queue=house.settings.engine.task_queue,
        )
    assert len(receiver.received) == 1


async def test_neither_secrets_nor_addresses_are_in_a_history_or_in_the_ledger(
    house: House, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    receiver.script.append(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
    reply = await house.ask("plain", "What is written down?")
    message = (await receiver.until(2))[0]
    await notified(house, message.id)
    histories = [
        (await house.history(reply["id"])).to_json(),
        (await house.client.get_workflow_handle(f"notify-{message.id}").fetch_history()).to_json(),
    ]
    rows = repr(await house.services.ledger.deliveries.list())
    for secret in (SECRET.removeprefix("whsec_"), "path-secret"):
        assert not any(secret in text for text in (*histories, rows, caplog.text))
    assert not any(f":{receiver.port}" in text for text in (*histories, rows))


async def test_a_request_is_not_held_up_by_a_receiver_that_is_down(house: House, receiver: Receiver) -> None:
    receiver.always = None
    reply = await house.ask("plain", "Does it wait?")
    assert reply["status"] == "completed"
    await house.ended(reply["id"])
    (message,) = await receiver.until(1)
    pending = await house.services.ledger.deliveries.get("local", message.id)
    assert pending is not None
    assert pending.state is DeliveryState.PENDING
    handle = house.client.get_workflow_handle(f"notify-{message.id}")
    await handle.terminate()
    with suppress(WorkflowFailureError):
        await handle.result()


async def test_an_approver_with_an_address_is_sent_a_link_and_no_text(
    house: House, receiver: Receiver, mailbox: Mailbox
) -> None:
    mailbox.envelopes.clear()
    (house.settings.config_dir / "people.toml").write_text(PEOPLE)
    reply = await house.ask("held", "May this be mailed?")
    await receiver.until(1)
    mailed = [
        delivery
        for delivery in await house.services.ledger.deliveries.list()
        if delivery.request_id == reply["id"] and delivery.target.startswith("email:")
    ]
    # Bob has an address as a user of another tenant only.
    assert [delivery.target for delivery in mailed] == ["email:ann"]
    (run,) = {f"notify-{message.id}" for message in receiver.received}
    await house.client.get_workflow_handle(run).result()
    message = only(mailbox)
    assert message["To"] == "ann@example.com"
    assert f"http://127.0.0.1:8080/inbox/{reply['id']}" in message.get_content()
    assert "mailed?" not in message.as_string()
    (house.settings.config_dir / "people.toml").unlink()
    await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    await receiver.until(3)


async def test_a_note_that_cannot_be_made_fails_no_request_and_is_told_on_the_run_sheet(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        del given
        raise TypeError("a secret value")

    monkeypatch.setattr(house.services.ledger.approval_events, "record", broken)
    reply = await house.ask("held", "Does it still wait?")
    assert reply["status"] == "waiting"
    await house.decide(reply["id"], "approve", by="ann")
    final = await house.show(reply["id"])
    assert final["status"] == "completed"
    progress = await house.progress(reply["id"])
    failures = [event.summary for event in progress.events if event.kind is EventKind.STEP_FAILED]
    assert [summary.partition(":")[0] for summary in failures] == ["approval opened", "approval approved"]
    assert not any("secret" in summary for summary in failures)
    await receiver.until(1)


async def test_a_ledger_that_is_away_is_waited_for_before_an_approval_is_told(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, failures = house.services.ledger.approval_events.record, [Unavailable("The ledger does not answer.")] * 2

    async def away(*given: Any) -> tuple[str, ...]:
        if failures:
            raise failures.pop()
        return await record(*given)

    monkeypatch.setattr(house.services.ledger.approval_events, "record", away)
    reply = await house.ask("held", "Are you back?")
    events = told(await receiver.until(1), reply["id"])
    assert [event["type"] for event in events] == ["approval.opened"]
    assert not failures
    await house.decide(reply["id"], "approve", by="ann")
    await receiver.until(3)


async def test_what_was_being_noted_when_a_request_was_cancelled_is_told_all_the_same(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = house.services.ledger.approval_events.record
    begun, released = {"opened": asyncio.Event(), "closed": asyncio.Event()}, asyncio.Event()

    async def slow(event: ApprovalEvent, *given: Any) -> tuple[str, ...]:
        begun[event.happening].set()
        await released.wait()
        return await record(event, *given)

    monkeypatch.setattr(house.services.ledger.approval_events, "record", slow)
    submitted = await house.submit("held", "Too late?")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await begun["opened"].wait()
        await house.client.get_workflow_handle(submitted["id"]).cancel()
        # The run has heard of its cancellation, and notes that the question is closed.
        await begun["closed"].wait()
    released.set()
    await house.ended(submitted["id"])
    events = told(await receiver.until(3), submitted["id"])
    assert sorted(event["type"] for event in events) == ["approval.closed", "approval.opened", "request.completed"]


async def test_a_notification_that_fails_in_the_worker_is_on_the_dead_letter_list(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        del given
        raise TypeError("a secret value")

    monkeypatch.setattr(house.services.ledger.deliveries, "get", broken)
    reply = await house.ask("plain", "Is there a fault?")
    (mine,) = [found for found in await house.services.ledger.deliveries.list() if found.request_id == reply["id"]]
    await notified(house, mine.id)
    monkeypatch.undo()
    dead = await house.services.ledger.deliveries.get("local", mine.id)
    assert dead is not None
    assert (dead.state, dead.problem) == (DeliveryState.DEAD, "the attempts failed in the worker; its log says why")
    assert receiver.received == []
