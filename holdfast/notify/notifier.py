"""Tells: composes what is to be told, makes one attempt at a time, and keeps the ledger's row of each notification.

An attempt is recorded after it was made. If the process dies in between, it is made again under the same id: every
notification arrives at least once, and a receiver can tell a repetition by its id.
"""

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.addresses import Resolver, system_resolver
from holdfast.contracts import NoteInput, Notified, Request, Status
from holdfast.errors import ContentMissing
from holdfast.ledger import Delivery, DeliveryState, Ledger
from holdfast.notify.configuration import Notifications
from holdfast.notify.mail import Mailer
from holdfast.notify.messages import EMAIL, WEBHOOK, Addresses, Links, ended_messages, note_messages
from holdfast.notify.pace import next_wait
from holdfast.notify.sending import Attempted
from holdfast.notify.webhooks import Webhooks
from holdfast.telemetry import Metrics, NotificationOutcome

AT_ONCE = 8
"""Attempts at one target at the same time, in one process: a slow one must not take every place from the others."""
PATIENCE = timedelta(seconds=1)
"""How long an attempt waits for one of them to be over, if the target accepted what it was sent last. Of a burst, what
does not wait comes back after `first_wait`, most of it in vain, and each time the engine has the work of an attempt."""


_OUTCOMES: Mapping[DeliveryState, NotificationOutcome] = {
    DeliveryState.PENDING: "retried",
    DeliveryState.SENT: "delivered",
    DeliveryState.DEAD: "dead",
}


@dataclass(frozen=True)
class Later:
    """It was not accepted, and will be tried again."""

    wait: timedelta
    problem: str


