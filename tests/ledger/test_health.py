"""Which deployments are down."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.errors import Outcome
from holdfast.ledger import Health, Ledger

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def record(ledger: Ledger, *outcomes: Outcome, at: datetime = NOON) -> None:
    for outcome in outcomes:
        await ledger.health.record("large", outcome, now=at)


async def test_three_failures_in_a_row_take_a_deployment_down_for_30_seconds(ledger: Ledger) -> None:
    await record(ledger, Outcome.OVERLOADED, Outcome.UNKNOWN)
    assert await ledger.health.down(NOON) == {}
    await record(ledger, Outcome.NOT_SENT)
    down = (await ledger.health.down(NOON))["large"]
    assert down.until == NOON + 30 * SECOND
    assert "3 failures in a row" in down.reason
    assert await ledger.health.down(NOON + 30 * SECOND) == {}


async def test_a_success_between_failures_starts_the_count_anew(ledger: Ledger) -> None:
    await record(ledger, Outcome.OVERLOADED, Outcome.OVERLOADED, Outcome.OK, Outcome.OVERLOADED, Outcome.OVERLOADED)
    assert await ledger.health.down(NOON) == {}


async def test_after_the_pause_one_more_failure_takes_it_down_again(ledger: Ledger) -> None:
    await record(ledger, *[Outcome.OVERLOADED] * 3)
    later = NOON + 40 * SECOND
    assert await ledger.health.down(later) == {}
    await record(ledger, Outcome.OVERLOADED, at=later)
    assert (await ledger.health.down(later))["large"].until == later + 30 * SECOND


async def test_a_success_brings_a_deployment_back(ledger: Ledger) -> None:
    await record(ledger, Outcome.BILLING, Outcome.OK)
    assert await ledger.health.down(NOON) == {}


@pytest.mark.parametrize("outcome", [Outcome.BILLING, Outcome.AUTHENTICATION])
async def test_a_deployment_without_access_is_down_for_five_minutes_at_once(ledger: Ledger, outcome: Outcome) -> None:
    await record(ledger, outcome)
    assert (await ledger.health.down(NOON))["large"] == (NOON + 300 * SECOND, outcome.value)


async def test_a_shorter_outage_does_not_shorten_a_longer_one(ledger: Ledger) -> None:
    await record(ledger, Outcome.BILLING, *[Outcome.OVERLOADED] * 3)
    assert (await ledger.health.down(NOON))["large"].until == NOON + 300 * SECOND


@pytest.mark.parametrize(("seconds", "is_down"), [(5, False), (6, True), (3600, True)])
async def test_a_long_retry_after_is_honoured_in_full_and_a_short_one_ignored(
    ledger: Ledger, seconds: int, is_down: bool
) -> None:
    await ledger.health.record("large", Outcome.RATE_LIMITED, now=NOON, retry_after=seconds * SECOND)
    down = await ledger.health.down(NOON)
    assert (down["large"].until == NOON + seconds * SECOND) if is_down else (down == {})


@pytest.mark.parametrize(
    "outcome", [Outcome.CONTEXT_LENGTH, Outcome.CONTENT_FILTER, Outcome.INVALID_REQUEST, Outcome.CANCELLED]
)
async def test_faults_of_the_request_are_not_held_against_the_deployment(ledger: Ledger, outcome: Outcome) -> None:
    await record(ledger, *[outcome] * 5)
    assert await ledger.health.down(NOON) == {}
    await record(ledger, Outcome.OVERLOADED, Outcome.OVERLOADED, outcome, Outcome.OVERLOADED)
    assert "large" in await ledger.health.down(NOON)


async def test_what_another_process_recorded_shows_after_a_second(ledger: Ledger) -> None:
    other = Health(ledger.database)
    assert await other.down(NOON) == {}
    await record(ledger, Outcome.BILLING)
    assert await other.down(NOON + SECOND / 2) == {}
    assert "large" in await other.down(NOON + SECOND)


async def test_deployments_are_judged_apart(ledger: Ledger) -> None:
    await ledger.health.record("small", Outcome.BILLING, now=NOON)
    assert list(await ledger.health.down(NOON)) == ["small"]
