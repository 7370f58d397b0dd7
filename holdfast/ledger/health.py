"""Which deployments are down, as seen by all workers together through the ledger.

A deployment goes down after failures in a row, an exhausted account, a wrong key or a long Retry-After. When the time
is over it may be tried again; if it was down for failures, the first one more takes it down again.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, or_, select

from holdfast.errors import Outcome
from holdfast.ledger.database import Database
from holdfast.ledger.schema import deployment_health

FAILURES = 3
"""Failures in a row that take a deployment down."""
DOWN_AFTER_FAILURES = timedelta(seconds=30)
DOWN_WITHOUT_ACCESS = timedelta(minutes=5)
"""After an outcome that waiting does not mend: no credit, or a wrong key."""
PATIENCE = timedelta(seconds=5)
"""A shorter Retry-After is waited for; a longer one sends calls elsewhere."""
LONGEST_OUTAGE = timedelta(days=1)
"""A provider that asks for more has made a mistake, or means "never"; either way it is asked again tomorrow."""
CACHE_FOR = timedelta(seconds=1)


class Down(NamedTuple):
    """A deployment not to be called."""

    until: datetime
    reason: str


@dataclass(frozen=True)
class Condition:
    """What is known of a deployment."""

    consecutive_failures: int = 0
    down_until: datetime | None = None
    reason: str | None = None


def after(condition: Condition, outcome: Outcome, now: datetime, retry_after: timedelta | None = None) -> Condition:
    """The condition of a deployment after one more call. Pure; a shorter outage never shortens a longer one."""
    if outcome is Outcome.OK:
        return Condition()
    if outcome.counts_against_health:
        failures = condition.consecutive_failures + 1
        counted = replace(condition, consecutive_failures=failures)
        if failures < FAILURES:
            return counted
        return _down(counted, now + DOWN_AFTER_FAILURES, f"{failures} failures in a row, the last one {outcome.value}")
    if outcome in (Outcome.BILLING, Outcome.AUTHENTICATION):
        return _down(condition, now + DOWN_WITHOUT_ACCESS, outcome.value)
    if outcome is Outcome.RATE_LIMITED and retry_after is not None and retry_after > PATIENCE:
        return _down(condition, now + min(retry_after, LONGEST_OUTAGE), outcome.value)
    return condition


class Health:
    """The shared record of deployments' health."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._select = select(deployment_health).where(deployment_health.c.deployment == bindparam("of_deployment"))
        self._select_troubled = select(deployment_health).where(
            or_(deployment_health.c.down_until.is_not(None), deployment_health.c.consecutive_failures > 0)
        )
        self._store = database.insert_or_replace(deployment_health)
        self._troubled: dict[str, Condition] = {}
        self._cached_at: datetime | None = None

    async def record(
        self, deployment: str, outcome: Outcome, *, now: datetime | None = None, retry_after: timedelta | None = None
    ) -> None:
        """Take note of how a call ended.

        Args:
            deployment: The deployment called.
            outcome: How the call ended.
            now: The present, UTC; the clock's by default.
            retry_after: How long the provider asked to wait, if it did.
        """
        moment = now or datetime.now(UTC)
        key = {"of_deployment": deployment}
        if outcome is Outcome.OK and deployment not in await self._refreshed(moment):
            return  # The common case, a success of a healthy deployment, asks nothing of the database.
        async with self._database.read() as reading:
            before = _condition((await reading.execute(self._select, key)).one_or_none())
        if after(before, outcome, moment, retry_after) == before:
            return
        async with self._database.write() as connection:
            await self._database.lock(connection, f"holdfast.health.{deployment}")
            before = _condition((await connection.execute(self._select, key)).one_or_none())
            now_known = after(before, outcome, moment, retry_after)
            await connection.execute(
                self._store,
                {
                    "deployment": deployment,
                    "consecutive_failures": now_known.consecutive_failures,
                    "down_until": now_known.down_until,
                    "reason": now_known.reason,
                },
            )
        self._cached_at = None

    async def down(self, now: datetime | None = None) -> dict[str, Down]:
        """The deployments that are down at `now`; what other processes recorded shows within a second."""
        moment = now or datetime.now(UTC)
        return {
            deployment: Down(condition.down_until, condition.reason or "")
            for deployment, condition in (await self._refreshed(moment)).items()
            if condition.down_until is not None and condition.down_until > moment
        }

    async def _refreshed(self, moment: datetime) -> dict[str, Condition]:
        """The deployments with failures on record, at most a second old."""
        if self._cached_at is None or not timedelta(0) <= moment - self._cached_at < CACHE_FOR:
            async with self._database.read() as reading:
                rows = await reading.execute(self._select_troubled)
            self._troubled = {row.deployment: _condition(row) for row in rows}
            self._cached_at = moment
        return self._troubled


def _down(condition: Condition, until: datetime, reason: str) -> Condition:
    if condition.down_until is not None and condition.down_until >= until:
        return condition
    return replace(condition, down_until=until, reason=reason)


def _condition(row: Row[Any] | None) -> Condition:
    if row is None:
        return Condition()
    return Condition(row.consecutive_failures, row.down_until, row.reason)
