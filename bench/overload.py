"""Twice the provider's quota for a minute: what becomes of the requests, through a wrapper and through Holdfast.

The provider's limits are buckets that it lets fill up while nobody calls, so they are emptied before the clock starts;
else a minute's quota could be spent at once and nothing would be scarce.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

import httpx

from bench.arrivals import Reading, arrive
from bench.figures import quantile, table
from bench.stack import PROMPT, Stack, client, running
from bench.wrapper import ask

REQUESTS_PER_MINUTE = 600
TOKENS_PER_MINUTE = 54_000
"""Either of the two is scarce, the other one twenty times as large."""
MOST_TOKENS = 64

Quota = Literal["requests", "tokens"]

_PROFILE = """
[default]
first_token_ms = 250
first_token_sigma = 0.6
token_ms = 6
token_sigma = 0.4
completion_tokens = 60
fault_probability = 0.01
price = { input = 0.15, output = 0.60 }
fault_kinds = { overloaded_503 = 3, error_500 = 2, rate_limited = 2, disconnect_mid_stream = 2, error_mid_stream = 1 }

[models.sim-metered]
requests_per_minute = %(requests)d
tokens_per_minute = %(tokens)d
"""

_MODELS = """
[deployments.metered]
provider = "openai"
model = "sim-metered"
base_url = "%%(url)s/v1"
price = { input = "0.15", output = "0.60" }
requests_per_minute = %(requests)d
tokens_per_minute = %(tokens)d
"""

_AGENT = f"""
deployments = ["metered"]
prompt = "plain.md"
recall = false

[limits]
output_tokens = {MOST_TOKENS}
"""

COLUMNS = ("path", "sent", "completed", "failed", "share of quota", "429 at the provider", "last answer s")


async def overload(*, quota: Quota = "requests", seconds: float = 60, times: float = 2) -> dict[str, Any]:
    """Send `times` the quota at a steady pace, and wait until the last request has ended.

    Args:
        quota: Which of the provider's limits is scarce.
        seconds: How long requests arrive.
        times: Of the quota.
    """
    limits = {
        "requests": REQUESTS_PER_MINUTE * (1 if quota == "requests" else 20),
        "tokens": TOKENS_PER_MINUTE * (1 if quota == "tokens" else 20),
    }
    models, profile = _MODELS % limits, _PROFILE % limits
    rows = []
    details = {}
    async with running(simulator_profile=profile, models=models, agents={"metered": _AGENT}) as stack, client() as http:
        per_second = min(limits["requests"], limits["tokens"] / await _charge(http, stack)) / 60
        pace = per_second * times
        for path, how in _paths(http, stack).items():
            await _empty_the_buckets(http, stack, quota)
            before = await _calls(http, stack)
            questions = [_padded(f"{path[0]}{number}") for number in range(round(pace * seconds))]
            readings, flow = await arrive(questions, how, per_second=pace)
            calls = dict(await _calls(http, stack) - before)
            rows.append(_row(path, readings, flow.elapsed, per_second, calls))
            details[path] = {
                "peak_in_flight": flow.peak_in_flight,
                "provider_calls_by_status": calls,
                "failures": dict(Counter(reading.failure for reading in readings if reading.failure)),
            }
    print(table(COLUMNS, rows), flush=True)
    return {
        "scarce": quota,
        "quota_calls_per_second": round(per_second, 2),
        "offered_per_second": round(pace, 2),
        "seconds": seconds,
        "rows": rows,
        "runs": details,
        "targets": {"failed": 0, "share_of_quota": 0.95},
    }


def _paths(http: httpx.AsyncClient, stack: Stack) -> dict[str, Callable[[str], AsyncGenerator[str, None]]]:
    return {
        "wrapper": lambda text: ask(
            http, f"{stack.simulator}/v1", "sim-metered", text, system=PROMPT, max_tokens=MOST_TOKENS
        ),
        "Holdfast": lambda text: ask(http, f"{stack.gateway}/v1", "metered", text, max_tokens=MOST_TOKENS),
    }


def _padded(name: str) -> str:
    """A question of about as many tokens as the quota of tokens was calculated with."""
    return f"Question {name}: " + "and " * 8 + "what holds?"


def _row(
    path: str, readings: list[Reading], elapsed: float, per_second: float, calls: dict[str, int]
) -> dict[str, Any]:
    completed = sorted(reading.sent_at + (reading.ended or 0) for reading in readings if reading.completed)
    return {
        "path": path,
        "sent": len(readings),
        "completed": len(completed),
        "failed": len(readings) - len(completed),
        "share of quota": round(_rate(completed) / per_second, 3),
        "429 at the provider": calls.get("429", 0),
        "last answer s": round(elapsed, 1),
    }


def _rate(moments: list[float]) -> float:
    """Answers a second between the 5th and the 95th in a hundred, so that neither start nor end counts."""
    if len(moments) < 3:
        return 0.0
    first, last = quantile(moments, 0.05), quantile(moments, 0.95)
    return sum(first < moment <= last for moment in moments) / (last - first)


async def _calls(http: httpx.AsyncClient, stack: Stack) -> Counter[str]:
    """Calls of the metered model by status, so far."""
    reply = await http.get(f"{stack.simulator}/_simulator/calls", params={"model": "sim-metered"})
    return Counter(str(call["status"]) for call in reply.raise_for_status().json()["calls"])


async def _charge(http: httpx.AsyncClient, stack: Stack) -> int:
    """Tokens that the provider counts for one call: the prompt and the most it may answer."""
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": _padded("w100")}]
    body = {"model": "sim-other", "messages": messages}
    reply = await http.post(
        f"{stack.simulator}/v1/chat/completions", json=body, headers={"X-Simulate": '{"kind":"ok"}'}
    )
    return int(reply.raise_for_status().json()["usage"]["prompt_tokens"]) + MOST_TOKENS


async def _empty_the_buckets(http: httpx.AsyncClient, stack: Stack, quota: Quota) -> None:
    """Use up what the provider would let through at once."""
    at_once = {"X-Simulate": json.dumps({"kind": "ok", "first_token_ms": 0, "token_ms": 0, "completion_tokens": 1})}
    url = f"{stack.simulator}/v1/chat/completions"

    async def call(most: int) -> int:
        body = {"model": "sim-metered", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": most}
        return (await http.post(url, json=body, headers=at_once)).status_code

    if quota == "tokens":
        while await call(TOKENS_PER_MINUTE // 50) == 200:
            pass
        return
    while 429 not in await asyncio.gather(*(call(1) for _ in range(20))):
        pass
