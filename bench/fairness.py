"""One tenant floods a deployment; another one asks now and then. How long does the other one wait?

The deployment admits ten calls a second, by its queue and by the provider. Three times the same few requests: alone;
beside the flood, under a tenant of their own; and beside the flood, under the flooding tenant, where they wait in line
like everything else of that tenant. The last is what everybody would wait without fairness.
"""

import asyncio
import time
from typing import Any

import httpx

from bench.arrivals import Reading, arrive, read
from bench.figures import mean, quantile
from bench.stack import Stack, client, running
from bench.wrapper import ask

PER_SECOND = 10
EVERY = 1.5
"""Seconds between the requests of the tenant that asks now and then; far below half of what the deployment admits."""

_PROFILE = """
[default]
first_token_ms = 100
completion_tokens = 8
"""

_MODELS = f"""
[deployments.metered]
provider = "openai"
model = "sim-metered"
base_url = "%(url)s/v1"
price = {{ input = "0.15", output = "0.60" }}
requests_per_minute = {PER_SECOND * 60}
"""

_KEYS = "key-flood=flood/ann,key-quiet=quiet/bob"
_AGENT = 'deployments = ["metered"]\nprompt = "plain.md"\nrecall = false\n'


async def fairness(*, flood: int = 300) -> dict[str, Any]:
    """Requests of the flood all arrive at once; those of the other tenant as long as the flood's backlog lasts."""
    quiet = max(round(flood / PER_SECOND / EVERY * 0.6), 2)
    environment = {"HOLDFAST_API_KEYS": _KEYS}
    async with (
        running(
            simulator_profile=_PROFILE, models=_MODELS, agents={"metered": _AGENT}, environment=environment
        ) as stack,
        client() as http,
    ):
        await _ask_now_and_then(http, stack, "quiet", 2)
        alone = await _ask_now_and_then(http, stack, "quiet", quiet)
        beside = await _beside_a_flood(http, stack, "quiet", quiet, flood)
        within = await _beside_a_flood(http, stack, "flood", quiet, flood)
    return {
        "flood": flood,
        "admitted_per_second": PER_SECOND,
        "quiet_requests": quiet,
        "quiet_every_s": EVERY,
        "alone_s": _summary(alone),
        "beside_the_flood_s": _summary(beside),
        "within_the_flood_s": _summary(within),
        "added_by_the_flood_mean_s": round(_mean(beside) - _mean(alone), 2),
        "its_share": f"half of {PER_SECOND} calls a second: one every {2 / PER_SECOND:g} s",
    }


async def _beside_a_flood(http: httpx.AsyncClient, stack: Stack, tenant: str, quiet: int, flood: int) -> list[Reading]:
    name = f"flood beside {tenant} {time.time_ns()}"
    flooding = asyncio.create_task(
        arrive(
            [f"{name} {number}" for number in range(flood)],
            lambda text: ask(http, f"{stack.gateway}/v1", "metered", text, key="key-flood"),
            per_second=None,
        )
    )
    # The others begin once the flood is in the queue, not while it is still being accepted.
    await asyncio.sleep(flood / PER_SECOND * 0.3)
    readings = await _ask_now_and_then(http, stack, tenant, quiet)
    await flooding
    return readings


async def _ask_now_and_then(http: httpx.AsyncClient, stack: Stack, tenant: str, requests: int) -> list[Reading]:
    async def one(number: int) -> Reading:
        await asyncio.sleep(number * EVERY)
        text = f"quiet {tenant} {number} {time.time_ns()}"
        return await read(ask(http, f"{stack.gateway}/v1", "metered", text, key=f"key-{tenant}"))

    return await asyncio.gather(*(one(number) for number in range(requests)))


def _mean(readings: list[Reading]) -> float:
    return mean(_times(readings))


def _times(readings: list[Reading]) -> list[float]:
    return [reading.ended for reading in readings if reading.completed and reading.ended is not None]


def _summary(readings: list[Reading]) -> dict[str, float]:
    times = _times(readings)
    return {
        "mean": round(mean(times), 2),
        "p50": round(quantile(times, 0.5), 2),
        "max": round(max(times), 2),
        "completed": len(times),
    }
