"""The health of deployments in process and on a real Redis, on a clock that the test sets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.breaker import Verdict
from holdfast.errors import Outcome
from holdfast.health import Admission, Health, MemoryHealth, RedisHealth
from tests.limits.conftest import redis_prefix

KEY = "main:api.example:large"


class Ward:
    """A health store with its clock, and the shortest way to say what happened."""

    def __init__(self, health: Health, tell: Callable[[datetime], Awaitable[object]] | None) -> None:
        self.health = health
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self._tell = tell

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        if self._tell is not None:
            await self._tell(self.now)

    async def call(
        self,
        outcome: Outcome,
        *,
        first_token: float | None = None,
        duration: float = 0.0,
        output_tokens: int = 0,
        retry_after: float | None = None,
        timed_out: bool = False,
    ) -> None:
        """Admit a call and record how it ended."""
        admission = await self.health.admit(KEY)
        assert admission.verdict is not Verdict.REFUSE
        await self.health.record(
            KEY,
            outcome,
            first_token=None if first_token is None else timedelta(seconds=first_token),
            duration=timedelta(seconds=duration),
            output_tokens=output_tokens,
            retry_after=None if retry_after is None else timedelta(seconds=retry_after),
            timed_out=timed_out,
        )

    async def open(self) -> None:
        """Let calls fail until nothing goes."""
        for _ in range(5):
            await self.call(Outcome.OVERLOADED)

    async def ask(self, *, sole: bool = False) -> Admission:
        """Whether a call may go."""
        return await self.health.admit(KEY, sole=sole)


@pytest.fixture(params=["memory", "redis"])
async def ward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ward]:
    """Each kind of store in turn. Every look is fresh."""
    if request.param == "memory":
        made = Ward(MemoryHealth(clock=lambda: made.now), None)
        yield made
        return
    monkeypatch.setattr("holdfast.health.redis.FRESH_SECONDS", -1.0)
    async with redis_prefix() as (url, prefix, client):

        async def tell(now: datetime) -> None:
            await client.set(f"{prefix}:now", int(now.timestamp() * 1_000_000))

        health = RedisHealth(url, prefix, clock=f"local now = tonumber(redis.call('GET', '{prefix}:now'))\n")
        made = Ward(health, tell)
        await made.advance(0)
        yield made
        await health.aclose()
