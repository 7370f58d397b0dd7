"""A flood by one tenant: others are served by their share, and a higher tier goes first, whatever the limit is that
makes everyone wait.

Told by the order in which calls arrive at the simulated provider, never by the clock.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from holdfast.contracts import Answer, Status
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.holding import replies_held
from workflows.steps import generate_queue

FLOOD = 120
"""Calls that stand before a deployment at least, however many it has served meanwhile."""
WAVE = 40
"""Requests of the flood that are submitted at the same time."""

LIMITS = {
    "slots": "concurrency = 2",
    "tokens": "tokens_per_minute = 27000",
    "requests": "requests_per_minute = 120",
}
"""What makes calls wait, by the deployment that has this limit only."""

MODELS = "".join(
    f"""
[deployments.{name}]
provider = "openai"
model = "sim-{name}"
base_url = "%(url)s/v1"
price = {{ input = "1", output = "3" }}
{limit}
timeouts = {{ first_token = "10m" }}
"""
    for name, limit in LIMITS.items()
)

SLOW: Mapping[str, Any] = {"kind": "ok", "first_token_ms": 200, "times": 10_000}

AGENTS = {name: f'deployments = ["{name}"]\nprompt = "plain.md"\nrecall = false\n' for name in LIMITS}
# Three calls at a time may need so many tokens; what they do not use is free again.
AGENTS["tokens"] += "[limits]\noutput_tokens = 8000\n"

KEYS = {
    "flood": "flood/fay",
    "calm": "calm/cal",
    "paid": "paid/pat/premium",
}


@dataclass
class Town:
    """A house with several tenants, and whose every request is."""

    house: House
    owners: dict[str, str] = field(default_factory=dict)

    async def ask(self, tenant: str, agent: str) -> str:
        """Submit a request as a tenant."""
        reply = await self.house.http.post(
            "/v1/requests",
            json={"agent": agent, "input": f"Question {len(self.owners)} of {tenant}"},
            headers={"Authorization": f"Bearer {tenant}"},
        )
        assert reply.status_code in (200, 202), reply.text
        request_id = str(reply.json()["id"])
        self.owners[request_id] = tenant
        return request_id

    async def flood(self, agent: str) -> int:
        """Submit more than the deployment serves, and return how many stand before it once it is a flood."""
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            while (standing := await self.standing(agent)) < FLOOD:
                await asyncio.gather(*(self.ask("flood", agent) for _ in range(WAVE)))
                await self.all_in_line(agent)
        return standing

    async def all_in_line(self, agent: str) -> None:
        """Wait until every request so far is served or stands before the deployment."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.arrivals()) + await self.standing(agent) < len(self.owners):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def standing(self, deployment: str) -> int:
        """Calls that wait for a deployment: in its queue, and before its gate."""
        queue = generate_queue(deployment, self.house.settings.engine.task_queue)
        asked = DescribeTaskQueueRequest(
            namespace=self.house.client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
        while True:
            try:
                reply = await self.house.client.workflow_service.describe_task_queue(asked)
                break
            except RPCError:
                # A server that is flooded lets a look at its queues go.
                await asyncio.sleep(0.1)
        return reply.stats.approximate_backlog_count + self.house.services.gate.line(deployment).length

    async def served(self, request_id: str) -> None:
        """Wait until a request is completed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await self.house.client.get_workflow_handle(request_id, result_type=Answer).result()
        assert answer.status is Status.COMPLETED

    def arrivals(self) -> list[str]:
        """Whose calls arrived, in order."""
        calls = self.house.simulator.calls()
        return [self.owners.get(call["client_request_id"].rpartition(".")[0], "flood") for call in calls]


@asynccontextmanager
async def town_of(directory: Path, client: Client) -> AsyncIterator[Town]:
    keys = ",".join(f"{key}={owner}" for key, owner in KEYS.items())
    async with open_house(
        directory, client, agents=AGENTS, models=MODELS, sandbox=False, settings={"api_keys": keys}
    ) as house:
        yield Town(house)


@pytest.mark.parametrize(
    "limited_by", [limit if limit == "tokens" else pytest.param(limit, marks=pytest.mark.thorough) for limit in LIMITS]
)
async def test_a_flood_delays_another_tenant_by_its_share(
    tmp_path: Path, temporal_client: Client, limited_by: str
) -> None:
    async with town_of(tmp_path, temporal_client) as town:
        town.house.simulator.script(dict(SLOW))
        with replies_held():
            standing = await town.flood(limited_by)
            before = len(town.arrivals())
            calm = await asyncio.gather(*(town.ask("calm", limited_by) for _ in range(8)))
            await town.all_in_line(limited_by)
        await asyncio.gather(*(town.served(request_id) for request_id in calm))
        after = town.arrivals()[before:]
        last = len(after) - after[::-1].index("calm")
        # First come, first served would let the whole flood go before. What goes before is its share, and what is
        # served while the requests are still on their way to the queue.
        assert after[:last].count("flood") <= standing / 3, after


async def test_a_higher_tier_goes_before_everyone_who_waits(tmp_path: Path, temporal_client: Client) -> None:
    async with town_of(tmp_path, temporal_client) as town:
        town.house.simulator.script(dict(SLOW))
        with replies_held():
            await town.flood("slots")
            waiting = [await town.ask(tenant, "slots") for tenant in (*["calm"] * 6, "paid")]
            await town.all_in_line("slots")
            before = len(town.arrivals())
        await asyncio.gather(*(town.served(request_id) for request_id in waiting))
        after = town.arrivals()[before:]
        # Two places are free at once, and who is given the first of them may still be the second to arrive.
        assert after.index("paid") < 2, after
