"""The traps of the best gateways' limits and queues, each as a test that it does not catch us."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import redis.asyncio
from sqlalchemy import make_url
from temporalio.client import Client

from holdfast.contracts import AtLimit, Limits, SpendScopes, Usage
from holdfast.errors import LimitExceeded, Unavailable
from holdfast.ledger import AttemptKey, Ledger, Opened
from holdfast.limits import Admitted, Limiter, MemoryLimiter, RedisLimiter, Scope, Wait
from holdfast.spending import Period, ScopeKind
from tests.cable import Cable
from tests.house import open_house
from tests.ledger.databases import postgresql_database
from tests.services import redis_url

HOLD = Usage(input_tokens=100, cost_usd=Decimal("0.01"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the ledger is."""
    return f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"


async def call(ledger: Ledger, request: str, limits: Limits, now: datetime | None = None) -> Opened:
    """Ask to make one call, of a turn of its own."""
    attempts = await ledger.attempts.totals(request)
    opened = await ledger.attempts.open(
        AttemptKey("acme", request, attempts.attempts + 1),
        deployment="d",
        model="m",
        hold=HOLD,
        limits=limits,
        scopes=SpendScopes(tenant="acme", user="ada"),
        now=now,
    )
    assert isinstance(opened, Opened)
    return opened


async def test_trap_6_the_attempt_budget_outlives_time_and_restarts(url: str) -> None:
    """Trap 6: LiteLLM's `max_iterations` counter expires an hour after the first call. A request may live for days."""
    limits = Limits(attempts=3, deadline=timedelta(days=30))
    began = datetime(2026, 6, 1, tzinfo=UTC)
    for attempt in range(3):
        ledger = await Ledger.open(url)
        await call(ledger, "req_1", limits, began + attempt * timedelta(days=7))
        await ledger.aclose()
    ledger = await Ledger.open(url)
    for later in (timedelta(hours=1), timedelta(days=29)):
        with pytest.raises(LimitExceeded, match="3 model calls"):
            await call(ledger, "req_1", limits, began + timedelta(days=14) + later)
    assert (await ledger.attempts.totals("req_1")).attempts == 3
    await ledger.aclose()


async def test_trap_6_without_its_store_nothing_is_counted_in_memory_instead() -> None:
    """Trap 6: that counter falls back to the process's memory when Redis is down, and every process starts at zero."""
    async with AsyncExitStack() as stack:
        database = make_url(await stack.enter_async_context(postgresql_database()))
        cable = Cable(database.host or "127.0.0.1", database.port or 5432)
        await cable.plug()
        stack.push_async_callback(cable.cut)
        here = database.set(host="127.0.0.1", port=cable.port).render_as_string(hide_password=False)
        ledger = await Ledger.open(here)
        stack.push_async_callback(ledger.aclose)
        limits = Limits(attempts=1)
        await cable.cut()
        with pytest.raises(Unavailable, match="does not answer"):
            await call(ledger, "req_1", limits)
        await cable.plug()
        await call(ledger, "req_1", limits)
        with pytest.raises(LimitExceeded, match="1 model call"):
            await call(ledger, "req_1", limits)


@pytest.mark.parametrize("bound", ["the request's tokens", "the request's money", "the tenant's budget"])
async def test_trap_7_calls_at_the_same_moment_do_not_overshoot(url: str, bound: str) -> None:
    """Trap 7: Envoy and Bifrost charge after the reply, so every call that is under way fits the same rest."""
    limits, requests = Limits(tokens=350, attempts=50), ["req_1"]
    if bound == "the request's money":
        limits = Limits(cost_usd=Decimal("0.035"), attempts=50)
    ledgers = [await Ledger.open(url) for _ in range(2)]
    if bound == "the tenant's budget":
        limits, requests = Limits(), [f"req_{number}" for number in range(40)]
        await ledgers[0].budgets.set("acme", ScopeKind.TENANT, "acme", Period.TOTAL, tokens=350, at_limit=AtLimit.BLOCK)

    async def ask(number: int) -> Opened | LimitExceeded:
        try:
            opened = await ledgers[number % 2].attempts.open(
                AttemptKey("acme", requests[number % len(requests)], number + 1),
                deployment="d",
                model="m",
                hold=HOLD,
                limits=limits,
                scopes=SpendScopes(tenant="acme", user="ada"),
            )
        except LimitExceeded as denied:
            return denied
        assert isinstance(opened, Opened)
        return opened

    results = await asyncio.gather(*(ask(number) for number in range(40)))
    assert sum(isinstance(result, Opened) for result in results) == 3
    for ledger in ledgers:
        await ledger.aclose()


@pytest.fixture(params=["memory", "redis"])
async def limiters(request: pytest.FixtureRequest) -> AsyncIterator[list[Limiter]]:
    """What two workers ask: the same limiter, or one each over the same server."""
    if request.param == "memory":
        yield [MemoryLimiter()] * 2
        return
    url, prefix = redis_url(), f"test-{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        client = redis.asyncio.Redis.from_url(url)
        stack.push_async_callback(client.aclose)
        shared: list[Limiter] = [RedisLimiter(url, prefix) for _ in range(2)]
        for one in shared:
            stack.push_async_callback(one.aclose)
        yield shared
        if keys := [key async for key in client.scan_iter(match=f"*{prefix}*")]:
            await client.delete(*keys)


async def test_trap_8_waiting_calls_keep_their_places_whoever_asks_at_the_same_time(limiters: list[Limiter]) -> None:
    """Trap 8: LiteLLM's scheduler reads its queue from Redis, changes it and writes it back without a lock: whoever
    writes last wins, and the others' requests are gone from the queue."""
    scope = Scope("d", concurrency=4)

    async def look(ticket: int) -> Admitted | Wait:
        return await limiters[ticket % 2].admit(f"ticket-{ticket}", [scope], 1)

    waiting, served = list(range(40)), list[int]()
    while waiting:
        answers = await asyncio.gather(*(look(ticket) for ticket in waiting))
        admitted = {
            ticket: answer for ticket, answer in zip(waiting, answers, strict=True) if isinstance(answer, Admitted)
        }
        assert len(admitted) == min(4, len(waiting)), "neither lost nor too many"
        served += admitted
        waiting = [ticket for ticket in waiting if ticket not in admitted]
        for ticket, answer in admitted.items():
            await limiters[ticket % 2].settle(answer, 1)
    assert sorted(served) == list(range(40))


async def test_trap_8_a_request_that_waits_for_long_is_served_and_does_not_fail(
    temporal_client: Client, tmp_path: Path
) -> None:
    """Trap 8: that scheduler polls, and raises when its time is up. Here a call waits in the engine's own queue: that
    is no failure and no attempt, and only the request's own deadline ends it."""
    async with open_house(tmp_path, temporal_client, sandbox=False) as house:
        # Two at a time, so the last waits for five others.
        house.simulator.script({"kind": "ok", "first_token_ms": 800, "model": "sim-narrow", "times": 12})
        replies = await asyncio.gather(*(house.ask("throttled", f"Question {number}") for number in range(12)))
        assert {(reply["status"], reply["attempts"]) for reply in replies} == {("completed", 1)}
        assert house.simulator.bill(entries=False)["requests"] == 12
