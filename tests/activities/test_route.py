"""The agent's list in order, without what cannot answer; and somebody rather than nobody."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.route import Route
from holdfast.contracts import Routed, RouteInput
from holdfast.deployments import Deployment, TimeoutSettings
from holdfast.errors import Outcome
from holdfast.health import MemoryHealth
from holdfast.ledger import Ledger
from holdfast.prices import Prices
from holdfast.router import Router
from tests.house import HashedWords

URL = "http://127.0.0.1:1/v1"
DEPLOYMENTS = {
    "fast": Deployment(
        provider="openai", model="f", base_url=URL, timeouts=TimeoutSettings(total=timedelta(seconds=30))
    ),
    "slow": Deployment(
        provider="openai", model="s", base_url=URL, timeouts=TimeoutSettings(total=timedelta(minutes=5))
    ),
    "off": Deployment(provider="openai", model="o", base_url=URL, enabled=False),
    "here": Deployment(provider="extractive", model="m"),
}


@pytest.fixture
async def health() -> AsyncIterator[MemoryHealth]:
    """Nobody has failed yet."""
    opened = MemoryHealth()
    yield opened
    await opened.aclose()


async def routed(ledger: Ledger, health: MemoryHealth, *names: str, excluded: tuple[str, ...] = ()) -> Routed:
    """Route among deployments."""
    router = Router(DEPLOYMENTS, Prices(), ledger, health, HashedWords())
    step = Route(router, DEPLOYMENTS, timedelta(seconds=9))
    return await ActivityEnvironment().run(step.route, RouteInput(deployments=names, excluded=excluded))


async def down(health: MemoryHealth, name: str, wait: timedelta) -> None:
    """Have a deployment ask for patience."""
    await health.record(
        DEPLOYMENTS[name].health_key, Outcome.RATE_LIMITED, first_token=None, duration=None, retry_after=wait
    )


async def test_the_first_of_the_list_is_called(ledger: Ledger, health: MemoryHealth) -> None:
    chosen = await routed(ledger, health, "slow", "fast")
    assert chosen.deployment == "slow"
    assert chosen.call_timeout > DEPLOYMENTS["slow"].timeouts.total, "the call's own bound must come first"
    assert chosen.heartbeat_timeout == timedelta(seconds=9)
    assert not chosen.in_process


async def test_what_answers_in_this_process_needs_no_queue(ledger: Ledger, health: MemoryHealth) -> None:
    assert (await routed(ledger, health, "here")).in_process


@pytest.mark.parametrize("missing", ["off", "unheard_of"])
async def test_what_is_not_enabled_is_skipped(ledger: Ledger, health: MemoryHealth, missing: str) -> None:
    assert (await routed(ledger, health, missing, "fast")).deployment == "fast"


async def test_what_failed_this_request_is_skipped(ledger: Ledger, health: MemoryHealth) -> None:
    chosen = await routed(ledger, health, "slow", "fast", excluded=("slow",))
    assert chosen.deployment == "fast"
    assert "slow failed this request" in chosen.reason


async def test_what_is_down_is_skipped_with_its_reason(ledger: Ledger, health: MemoryHealth) -> None:
    await down(health, "slow", timedelta(minutes=1))
    chosen = await routed(ledger, health, "slow", "fast")
    assert chosen.deployment == "fast"
    assert "slow" in chosen.reason


async def test_when_all_are_down_the_first_to_recover_is_called(ledger: Ledger, health: MemoryHealth) -> None:
    await down(health, "slow", timedelta(minutes=2))
    await down(health, "fast", timedelta(minutes=1))
    assert (await routed(ledger, health, "slow", "fast")).deployment == "fast"
    assert (await routed(ledger, health, "slow", "fast", excluded=("fast",))).deployment == "slow"


async def test_when_nothing_is_left_the_reason_names_everyone(ledger: Ledger, health: MemoryHealth) -> None:
    chosen = await routed(ledger, health, "slow", "off", "fast", excluded=("slow", "fast"))
    assert chosen.deployment is None
    for name in ("slow", "off", "fast"):
        assert name in chosen.reason
