"""The seed table: a thousand questions through a wrapper, the wrapper with naive retrieval, and Holdfast.

All three call the same simulated provider, which has log-normal latencies, rate limits, prices and one fault in a
hundred calls, and are read by the same lines of client code. Money is the provider's own bill. Popular questions are
asked once before the clock starts, on each of the three paths.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from bench.arrivals import Flow, Reading, arrive, read
from bench.figures import cost_per_million, mean, quantile, table
from bench.questions import Asked, Mix, intents, mix
from bench.stack import PROMPT, Stack, client, cpu_seconds, running
from bench.wrapper import NaiveRetrieval, ask
from holdfast.knowledge import read_documents
from simulator.program import REALISTIC

PUBLISHED = (
    {"path": "published: wrapper", "mean TTFT s": 4.2, "USD per million": 15_000},
    {"path": "published: wrapper + RAG", "mean TTFT s": 5.8, "USD per million": 18_500},
    {"path": "published: Holdfast", "mean TTFT s": 0.8, "USD per million": 3_200},
)
PACE = 12.0
"""Questions a second of the steady pattern; two cores, which also run provider and client, serve that many."""
COLUMNS = ("path", "pattern", "mean TTFT s", "p50", "p99 TTFT s", "USD per million", "completed", "failed")

Ask = Callable[[str], AsyncGenerator[str, None]]

_MODELS = """
[deployments.small]
provider = "openai"
model = "sim-small"
base_url = "%(url)s/v1"
tier = "small"
price = { input = "0.15", cache_read = "0.075", output = "0.60" }
requests_per_minute = 30000
tokens_per_minute = 30000000
concurrency = 1000

