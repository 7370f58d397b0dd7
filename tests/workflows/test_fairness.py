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

from holdfast.contracts import Answer, Status
from tests.house import House, open_house
from workflows.steps import generate_queue

FLOOD = 200

MODELS = """
[deployments.slots]
provider = "openai"
model = "sim-slots"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
concurrency = 2

[deployments.tokens]
provider = "openai"
model = "sim-tokens"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
tokens_per_minute = 27000

[deployments.requests]
provider = "openai"
model = "sim-requests"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
requests_per_minute = 120
"""

SLOW: Mapping[str, Any] = {"kind": "ok", "first_token_ms": 2_000, "times": 1_000}
BRISK: Mapping[str, Any] = {"kind": "ok", "first_token_ms": 200, "times": 1_000}

LIMITED_BY = ("slots", "tokens", "requests")

AGENTS = {name: f'deployments = ["{name}"]\nprompt = "plain.md"\nrecall = false\n' for name in LIMITED_BY}
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

    async def ask(self, tenant: str, agent: str, *, wait: float = 0) -> dict[str, Any]:
        """Submit a request as a tenant."""
        reply = await self.house.http.post(
            "/v1/requests",
            params={"wait": wait} if wait else {},
            json={"agent": agent, "input": f"Question {len(self.owners)} of {tenant}"},
            headers={"Authorization": f"Bearer {tenant}"},
        )
        assert reply.status_code in (200, 202), reply.text
        shown: dict[str, Any] = reply.json()
        self.owners[shown["id"]] = tenant
        return shown

    async def flood(self, agent: str) -> None:
        """Submit far more than the deployment serves, and return when all of it is served or stands before it."""
        await asyncio.gather(*(self.ask("flood", agent) for _ in range(FLOOD)))
        async with asyncio.timeout(120):
            while len(self.arrivals()) + await self.standing(agent) < FLOOD:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def standing(self, deployment: str) -> int:
        """Calls that wait for a deployment: in its queue, and before its gate."""
        queue = generate_queue(deployment, self.house.settings.engine.task_queue)
        reply = await self.house.client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self.house.client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                report_stats=True,
            )
        )
        return reply.stats.approximate_backlog_count + self.house.services.gate.line(deployment).length

    async def in_line(self, request_id: str) -> None:
        """Wait until a request's call is in the deployment's queue."""
        run = self.house.client.get_workflow_handle(request_id)
        async with asyncio.timeout(60):
            while not (await run.describe()).raw_description.pending_activities:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def served(self, request_id: str) -> None:
        """Wait until a request is completed."""
        async with asyncio.timeout(60):
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


@pytest.mark.parametrize("limited_by", LIMITED_BY)
async def test_a_flood_delays_another_tenant_by_its_share(
    tmp_path: Path, temporal_client: Client, limited_by: str
) -> None:
    async with town_of(tmp_path, temporal_client) as town:
        town.house.simulator.script(dict(SLOW))
        await town.flood(limited_by)
        town.house.simulator.clear_script()
        town.house.simulator.script(dict(BRISK))
        before = len(town.arrivals())
        replies = await asyncio.gather(*(town.ask("calm", limited_by, wait=55) for _ in range(8)))
        assert {reply["status"] for reply in replies} == {"completed"}
        after = town.arrivals()[before:]
        last = len(after) - after[::-1].index("calm")
        # First come, first served would let the whole flood go before. What goes before is its share, and what is
        # served while the requests are still on their way to the queue.
        assert FLOOD - before > 100
        assert after[:last].count("flood") <= (FLOOD - before) / 3, after


async def test_a_higher_tier_goes_before_everyone_who_waits(tmp_path: Path, temporal_client: Client) -> None:
    async with town_of(tmp_path, temporal_client) as town:
        # So slow that everyone is in line before the next places are free.
        town.house.simulator.script(dict(SLOW))
        await town.flood("slots")
        waiting = [await town.ask(tenant, "slots") for tenant in (*["calm"] * 6, "paid")]
        await asyncio.gather(*(town.in_line(request["id"]) for request in waiting))
        before = len(town.arrivals())
        town.house.simulator.clear_script()
        await asyncio.gather(*(town.served(request["id"]) for request in waiting))
        after = town.arrivals()[before:]
        assert after.index("paid") == 0, after
