"""The same request again: how fast the gateway answers what was answered before, with the load from another process."""

import json
from contextlib import AsyncExitStack
from typing import Any

from bench.stack import Stack, client, cpu_seconds, running, start, submit

CONNECTIONS = (1, 4, 16)


async def edge_hit(*, seconds: float = 5) -> dict[str, Any]:
    """One question, asked once and then again for `seconds` with each number of connections."""
    async with running() as stack:
        async with client() as http:
            asked = await submit(http, stack.gateway, "recalling", "What is asked again and again?")
        return {
            "seconds": seconds,
            "first_status": asked["status"],
            "runs": [await _hammered(stack, connections, seconds) for connections in CONNECTIONS],
            "targets": {"per_second": 1_000, "p50_ms": 5},
        }


async def _hammered(stack: Stack, connections: int, seconds: float) -> dict[str, Any]:
    body = json.dumps({"agent": "recalling", "input": "What is asked again and again?"})
    before = cpu_seconds(stack.pids["application"])
    async with AsyncExitStack() as stop:
        _, line = await start(
            stop,
            "bench.hammer",
            f"{stack.gateway}/v1/requests?wait=30",
            f"--body={body}",
            f"--connections={connections}",
            f"--seconds={seconds}",
            environment={},
            patience=seconds + 60,
        )
    found: dict[str, Any] = json.loads(line)
    used = cpu_seconds(stack.pids["application"]) - before
    return found | {"gateway_cpu_ms_per_request": round(used / max(found["answers"], 1) * 1000, 3)}
