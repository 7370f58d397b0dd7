"""A client that follows an answer while worker and gateway are killed sees every character of it, and none twice.

Gateway and worker are processes of their own that share a Redis server. Whatever is killed with SIGKILL, the client
connects again with the id of the last event it has.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
import pytest
import redis.asyncio

from simulator.program import Profile
from tests.chaos.client import POLL_SECONDS, Client
from tests.chaos.installation import Installation, open_installation
from tests.chaos.test_kill import PATIENCE_SECONDS, assert_every_call_is_on_record
from tests.gateway.streams import Event, events_of
from tests.services import redis_url

pytestmark = pytest.mark.chaos

ANSWER = (
    "An anchor holds a ship fast in a storm. Its chain must be five times as long as the water is deep, and whoever "
    "drops it must know what the ground is made of."
)
AGENTS = {"streamer": 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'}
MODELS = Profile.read({"default": {"token_ms": 40, "content": ANSWER}})

CASES = {
    "between record and dispatch": ("generate:opened",),
    "in the middle of the stream": ("generate:streaming",),
    "between dispatch and settlement": ("generate:replied",),
    "after settlement": ("generate:settled",),
    "the gateway, in the middle of the stream": ("gateway:generating",),
    "twice in the stream, and the gateway after": ("generate:streaming", "generate:streaming", "gateway:generating"),
}


@pytest.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """An installation whose processes share a Redis server."""
    url, prefix = redis_url(), f"test-{uuid.uuid4().hex}"
    shared = f'\n[shared]\nurl = "{url}"\nprefix = "{prefix}"\n'
    directory = tmp_path_factory.mktemp("streams")
    async with redis.asyncio.Redis.from_url(url) as client:
        async with open_installation(directory, agents=AGENTS, models=MODELS, settings_too=shared) as installation:
            yield installation
        if keys := [key async for key in client.scan_iter(match=f"*{prefix}*")]:
            await client.delete(*keys)


@dataclass
class Follower:
    """A client that obeys every event, and comes back when it is cut off."""

    http: httpx.AsyncClient
    screens: list[str] = field(default_factory=lambda: [""])
    """What it showed, after each event that changed it."""
    last: str = ""
    """Id of the last event it has."""
    connections: int = 0
    done: Event | None = None

    async def follow(self, request_id: str) -> None:
        """Read until the request is done."""
        while self.done is None:
            try:
                await self._read(request_id)
            except httpx.TransportError:
                await asyncio.sleep(POLL_SECONDS)  # the gateway is dead

    async def _read(self, request_id: str) -> None:
        headers = {"Last-Event-ID": self.last} if self.last else {}
        async with self.http.stream("GET", f"/v1/requests/{request_id}/events", headers=headers) as reply:
            if reply.status_code == 503:
                await asyncio.sleep(POLL_SECONDS)
                return
            assert reply.status_code == 200, await reply.aread()
            self.connections += 1
            async for event in events_of(reply):
                if event.kind == "error":
                    return
                self.last = event.id or self.last
                if event.kind == "restart":
                    self.screens.append("")
                elif event.kind == "text":
                    self.screens.append(self.screens[-1] + event.data["text"])
                elif event.kind == "done":
                    self.done = event


@pytest.mark.parametrize("case", CASES)
async def test_whoever_is_killed_a_follower_sees_the_answer_once(case: str, installation: Installation) -> None:
    points = CASES[case]
    async with asyncio.timeout(PATIENCE_SECONDS):
        client = Client(installation.http, "streamer", f"What holds a ship? ({case})", case)
        follower = Follower(installation.http)

        async def follow() -> None:
            await client.accepted.wait()
            await follower.follow(client.request_id)

        async def kill() -> None:
            async with aclosing(installation.deaths(points, client)) as deaths:
                async for _ in deaths:
                    await assert_every_call_is_on_record(installation, client.request_id)

        async with asyncio.TaskGroup() as group:
            group.create_task(kill())
            group.create_task(follow())
            walking = group.create_task(client.walk())
        reply = walking.result()
    assert (reply["status"], reply["answer"]["text"]) == ("completed", ANSWER), reply
    assert follower.done is not None
    assert follower.done.data["answer"]["text"] == ANSWER
    assert follower.screens[-1] == ANSWER
    assert len(follower.screens) > 4, "piece by piece"
    assert all(ANSWER.startswith(screen) for screen in follower.screens), "nothing twice, nothing left out"
    if any(point.startswith("gateway") for point in points):
        assert follower.connections > 1
    attempts, calls = await assert_every_call_is_on_record(installation, client.request_id)
    assert attempts == reply["attempts"] <= 1 + len(points)
    assert calls <= attempts
