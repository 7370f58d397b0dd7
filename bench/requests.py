"""What durability costs: latency added to one call, throughput, a thousand calls in flight, and the size of a history.

Each function starts its own stack and returns plain numbers. "Direct" is the same model call made with httpx alone, in
the same run, so that ratios hold when the machine's speed drifts.
"""

import asyncio
import sqlite3
import statistics
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench.figures import quantile, spread_ms
from bench.stack import Stack, client, cpu_seconds, running, submit
from holdfast.knowledge import read_documents
from workflows.connection import connect_client

SLOW_MODEL = """
[default]
first_token_ms = 20000
completion_tokens = 24
"""
"""20 s an answer, all of it thinking before the first token."""


async def one_at_a_time(*, rounds: int = 200) -> dict[str, Any]:
    """Latency of one request with nothing else going on, and of the direct call, taken in turn."""
    async with running() as stack, client() as http:
        await _warm_up(http, stack, "plain")
        held: list[float] = []
        direct: list[float] = []
        for number in range(rounds):
            held.append(await _timed(submit(http, stack.gateway, "plain", f"Question {number}?")))
            direct.append(await _timed(_direct(http, stack, f"Question {number}?")))
        return {
            "rounds": rounds,
            "holdfast_ms": spread_ms(held),
            "direct_ms": spread_ms(direct),
            "added_ms_median": round((statistics.median(held) - statistics.median(direct)) * 1000, 1),
            "target_added_ms_median": 40,
        }


async def throughput(*, requests: int = 1_000, in_flight: int = 64, agent: str = "plain") -> dict[str, Any]:
    """Requests per second with a fixed number in flight, and where the CPU time went."""
    async with running() as stack, client() as http:
        await _warm_up(http, stack, agent)
        before = {role: cpu_seconds(pid) for role, pid in stack.pids.items()}
        own = time.process_time()
        turns = asyncio.Semaphore(in_flight)
        failures: list[str] = []
        latencies: list[float] = []

        async def one(number: int) -> None:
            async with turns:
                started = time.perf_counter()
                try:
                    reply = await submit(http, stack.gateway, agent, f"Load question {number}?")
                except httpx.HTTPError as error:
                    failures.append(type(error).__name__)
                    return
                latencies.append(time.perf_counter() - started)
                if reply["status"] != "completed":
                    failures.append(str(reply["status"]))

        started = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(requests)))
        elapsed = time.perf_counter() - started
        used = {role: cpu_seconds(pid) - before[role] for role, pid in stack.pids.items()}
        used["client"] = time.process_time() - own
        return {
            "agent": agent,
            "requests": requests,
            "in_flight": in_flight,
            "per_second": round(requests / elapsed, 1),
            "target_per_second": 40 if agent == "plain" else None,
            "failures": failures,
            "latency_ms": spread_ms(latencies),
            "cpu_ms_per_request": {role: round(seconds / requests * 1000, 1) for role, seconds in used.items()},
        }


async def all_in_flight(*, requests: int = 1_000, arrivals_per_second: float | None = 50) -> dict[str, Any]:
    """A thousand requests open at once against a model that takes 20 s for an answer.

    Args:
        requests: How many.
        arrivals_per_second: Pace of submission; `None` submits all in one burst.

    The added time to first token is the time from the client's submission to the moment the ledger admitted the model
    call, after which only the model's own latency remains.
    """
    async with running(simulator_profile=SLOW_MODEL) as stack, client() as http:
        await _warm_up(http, stack, "plain", rounds=2)
        submitted: dict[str, float] = {}
        statuses: list[str] = []
        peak = 0
        pending = 0

        async def one(number: int) -> None:
            nonlocal peak, pending
            if arrivals_per_second is not None:
                await asyncio.sleep(number / arrivals_per_second)
            pending += 1
            peak = max(peak, pending)
            moment = time.time()
            try:
                reply = await submit(http, stack.gateway, "plain", f"Patient question {number}?", wait=590)
                submitted[str(reply["id"])] = moment
                statuses.append(str(reply["status"]))
            except httpx.HTTPError as error:
                statuses.append(type(error).__name__)
            finally:
                pending -= 1

        started = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(requests)))
        elapsed = time.perf_counter() - started
        admitted = _admitted(stack.ledger)
        added = [admitted[request] - moment for request, moment in submitted.items() if request in admitted]
        return {
            "requests": requests,
            "arrivals_per_second": arrivals_per_second,
            "peak_in_flight": peak,
            "completed": statuses.count("completed"),
            "others": sorted(set(statuses) - {"completed"}),
            "elapsed_s": round(elapsed, 1),
            "added_time_to_first_token_s": {
                "p50": round(quantile(added, 0.5), 2),
                "p95": round(quantile(added, 0.95), 2),
                "max": round(max(added), 2),
            },
            "target_p95_s": 3,
        }


async def history() -> dict[str, Any]:
    """Events and bytes of the history of one plain request, with a short and with a long input."""
    async with running() as stack, client() as http:
        await _warm_up(http, stack, "plain", rounds=2)
        engine = await connect_client(stack.temporal.address, stack.temporal.namespace)
        found: dict[str, Any] = {"target_events": 24, "target_bytes": 8_192}
        for name, text in (("short_input", "What holds?"), ("long_input", "What holds? " + "Long text. " * 2_000)):
            reply = await submit(http, stack.gateway, "plain", text)
            handle = engine.get_workflow_handle(str(reply["id"]))
            recorded = await handle.fetch_history()
            description = await handle.describe()
            size = description.raw_description.workflow_execution_info.history_size_bytes
            found[name] = {"input_bytes": len(text), "events": len(recorded.events), "bytes": size}
        return found


async def _warm_up(http: httpx.AsyncClient, stack: Stack, agent: str, rounds: int = 30) -> None:
    if agent == "documents":
        documents = [{"source": one.source, "text": one.text} for one in read_documents(Path("docs")).documents]
        reply = await http.post(
            f"{stack.gateway}/v1/collections/docs/documents", params={"wait": 300}, json={"documents": documents}
        )
        reply.raise_for_status()
    for number in range(rounds):
        await submit(http, stack.gateway, agent, f"Warm-up {number}?")


async def _direct(http: httpx.AsyncClient, stack: Stack, text: str) -> None:
    messages = [{"role": "system", "content": "Answer the question."}, {"role": "user", "content": text}]
    body = {"model": "sim-large", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", f"{stack.simulator}/v1/chat/completions", json=body) as reply:
        reply.raise_for_status()
        async for _ in reply.aiter_lines():
            pass


async def _timed(work: Any) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


def _admitted(ledger: Path) -> dict[str, float]:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT request_id, min(opened_at) FROM attempts GROUP BY request_id").fetchall()
    return {request: datetime.fromisoformat(opened).replace(tzinfo=UTC).timestamp() for request, opened in rows}
