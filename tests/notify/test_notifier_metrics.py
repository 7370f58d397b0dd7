"""What is measured of notifications: what the ledger has on record, once, and never who an e-mail goes to."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.ledger import Delivery, DeliveryState, Ledger
from holdfast.notify import Links, Notifications, Notifier
from tests.notify.receiver import Receiver, reply
from tests.notify.targets import People, hook
from tests.telemetry.measured import Measured, keyed

OPS = {"holdfast__target": "webhook:ops", "holdfast__event": "approval.opened"}
ATTEMPTS = "holdfast.notification.attempts"
TIME = "holdfast.notification.time"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that accepts."""
    async with Receiver() as opened:
        yield opened


@pytest.fixture
def measured() -> Measured:
    """Metrics of this test."""
    return Measured()


@pytest.fixture
def notifier(ledger: Ledger, receiver: Receiver, measured: Measured) -> Notifier:
    """A notifier that knows the receiver as `ops`."""
    told = Notifications({"ops": hook(receiver.url)})
    return Notifier(ledger, told, People(), Links("http://127.0.0.1:8080"), measured.metrics)


async def put(ledger: Ledger, *, target: str = "webhook:ops", ago: timedelta = timedelta(0)) -> None:
    """Put a notification in line, of what happened some time ago."""
    happened = datetime.now(UTC) - ago
    made = Delivery("msg_1", "acme", "req_00000001", target, "approval.opened", '{"type":"x"}', happened)
    await ledger.database.write(lambda connection: ledger.deliveries.add_in(connection, [made]))


async def test_each_attempt_is_counted_by_what_came_of_it_and_the_time_is_that_since_the_event(
    ledger: Ledger, receiver: Receiver, notifier: Notifier, measured: Measured
) -> None:
    await put(ledger, ago=timedelta(hours=1))
    receiver.script += [reply(500), reply(503)]
    for _ in range(4):
        await notifier.attempt("acme", "msg_1", timedelta(0))
    assert measured.values(ATTEMPTS) == {
        keyed(**OPS, holdfast__outcome="retried"): 2,
        keyed(**OPS, holdfast__outcome="delivered"): 1,
    }
    (time,) = measured.values(TIME).values()
    assert timedelta(hours=1) <= timedelta(seconds=time) < timedelta(hours=2)


@pytest.mark.parametrize("ended", ["refused", "given up", "buried"])
async def test_a_dead_letter_is_counted_once_however_it_came_to_be_one(
    ledger: Ledger, receiver: Receiver, notifier: Notifier, measured: Measured, ended: str
) -> None:
    await put(ledger)
    receiver.always = reply(410 if ended == "refused" else 503)
    for _ in range(2):
        if ended == "buried":
            await notifier.bury("acme", "msg_1", "the attempts failed in the worker")
        else:
            await notifier.attempt("acme", "msg_1", timedelta(days=1))
    assert measured.values(ATTEMPTS) == {keyed(**OPS, holdfast__outcome="dead"): 1}
    assert measured.values(TIME) == {}


async def test_of_two_attempts_at_once_the_one_that_is_on_record_is_counted(
    ledger: Ledger, notifier: Notifier, measured: Measured
) -> None:
    await put(ledger)
    await asyncio.gather(*(notifier.attempt("acme", "msg_1", timedelta(0)) for _ in range(2)))
    kept = await ledger.deliveries.get("acme", "msg_1")
    assert kept is not None
    assert (kept.state, kept.attempts) == (DeliveryState.SENT, 1)
    assert measured.values(ATTEMPTS) == {keyed(**OPS, holdfast__outcome="delivered"): 1}


async def test_who_an_e_mail_goes_to_is_on_no_metric(ledger: Ledger, notifier: Notifier, measured: Measured) -> None:
    await put(ledger, target="email:ann")
    await notifier.attempt("acme", "msg_1", timedelta(0))
    mailed = {"holdfast__target": "email", "holdfast__event": "approval.opened"}
    assert measured.values(ATTEMPTS) == {keyed(**mailed, holdfast__outcome="dead"): 1}