[deployments.large]
provider = "openai"
model = "sim-large"
base_url = "%(url)s/v1"
tier = "large"
price = { input = "2.50", cache_read = "1.25", output = "10.00" }
requests_per_minute = 6000
tokens_per_minute = 6000000
concurrency = 1000
"""


@dataclass(frozen=True)
class _Run:
    path: str
    pattern: str
    asked: tuple[Asked, ...]
    readings: list[Reading]
    flow: Flow
    cost_usd: Decimal
    calls: dict[str, int]
    cpu_s: dict[str, float]


async def seed_table(*, requests: int = 1_000) -> dict[str, Any]:
    """Every path under both patterns: all at once, and half as many at a pace that the machine can serve."""
    runs = [*await _pattern(mix(requests), None), *await _pattern(mix(requests // 2), PACE)]
    rows = [_row(run) for run in runs]
    print(table(COLUMNS, [*rows, *PUBLISHED]), flush=True)
    return {
        "rows": rows,
        "published": PUBLISHED,
        "targets": {"ttft_times_better_than_wrapper": 10, "cost_share_of_wrapper": 0.15, "completed_share": 1.0},
        "reached": _reached(runs),
        "runs": {f"{run.path}, {run.pattern}": _details(run) for run in runs},
    }


async def _pattern(asked: Mix, pace: float | None) -> list[_Run]:
    """The three paths in turn, on a stack of their own: nothing is remembered of another pattern."""
    async with (
        running(simulator_profile=REALISTIC, models=_models(), agents={"support": _agent()}) as stack,
        client() as http,
    ):
        passages = [document.text for document in read_documents(Path("docs")).documents]
        retrieval = NaiveRetrieval([part for text in passages for part in text.split("\n\n") if len(part) > 80])
        model_url = f"{stack.simulator}/v1"
        paths: dict[str, Ask] = {
            "a: wrapper": lambda text: ask(http, model_url, "sim-large", text, system=PROMPT),
            "b: wrapper + naive RAG": lambda text: ask(
                http, model_url, "sim-large", text, system=retrieval.context(text)
            ),
            # An agent brings its own instructions, the same ones.
            "c: Holdfast": lambda text: ask(http, f"{stack.gateway}/v1", "support", text),
        }
        # The first request of a worker's life embeds the examples of the intents.
        await read(paths["c: Holdfast"]("Warm-up?"))
        return [await _measure(http, stack, asked, how, path, pace) for path, how in paths.items()]


async def _measure(http: httpx.AsyncClient, stack: Stack, asked: Mix, how: Ask, path: str, pace: float | None) -> _Run:
    await arrive(asked.popular, how, per_second=10)
    before, cpu, own = await _bill(http, stack), _cpu(stack), time.process_time()
    readings, flow = await arrive(asked.asked, lambda one: how(one.text), per_second=pace)
    after = await _bill(http, stack)
    return _Run(
        path,
        f"{pace:g}/s" if pace else "all at once",
        asked.asked,
        readings,
        flow,
        Decimal(after["cost_usd"]) - Decimal(before["cost_usd"]),
        {
            model: bill["requests"] - before["models"].get(model, {"requests": 0})["requests"]
            for model, bill in after["models"].items()
        },
        {role: round(used - cpu[role], 1) for role, used in _cpu(stack).items()}
        | {"client": round(time.process_time() - own, 1)},
    )


async def _bill(http: httpx.AsyncClient, stack: Stack) -> dict[str, Any]:
    reply = await http.get(f"{stack.simulator}/_simulator/bill", params={"entries": "false"})
    bill: dict[str, Any] = reply.raise_for_status().json()
    return {"cost_usd": "0"} | bill


def _cpu(stack: Stack) -> dict[str, float]:
    return {role: cpu_seconds(pid) for role, pid in stack.pids.items()}


def _row(run: _Run) -> dict[str, Any]:
    firsts = _first_tokens(run.readings)
    completed = sum(reading.completed for reading in run.readings)
    return {
        "path": run.path,
        "pattern": run.pattern,
        "mean TTFT s": round(mean(firsts), 2),
        "p50": round(quantile(firsts, 0.5), 2),
        "p99 TTFT s": round(quantile(firsts, 0.99), 2),
        "USD per million": int(cost_per_million(run.cost_usd, len(run.readings))),
        "completed": completed,
        "failed": len(run.readings) - completed,
    }


def _details(run: _Run) -> dict[str, Any]:
    by_kind: dict[str, list[Reading]] = {}
    for one, reading in zip(run.asked, run.readings, strict=True):
        by_kind.setdefault(one.kind, []).append(reading)
    return {
        "requests_by_kind": {kind: len(readings) for kind, readings in sorted(by_kind.items())},
        "elapsed_s": round(run.flow.elapsed, 1),
        "peak_in_flight": run.flow.peak_in_flight,
        "ttft_s_by_kind": {
            kind: {"mean": round(mean(firsts), 3), "p50": round(quantile(firsts, 0.5), 3)}
            for kind, readings in sorted(by_kind.items())
            if (firsts := _first_tokens(readings))
        },
        "model_calls": run.calls,
        "cpu_s": run.cpu_s,
        "failures": dict(Counter(reading.failure for reading in run.readings if reading.failure)),
    }


def _first_tokens(readings: list[Reading]) -> list[float]:
    return [reading.first_token for reading in readings if reading.first_token is not None]


def _reached(runs: list[_Run]) -> dict[str, dict[str, float]]:
    """Holdfast against the wrapper, by pattern."""
    by = {(run.path[0], run.pattern): run for run in runs}
    return {
        run.pattern: {
            "ttft_times_better_than_wrapper": round(
                mean(_first_tokens(by["a", run.pattern].readings)) / mean(_first_tokens(run.readings)), 2
            ),
            "cost_share_of_wrapper": round(float(run.cost_usd / by["a", run.pattern].cost_usd), 3),
            "completed_share": sum(reading.completed for reading in run.readings) / len(run.readings),
        }
        for run in runs
        if run.path.startswith("c")
    }


def _models() -> str:
    handlers = "".join(
        f"\n[deployments.{_handler(matter)}]\n"
        'provider = "handler"\nmodel = "bench.canned:answer"\n'
        f'parameters = {{ text = "Everything about this is at https://example.org/help/{matter}." }}\n'
        for matter in intents()
    )
    return _MODELS + handlers


def _agent() -> str:
    listed = "".join(
        f'\n[[intents]]\nname = "{matter}"\ndeployment = "{_handler(matter)}"\nexamples = {examples!r}\n'
        for matter, examples in _toml_safe(intents()).items()
    )
    return f'deployments = ["small", "large"]\nrouting = "complexity"\nprompt = "plain.md"\n{listed}'


def _toml_safe(examples: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sentences whose Python notation is TOML's too: without quotes of their own."""
    return {matter: [text.replace("'", "’") for text in texts] for matter, texts in examples.items()}


def _handler(matter: str) -> str:
    return f"known-{matter.replace('_', '-')}"
