"""A thousand requests wait for a person: how soon is the inbox there, and how soon does a request go on once approved?

Decisions are sent one after another, as one person clicks. "Resumed" is read from the request's history, on the
engine's own clock: from the event of the accepted update to the completion of the task that closed its books; and at
the client, from sending the decision to holding its receipt. The inbox is timed as its reader sees it.
"""

import asyncio
import time
from datetime import timedelta
from typing import Any

import httpx
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from bench.figures import quantile, spread_ms
from bench.stack import Stack, client, cpu_seconds, running, submit
from workflows.connection import connect_client

_HELD = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[approval]\napprovers = ["*"]\nwithin = "%dm"\n'
"""`requester_may_decide` stays false: who asks is `asker`, who decides is `local`."""

_DEADLINES = {f"held-{minutes}": _HELD % minutes for minutes in (30, 60, 240, 1_440, 2_800)}
"""Agents with different deadlines, so that the nearest ones are not simply the last ones asked."""

IN_FLIGHT = 32


async def approvals(*, parked: int = 1_000, decisions: int = 200, looks: int = 40) -> dict[str, Any]:
    """Park requests, look at the inbox, and approve some.

    Args:
        parked: How many wait.
        decisions: How many of them are approved, one after another.
        looks: How often the inbox is read.
    """
    async with running(agents=_DEADLINES) as stack, client() as http:
        started = time.perf_counter()
        ids = await _park(http, stack, parked)
        parking = time.perf_counter() - started
        before = {role: cpu_seconds(pid) for role, pid in stack.pids.items()}
        await asyncio.sleep(5)
        idle = {role: round((cpu_seconds(pid) - before[role]) / 5 * 100, 1) for role, pid in stack.pids.items()}
        await http.post(f"{stack.gateway}/inbox/login", data={"name": "local"}, headers={"Origin": stack.gateway})
        pages = [await _timed(http.get(f"{stack.gateway}/inbox")) for _ in range(looks + 2)][2:]
        lists = [
            await _timed(http.get(f"{stack.gateway}/v1/approvals", params={"limit": 50})) for _ in range(looks + 2)
        ][2:]
        engine = await connect_client(stack.temporal.address, stack.temporal.namespace)
        waiting = await _waiting(http, stack, decisions + 5)
        for question in waiting[:5]:
            await _approve(http, stack, question)
        receipts, resumed = [], []
        for question in waiting[5:]:
            receipts.append(await _approve(http, stack, question))
            resumed.append(await _resumed(engine, question["request_id"]))
        return {
            "parked": len(ids),
            "parked_in_s": round(parking, 1),
            "cpu_while_they_wait_percent_of_a_core": idle,
            "inbox_page_ms": spread_ms(pages),
            "approvals_list_ms": spread_ms(lists),
            "target_inbox_ms": 200,
            "decisions": len(receipts),
            "click_to_receipt_ms": spread_ms(receipts),
            "accepted_to_closed_ms": spread_ms(resumed),
            "target_resumed_ms": {"p50": 50, "p99": 300},
            "slowest_resumed_ms": round(quantile(resumed, 1) * 1000, 1),
        }


async def _park(http: httpx.AsyncClient, stack: Stack, count: int) -> list[str]:
    turns = asyncio.Semaphore(IN_FLIGHT)
    agents = list(_DEADLINES)

    async def one(number: int) -> str:
        async with turns:
            agent = agents[number % len(agents)]
            http.headers["X-Holdfast-User"] = "asker"
            reply = await submit(http, stack.gateway, agent, f"Parked question {number}?")
            if reply["status"] != "waiting":
                raise RuntimeError(f"{reply['id']} is {reply['status']} instead of waiting: {reply.get('reason')}")
            return str(reply["id"])

    ids = await asyncio.gather(*(one(number) for number in range(count)))
    del http.headers["X-Holdfast-User"]
    return ids


async def _waiting(http: httpx.AsyncClient, stack: Stack, count: int) -> list[dict[str, Any]]:
    reply = await http.get(f"{stack.gateway}/v1/approvals", params={"limit": min(count, 500)})
    reply.raise_for_status()
    return list(reply.json()["approvals"])


async def _approve(http: httpx.AsyncClient, stack: Stack, question: dict[str, Any]) -> float:
    body = {"decision": "approve", "content_sha256": question["content_sha256"]}
    return await _timed(http.post(f"{stack.gateway}/v1/approvals/{question['request_id']}/decisions", json=body))


async def _resumed(engine: Client, request_id: str) -> float:
    """Seconds from the accepted decision to the end of the request, by the engine's clock."""
    handle = engine.get_workflow_handle(request_id)
    await handle.result()
    accepted = None
    async for event in handle.fetch_history_events():
        moment = event.event_time.ToDatetime()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            accepted = moment
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED and accepted is not None:
            return (moment - accepted) / timedelta(seconds=1)
    raise RuntimeError(f"{request_id} has no accepted decision in its history.")


async def _timed(call: Any) -> float:
    started = time.perf_counter()
    reply = await call
    elapsed = time.perf_counter() - started
    reply.raise_for_status()
    return elapsed
