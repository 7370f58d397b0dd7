"""Redis or PostgreSQL gone for ten seconds while requests run: they wait, none is lost, and no check is skipped.

Only the store goes away. The rooms are in this process, so that what a waiting call says of itself can be read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
from sqlalchemy import make_url
from temporalio.client import Client

from holdfast.contracts import AtLimit
from holdfast.errors import Outcome
from holdfast.ledger import Attempt
from holdfast.spending import Period, ScopeKind
from tests.cable import Cable
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.ledger.databases import postgresql_database
from tests.redis_process import RedisProcess

pytestmark = pytest.mark.chaos

OUTAGE_SECONDS = 10
"""The outage itself; nothing is waited for by it."""
QUIET_LOOKS = 20
"""At the model, one after the other, that find nothing under way and nothing new."""

MODELS = """
[deployments.sim]
provider = "openai"
model = "sim-limited"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
concurrency = 3
"""
AGENTS = {"plain": 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'}


@dataclass
class Outage:
    """A house and the store that it is going to miss."""

    house: House
    store: str
    """How errors name it."""
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@asynccontextmanager
async def redis_outage(directory: Path, client: Client) -> AsyncIterator[Outage]:
    server = RedisProcess(directory)
    await server.start()
    shared = {"url": server.url, "prefix": "outage"}
    try:
        async with open_house(
            directory, client, agents=AGENTS, models=MODELS, sandbox=False, settings={"shared": shared}
        ) as house:
            yield Outage(house, f"Redis at 127.0.0.1:{server.port}", server.kill, server.start)
    finally:
        await server.kill()


@asynccontextmanager
async def postgresql_outage(directory: Path, client: Client) -> AsyncIterator[Outage]:
    async with postgresql_database() as address:
        url = make_url(address)
        cable = Cable(url.host or "127.0.0.1", url.port or 5432)
        await cable.plug()
        ledger = {"url": url.set(host="127.0.0.1", port=cable.port).render_as_string(hide_password=False)}
        try:
            async with open_house(
                directory, client, agents=AGENTS, models=MODELS, sandbox=False, settings={"ledger": ledger}
            ) as house:
                yield Outage(house, f"127.0.0.1:{cable.port}", cable.cut, cable.plug)
        finally:
            await cable.cut()


OUTAGES = {"redis": redis_outage, "postgresql": postgresql_outage}


@pytest.fixture(params=OUTAGES)
async def outage(request: pytest.FixtureRequest, tmp_path: Path, temporal_client: Client) -> AsyncIterator[Outage]:
    """A house whose store is still there."""
    async with OUTAGES[request.param](tmp_path, temporal_client) as opened:
        yield opened


async def test_requests_wait_for_the_store_and_none_goes_past_a_check(outage: Outage) -> None:
    house, simulator = outage.house, outage.house.simulator
    await house.services.ledger.budgets.set(
        "local", ScopeKind.USER, "poor", Period.DAY, tokens=10, at_limit=AtLimit.BLOCK
    )
    simulator.script({"kind": "ok", "first_token_ms": 500, "model": "sim-limited", "times": 1_000})
    asked = [insist(house, "ada", number) for number in range(8)] + [insist(house, "poor", 8)]
    submitting = [asyncio.ensure_future(one) for one in asked]
    await house.until_the_model_is_called()

    await outage.begin()
    submitting += [asyncio.ensure_future(insist(house, "ada", number)) for number in range(9, 14)]
    await quiet(house)
    before = len(simulator.calls())
    await asyncio.sleep(OUTAGE_SECONDS)
    assert len(simulator.calls()) == before, "nothing is sent that could not be checked"
    # A call says so between two tries only, and only those whose submitter has heard back can be asked.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(outage.store in said for said in await complaints(house, submitting)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await outage.end()

    ended = [await house.show(request_id, wait=60) for request_id, _ in await asyncio.gather(*submitting)]
    statuses = [reply["status"] for reply in ended]
    assert statuses == ["completed"] * 8 + ["denied"] + ["completed"] * 5
    bill = {entry["client_request_id"]: entry for entry in simulator.bill()["entries"]}
    recorded = {
        attempt.attempt_id: attempt
        for reply in ended
        for attempt in await house.services.ledger.attempts.list(reply["id"])
    }
    assert set(bill) <= set(recorded)
    assert len(simulator.calls()) == statuses.count("completed"), "a reply that could not be booked is not paid again"
    assert most_at_once([attempt for attempt in recorded.values() if attempt.outcome is Outcome.OK]) <= 3
    for attempt_id, entry in bill.items():
        assert recorded[attempt_id].usage.total_tokens >= entry["prompt_tokens"] + entry["completion_tokens"]
    poor = ended[8]["id"]
    assert not any(attempt_id.startswith(poor) for attempt_id in bill)


async def insist(house: House, user: str, number: int) -> tuple[str, list[str]]:
    """Submit under one key until it is taken; what was said meanwhile."""
    heard: list[str] = []
    while True:
        reply = await house.http.post(
            "/v1/requests",
            json={"agent": "plain", "input": f"Question {number}"},
            headers={"X-Holdfast-User": user, "Idempotency-Key": f"{house.settings.engine.task_queue}-{number}"},
        )
        if reply.status_code in (200, 202):
            return str(reply.json()["id"]), heard
        assert reply.status_code == 503, reply.text
        heard.append(reply.text)
        await asyncio.sleep(0.2)


async def quiet(house: House) -> None:
    """Wait until no call is under way, nor on its way to the model: those that were let through before have ended."""
    looks, arrived = 0, -1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while looks < QUIET_LOOKS:
            await asyncio.sleep(0.1)
            calls = house.simulator.calls()
            at_rest = len(calls) == arrived and all(call["ended"] is not None for call in calls)
            looks, arrived = looks + 1 if at_rest else 0, len(calls)


async def complaints(house: House, submitting: Sequence["asyncio.Future[tuple[str, list[str]]]"]) -> list[str]:
    """What waiting calls say stands in their way."""
    said = []
    for one in submitting:
        if one.done():
            described = await house.client.get_workflow_handle(one.result()[0]).describe()
            pending = described.raw_description.pending_activities
            said += [activity.last_failure.message for activity in pending]
            said += one.result()[1]
    return said


def most_at_once(answered: Iterable[Attempt]) -> int:
    """How many of the answered calls were under way at the same time, at most."""
    moments = [(attempt.opened_at, 1) for attempt in answered if attempt.settled_at]
    moments += [(attempt.settled_at, -1) for attempt in answered if attempt.settled_at]
    return max(accumulate(change for _, change in sorted(moments)), default=0)
