"""`python -m bench [NAME ...] [--size SHARE]`: run the measurements and write `bench/results/NAME.json`."""

import argparse
import json
import os
import platform
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench import requests
from bench.approvals import approvals
from bench.edge_hit import edge_hit
from bench.fairness import fairness
from bench.ledger import ledger
from bench.overload import overload
from bench.seed_table import seed_table
from bench.token_latency import token_latency
from holdfast.leaving import leave

RESULTS = Path(__file__).parent / "results"

BY_NAME_ONLY = frozenset({"throughput_recall", "throughput_documents", "all_in_flight_burst", "overload_tokens"})
"""Variants of others, left out when everything is run, so that it takes a quarter of an hour and not half of one."""


def benches(size: float) -> dict[str, Callable[[], Awaitable[dict[str, Any]]]]:
    """Every measurement by name.

    Args:
        size: Share of the usual number of requests or seconds.
    """

    def some(count: int) -> int:
        return max(round(count * size), 2)

    return {
        "history": requests.history,
        "one_at_a_time": lambda: requests.one_at_a_time(rounds=some(200)),
        "throughput": lambda: requests.throughput(requests=some(1_000)),
        "throughput_recall": lambda: requests.throughput(agent="recalling", requests=some(400)),
        "throughput_documents": lambda: requests.throughput(agent="documents", requests=some(400)),
        "all_in_flight": lambda: requests.all_in_flight(requests=some(1_000)),
        "all_in_flight_burst": lambda: requests.all_in_flight(requests=some(1_000), arrivals_per_second=None),
        "seed_table": lambda: seed_table(requests=some(1_000)),
        "overload": lambda: overload(seconds=60 * size),
        "overload_tokens": lambda: overload(quota="tokens", seconds=30 * size),
        "edge_hit": lambda: edge_hit(seconds=5 * size),
        "token_latency": lambda: token_latency(streams=some(100)),
        "fairness": lambda: fairness(flood=some(200)),
        "ledger": lambda: ledger(calls=some(3_000)),
        "approvals": lambda: approvals(parked=some(1_000), decisions=some(200)),
    }


def main() -> int:
    """Run what is named, or all but variants."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Holdfast on this machine.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join(benches(1))} (default: all but variants)"
    )
    parser.add_argument("--size", type=float, default=1.0, metavar="SHARE", help="share of the usual size")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are written")
    options = parser.parse_args()
    known = benches(options.size)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no bench is called {unknown[0]!r}; there are: {', '.join(known)}")
    options.results.mkdir(exist_ok=True, parents=True)
    for name in options.names or [name for name in known if name not in BY_NAME_ONLY]:
        print(f"{name} ...", flush=True)
        machine = _machine()
        result = {"machine": machine, "size": options.size} | uvloop.run(_run(known[name]))
        (options.results / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps(result, indent=2), flush=True)
    return 0


def _machine() -> dict[str, Any]:
    """Where and when; the load is what others did in the minute before, for a machine that is not one's own."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 1),
    }


async def _run(bench: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await bench()


if __name__ == "__main__":
    leave(main())
