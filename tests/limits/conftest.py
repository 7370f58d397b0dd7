"""Limiters on a clock that the test sets, in process and on a real Redis."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import redis.asyncio

from holdfast.limits import MemoryLimiter, RedisLimiter
from tests import services


class Clock:
    """Seconds that pass when the test says so; whole microseconds, so that both limiters see the same."""

    def __init__(self) -> None:
        self.microseconds = 1_700_000_000_000_000

    def __call__(self) -> float:
        return self.microseconds / 1_000_000

    def advance(self, span: timedelta) -> None:
        """Let time pass."""
        self.microseconds += span // timedelta(microseconds=1)


@contextlib.asynccontextmanager
async def redis_prefix() -> AsyncIterator[tuple[str, str, "redis.asyncio.Redis"]]:
    """A server, a key prefix of one's own, and a client; afterwards no key with the prefix is left."""
    url, prefix = services.redis_url(), f"test-{uuid.uuid4().hex}"
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    try:
        yield url, prefix, client
    finally:
        keys = [key async for key in client.scan_iter(match=f"*{prefix}*", count=1000)]
        if keys:
            await client.delete(*keys)
        await client.aclose()


def set_clock_script(prefix: str) -> str:
    """Lua that takes `now` from a key instead of the server's clock."""
    return f"local now = tonumber(redis.call('GET', '{{{prefix}:limits}}:now'))\n"


class Bench:
    """A limiter of either kind together with its clock."""

    def __init__(
        self, limiter: MemoryLimiter | RedisLimiter, clock: Clock, client: "redis.asyncio.Redis | None", key: str
    ):
        self.limiter = limiter
        self.clock = clock
        self._client = client
        self._key = key

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(timedelta(seconds=seconds))
        await self.tell()

    async def tell(self) -> None:
        """Make the server's view of the time the test's."""
        if self._client is not None:
            await self._client.set(self._key, self.clock.microseconds)


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each kind of limiter in turn, with the default spans."""
    clock = Clock()
    if request.param == "memory":
        yield Bench(MemoryLimiter(clock), clock, None, "")
        return
    async with redis_prefix() as (url, prefix, client):
        limiter = RedisLimiter(url, prefix, clock=set_clock_script(prefix))
        made = Bench(limiter, clock, client, f"{{{prefix}:limits}}:now")
        await made.tell()
        yield made
        await limiter.aclose()
