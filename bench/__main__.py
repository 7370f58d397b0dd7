"""`python -m bench [NAME ...]`: run the measurements and write `bench/results/NAME.json`."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import requests
from holdfast.leaving import leave

RESULTS = Path(__file__).parent / "results"

BENCHES: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "history": requests.history,
    "one_at_a_time": requests.one_at_a_time,
    "throughput": requests.throughput,
    "throughput_recall": partial(requests.throughput, agent="recalling", requests=400),
    "throughput_documents": partial(requests.throughput, agent="documents", requests=400),
    "all_in_flight": requests.all_in_flight,
    "all_in_flight_burst": partial(requests.all_in_flight, arrivals_per_second=None),
}


def main() -> int:
    """Run what is named, or everything."""
    names = sys.argv[1:] or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"No bench is called {unknown[0]!r}; there are: {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.system()}
    for name in names:
        print(f"{name} ...", flush=True)
        result = {"machine": machine} | asyncio.run(_run(BENCHES[name]))
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps(result, indent=2), flush=True)
    return 0


async def _run(bench: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await bench()


if __name__ == "__main__":
    leave(main())
