"""Relays of both kinds: what holds for one holds for the other."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from holdfast.relay import MemoryRelay, RedisRelay, Relay
from tests import services


@dataclass(frozen=True)
class RedisPlace:
    """Where a test keeps its streams."""

    url: str
    prefix: str
    client: Redis


@asynccontextmanager
async def redis_place() -> AsyncIterator[RedisPlace]:
    """A Redis with a prefix of our own; its keys are deleted afterwards."""
    url, prefix = services.redis_url(), f"test-relay-{uuid.uuid4().hex}:"
    client = Redis.from_url(url, protocol=2)
    yield RedisPlace(url, prefix, client)
    keys = [key async for key in client.scan_iter(f"{prefix}*", count=1_000)]
    if keys:
        await client.delete(*keys)
    await client.aclose()


@pytest.fixture(scope="session")
async def place() -> AsyncIterator[RedisPlace]:
    """The place of this session."""
    async with redis_place() as place:
        yield place


@dataclass(frozen=True)
class Plane:
    """Relays that reach one another, as several processes would have them; one and the same in memory."""

    relays: tuple[Relay, Relay, Relay]


@asynccontextmanager
async def new_plane(kind: str) -> AsyncIterator[Plane]:
    """Three relays of the kind, for publishers and followers in different places."""
    async with AsyncExitStack() as stack:
        if kind == "memory":
            memory = MemoryRelay()
            stack.push_async_callback(memory.aclose)
            yield Plane((memory, memory, memory))
            return
        place = await stack.enter_async_context(redis_place())
        relays = (
            RedisRelay(place.url, place.prefix),
            RedisRelay(place.url, place.prefix),
            RedisRelay(place.url, place.prefix),
        )
        for relay in relays:
            stack.push_async_callback(relay.aclose)
        yield Plane(relays)


@pytest.fixture(scope="session", params=["memory", "redis"])
async def plane(request: pytest.FixtureRequest) -> AsyncIterator[Plane]:
    """The relays of this session, of each kind."""
    async with new_plane(request.param) as plane:
        yield plane


@pytest.fixture
def relay(plane: Plane) -> Relay:
    """One relay of the kind."""
    return plane.relays[0]


def new_request_id() -> str:
    """An id that no other test uses."""
    return f"req_{uuid.uuid4().hex}"


@pytest.fixture
def request_id() -> str:
    """An id of the test's own."""
    return new_request_id()