class Notifier:
    """Everything about notifications but the waiting between attempts.

    Args:
        ledger: Where notifications are kept.
        notifications: Who is told what.
        people: Who the approvers are, and their addresses.
        links: Where people look.
        metrics: Where what comes of attempts is recorded; without one, nowhere.
        resolve: Replaces the operating system's resolver.
        mailer: Replaces the one that the settings make.
    """

    def __init__(
        self,
        ledger: Ledger,
        notifications: Notifications,
        people: Addresses,
        links: Links,
        metrics: Metrics | None = None,
        *,
        resolve: Resolver = system_resolver,
        mailer: Mailer | None = None,
    ) -> None:
        self._ledger = ledger
        self._notifications = notifications
        self._people = people
        self._links = links
        self._metrics = metrics or Metrics()
        self._webhooks = Webhooks(notifications.pace.timeout, resolve=resolve)
        self._mailer = mailer or Mailer(notifications.pace.timeout)
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._away: set[str] = set()
        """Targets that did not accept what they were sent last."""

    def of_note(self, note: NoteInput) -> tuple[Delivery, ...]:
        """The notifications of what happened to an approval."""
        return note_messages(note, self._notifications, self._people, self._links)

    def of_end(
        self, request: Request, status: Status, at: datetime, *, content_sha256: str | None, decided_by: str | None
    ) -> tuple[Delivery, ...]:
        """The notifications of a request's end."""
        return ended_messages(
            request,
            status,
            self._notifications,
            self._people,
            self._links,
            at,
            content_sha256=content_sha256,
            decided_by=decided_by,
        )

    async def attempt(self, tenant: str, delivery_id: str, waited: timedelta) -> Notified | Later:
        """Try once to deliver a notification, if it has not ended.

        Args:
            tenant: Whose.
            delivery_id: Which.
            waited: How long it has been on its way, since it was written down or last taken up again.

        Raises:
            ContentMissing: The ledger has no such notification of the tenant.
            Unavailable: The ledger does not answer; the attempt may have been made.
        """
        delivery = await self._ledger.deliveries.get(tenant, delivery_id)
        if delivery is None:
            raise ContentMissing(f"Notification {delivery_id} is not in the ledger.")
        if delivery.state is not DeliveryState.PENDING:
            return _told(delivery)
        pace = self._notifications.pace
        async with self._place(delivery.target) as free:
            if not free:
                problem = "the target is busy with other notifications"
                if (wait := next_wait(pace, waited, spread=_chance())) is not None:
                    return Later(wait, problem)
                return await self._end(delivery, DeliveryState.DEAD, f"given up: {problem}")
            attempted = await self._send(delivery)
        if not attempted.problem:
            return await self._end(delivery, DeliveryState.SENT)
        if attempted.for_good:
            return await self._end(delivery, DeliveryState.DEAD, attempted.problem)
        wait = next_wait(pace, waited, asked=attempted.retry_after, spread=_chance() / 10)
        if wait is None:
            return await self._end(delivery, DeliveryState.DEAD, f"given up: {attempted.problem}")
        await self._record(tenant, delivery_id, DeliveryState.PENDING, attempted.problem)
        return Later(wait, attempted.problem)

    async def bury(self, tenant: str, delivery_id: str, problem: str) -> None:
        """Put a notification that nobody will try again on the dead-letter list."""
        await self._record(tenant, delivery_id, DeliveryState.DEAD, problem)

    async def _send(self, delivery: Delivery) -> Attempted:
        attempted = await self._attempted(delivery)
        if attempted.problem:
            self._away.add(_receiver(delivery.target))
        else:
            self._away.discard(_receiver(delivery.target))
        return attempted

    async def _attempted(self, delivery: Delivery) -> Attempted:
        kind, name = delivery.target.partition(":")[0] + ":", delivery.target.partition(":")[2]
        if kind == WEBHOOK:
            hook = self._notifications.webhooks.get(name)
            if hook is None:
                return Attempted(f"notifications.toml has no webhook {name!r} any more", for_good=True)
            return await self._webhooks.send(hook, delivery.id, delivery.payload)
        server, address = self._notifications.email, self._people.email_of(delivery.tenant, name)
        if kind != EMAIL or server is None:
            return Attempted("notifications.toml has no `[email]` any more", for_good=True)
        if not address:
            # The file may be unreadable while somebody edits it.
            return Attempted(f"people.toml has no e-mail address of {name!r} now")
        return await self._mailer.send(server, address, delivery.id, json.loads(delivery.payload), datetime.now(UTC))

    async def _end(self, delivery: Delivery, state: DeliveryState, problem: str | None = None) -> Notified:
        if not await self._record(delivery.tenant, delivery.id, state, problem):
            # Somebody else was faster; theirs is on record.
            ended = await self._ledger.deliveries.get(delivery.tenant, delivery.id)
            if ended is not None and ended.state is not DeliveryState.PENDING:
                return _told(ended)
        return Notified(state="sent" if state is DeliveryState.SENT else "dead", detail=problem or "")

    async def _record(self, tenant: str, delivery_id: str, state: DeliveryState, problem: str | None) -> bool:
        now = datetime.now(UTC)
        tried = await self._ledger.deliveries.tried(tenant, delivery_id, state, now, problem=problem)
        if tried is None:
            return False
        self._metrics.notified(_receiver(tried.target), tried.event, _OUTCOMES[state], now - tried.created_at)
        return True

    @asynccontextmanager
    async def _place(self, target: str) -> AsyncIterator[bool]:
        receiver = _receiver(target)
        places = self._places[receiver]
        if places.locked() and receiver in self._away:
            yield False
            return
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await places.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            places.release()


def _receiver(target: str) -> str:
    """Each person's mailbox is a target, but all of them are behind one server; nor may metrics tell people apart."""
    return EMAIL.rstrip(":") if target.startswith(EMAIL) else target


def _chance() -> float:
    return secrets.randbelow(1_000) / 1_000


def _told(delivery: Delivery) -> Notified:
    sent = delivery.state is DeliveryState.SENT
    return Notified(state="sent" if sent else "dead", detail="" if sent else delivery.problem or "")
