"""The agent's list in order, without what cannot answer; and somebody rather than nobody."""

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.route import Route
from holdfast.configuration import Deployment, TimeoutSettings
from holdfast.contracts import Routed, RouteInput
from holdfast.errors import Outcome
from holdfast.ledger import Ledger

DEPLOYMENTS = {
    "fast": Deployment(provider="extractive", model="m", timeouts=TimeoutSettings(total=timedelta(seconds=30))),
    "slow": Deployment(provider="extractive", model="m", timeouts=TimeoutSettings(total=timedelta(minutes=5))),
    "off": Deployment(provider="extractive", model="m", enabled=False),
}


async def routed(running: ActivityEnvironment, ledger: Ledger, *names: str, excluded: tuple[str, ...] = ()) -> Routed:
    """Route among deployments."""
    step = Route(DEPLOYMENTS, ledger, timedelta(seconds=9))
    return await running.run(step.route, RouteInput(deployments=names, excluded=excluded))


async def down(ledger: Ledger, name: str, wait: timedelta) -> None:
    """Have a deployment ask for patience."""
    await ledger.health.record(name, Outcome.RATE_LIMITED, now=datetime.now(UTC), retry_after=wait)


async def test_the_first_of_the_list_is_called(running: ActivityEnvironment, ledger: Ledger) -> None:
    chosen = await routed(running, ledger, "slow", "fast")
    assert chosen.deployment == "slow"
    assert "first choice" in chosen.reason
    assert chosen.call_timeout > DEPLOYMENTS["slow"].timeouts.total, "the call's own bound must come first"
    assert chosen.heartbeat_timeout == timedelta(seconds=9)


@pytest.mark.parametrize("missing", ["off", "unheard_of"])
async def test_what_is_not_enabled_is_skipped_by_name(
    running: ActivityEnvironment, ledger: Ledger, missing: str
) -> None:
    chosen = await routed(running, ledger, missing, "fast")
    assert chosen.deployment == "fast"
    assert f"{missing} is not enabled" in chosen.reason


async def test_what_failed_this_request_is_skipped(running: ActivityEnvironment, ledger: Ledger) -> None:
    chosen = await routed(running, ledger, "slow", "fast", excluded=("slow",))
    assert chosen.deployment == "fast"
    assert "slow failed this request" in chosen.reason


async def test_what_is_down_is_skipped_with_time_and_reason(running: ActivityEnvironment, ledger: Ledger) -> None:
    await down(ledger, "slow", timedelta(minutes=1))
    chosen = await routed(running, ledger, "slow", "fast")
    assert chosen.deployment == "fast"
    assert "slow is down until" in chosen.reason
    assert "rate_limited" in chosen.reason


async def test_when_all_are_down_the_first_to_recover_is_called(running: ActivityEnvironment, ledger: Ledger) -> None:
    await down(ledger, "slow", timedelta(minutes=2))
    await down(ledger, "fast", timedelta(minutes=1))
    assert (await routed(running, ledger, "slow", "fast")).deployment == "fast"
    assert (await routed(running, ledger, "slow", "fast", excluded=("fast",))).deployment == "slow"


async def test_when_nothing_is_left_the_reason_names_everyone(running: ActivityEnvironment, ledger: Ledger) -> None:
    chosen = await routed(running, ledger, "slow", "off", "fast", excluded=("slow", "fast"))
    assert chosen.deployment is None
    for name in ("slow", "off", "fast"):
        assert name in chosen.reason
