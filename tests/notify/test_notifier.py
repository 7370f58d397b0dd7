"""Attempts and their record: at least once under one id, given up in time, and never another tenant's."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.contracts import Notified
from holdfast.errors import ContentMissing, Unavailable
from holdfast.ledger import Delivery, DeliveryState, Ledger
from holdfast.notify import Later, Links, Notifications, Notifier
from holdfast.notify.notifier import AT_ONCE
from tests.notify.receiver import Receiver, reply
from tests.notify.targets import People, hook, mail_server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """Where the test's ledger is."""
    return f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    opened = await Ledger.open(ledger_url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that accepts."""
    async with Receiver() as opened:
        yield opened


async def put(ledger: Ledger, *ids: str, target: str = "webhook:ops") -> None:
    """Put notifications in line."""
    made = [Delivery(name, "acme", "req_00000001", target, "request.completed", '{"type":"x"}', NOW) for name in ids]
    await ledger.database.write(lambda connection: ledger.deliveries.add_in(connection, made))


def notifier(ledger: Ledger, receiver: Receiver, **changes: Any) -> Notifier:
    """A notifier that knows the receiver as `ops`."""
    told = Notifications({"ops": hook(receiver.url)}, **changes)
    return Notifier(ledger, told, People(), Links("http://127.0.0.1:8080"))


async def row(ledger: Ledger, name: str = "msg_1") -> Delivery:
    """A notification as the ledger has it."""
    found = await ledger.deliveries.get("acme", name)
    assert found is not None
    return found


async def test_what_was_accepted_is_recorded_and_not_sent_again(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    for _ in range(2):
        assert await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0)) == Notified(state="sent")
    assert len(receiver.received) == 1
    assert (await row(ledger)).state is DeliveryState.SENT


async def test_what_was_not_accepted_waits_with_its_reason(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    receiver.script.append(reply(500))
    later = await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0))
    assert isinstance(later, Later)
    assert timedelta(seconds=5) <= later.wait <= timedelta(seconds=5.5)
    waiting = await row(ledger)
    assert (waiting.state, waiting.attempts, waiting.problem) == (DeliveryState.PENDING, 1, "HTTP 500")


async def test_a_receivers_retry_after_is_kept(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    receiver.script.append(reply(429, Retry_After="7200"))
    later = await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0))
    assert later == Later(timedelta(hours=2), "HTTP 429")


async def test_after_a_day_a_notification_is_dead_and_says_why(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    receiver.always = reply(503)
    assert isinstance(await notifier(ledger, receiver).attempt("acme", "msg_1", DAY / 2), Later)
    dead = Notified(state="dead", detail="given up: HTTP 503")
    assert await notifier(ledger, receiver).attempt("acme", "msg_1", DAY) == dead
    assert await notifier(ledger, receiver).attempt("acme", "msg_1", DAY) == dead
    assert len(receiver.received) == 2
    assert (await row(ledger)).state is DeliveryState.DEAD


async def test_a_notification_of_another_tenant_is_not_sent(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    with pytest.raises(ContentMissing):
        await notifier(ledger, receiver).attempt("globex", "msg_1", timedelta(0))
    assert receiver.connections == 0


async def test_a_target_that_was_taken_out_of_the_file_is_told_nothing_more(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1", target="webhook:gone")
    await put(ledger, "msg_2", target="email:ann")
    for name in ("msg_1", "msg_2"):
        ended = await notifier(ledger, receiver).attempt("acme", name, timedelta(0))
        assert isinstance(ended, Notified)
        assert ended.state == "dead"
        assert "notifications.toml" in ended.detail


async def test_somebody_without_an_address_may_get_one_until_the_mail_is_given_up(
    ledger: Ledger, receiver: Receiver
) -> None:
    await put(ledger, "msg_1", target="email:ann")
    waiting = await notifier(ledger, receiver, email=mail_server(1)).attempt("acme", "msg_1", timedelta(0))
    assert isinstance(waiting, Later)
    assert waiting.problem == "people.toml has no e-mail address of 'ann' now"


async def test_a_burst_is_told_at_once_and_not_turned_away(ledger: Ledger, receiver: Receiver) -> None:
    names = [f"msg_{number}" for number in range(4 * AT_ONCE)]
    await put(ledger, *names)
    one = notifier(ledger, receiver)
    ended = await asyncio.gather(*(one.attempt("acme", name, timedelta(0)) for name in names))
    assert ended == [Notified(state="sent")] * len(names)
    assert len(receiver.received) == len(names)


async def test_a_receiver_that_is_away_is_waited_for_by_nobody(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Waiting would never end.
    monkeypatch.setattr("holdfast.notify.notifier.PATIENCE", timedelta(days=1))
    names = [f"msg_{number}" for number in range(AT_ONCE + 2)]
    await put(ledger, *names)
    one = notifier(ledger, receiver)
    receiver.script.append(reply(503))
    assert isinstance(await one.attempt("acme", names[0], timedelta(0)), Later)
    receiver.always = None
    slow = [asyncio.create_task(one.attempt("acme", name, timedelta(0))) for name in names[1:-1]]
    await receiver.until(AT_ONCE + 1)
    turned_away = await one.attempt("acme", names[-1], timedelta(0))
    assert isinstance(turned_away, Later)
    assert turned_away.problem == "the target is busy with other notifications"
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_slow_receiver_leaves_places_for_others(ledger: Ledger, receiver: Receiver) -> None:
    names = [f"msg_{number}" for number in range(AT_ONCE + 1)]
    await put(ledger, *names)
    receiver.always = None
    one = notifier(ledger, receiver)
    slow = [asyncio.create_task(one.attempt("acme", name, timedelta(0))) for name in names[:-1]]
    await receiver.until(AT_ONCE)
    turned_away = await one.attempt("acme", names[-1], timedelta(0))
    assert isinstance(turned_away, Later)
    assert turned_away.problem == "the target is busy with other notifications"
    assert (await row(ledger, names[-1])).attempts == 0
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    receiver.always = reply(204)
    assert await one.attempt("acme", names[-1], timedelta(0)) == Notified(state="sent")


async def test_a_ledger_that_is_away_after_the_sending_has_it_sent_again_under_the_same_id(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(ledger, "msg_1")

    async def away(*given: object, **named: object) -> bool:
        del given, named
        raise Unavailable("The ledger does not answer.")

    with monkeypatch.context() as context:
        context.setattr(ledger.deliveries, "tried", away)
        with pytest.raises(Unavailable):
            await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0))
    assert await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0)) == Notified(state="sent")
    assert [message.id for message in receiver.received] == ["msg_1", "msg_1"]
    assert len({message.body for message in receiver.received}) == 1


async def test_a_worker_killed_between_sending_and_recording_sends_again_under_the_same_id(
    ledger: Ledger, ledger_url: str, receiver: Receiver
) -> None:
    await put(ledger, "msg_1")
    receiver.script.append(None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.notify.sender", ledger_url, receiver.url, "msg_1"
    )
    await receiver.until(1)
    process.kill()
    await process.wait()
    assert (await row(ledger)).attempts == 0
    assert await notifier(ledger, receiver).attempt("acme", "msg_1", timedelta(0)) == Notified(state="sent")
    assert [message.id for message in receiver.received] == ["msg_1", "msg_1"]


async def test_of_two_attempts_at_once_the_record_is_one(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    one, other = notifier(ledger, receiver), notifier(ledger, receiver)
    both = await asyncio.gather(*(each.attempt("acme", "msg_1", timedelta(0)) for each in (one, other)))
    assert both == [Notified(state="sent")] * 2
    assert (await row(ledger)).attempts == 1
    assert {message.id for message in receiver.received} == {"msg_1"}


async def test_what_failed_in_the_worker_is_on_the_dead_letter_list(ledger: Ledger, receiver: Receiver) -> None:
    await put(ledger, "msg_1")
    await notifier(ledger, receiver).bury("acme", "msg_1", "the attempts failed in the worker")
    dead = await row(ledger)
    assert (dead.state, dead.problem) == (DeliveryState.DEAD, "the attempts failed in the worker")
