"""What recording a paid call costs: openings and settlements a second, with and without group commit.

Without group commit means batches of one, everything else the same. Every transaction is on the disk when its caller
goes on.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast.contracts import FinishReason, Limits, Usage
from holdfast.errors import Outcome
from holdfast.ledger import AttemptKey, Ledger, committer

AT_ONCE = (1, 16, 64)
_HOLD = Usage(input_tokens=100, output_tokens=1_000)
_SPENT = Usage(input_tokens=80, output_tokens=200)


async def ledger(*, calls: int = 3_000) -> dict[str, Any]:
    """Open and settle `calls` calls, each of a request of its own, with several numbers of them at once."""
    runs = []
    largest = committer.LARGEST_BATCH
    for at_once in AT_ONCE:
        for batch in (largest, 1):
            committer.LARGEST_BATCH = batch
            try:
                # Alone, every call waits for two transactions; fewer of them are enough to know how long that takes.
                runs.append(await _measure(calls if at_once > 1 else calls // 4, at_once, batch))
            finally:
                committer.LARGEST_BATCH = largest
    return {"database": "SQLite, write-ahead log", "runs": runs}


async def _measure(calls: int, at_once: int, batch: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        opened = await Ledger.open(f"sqlite+aiosqlite:///{Path(directory) / 'ledger.db'}")
        try:
            turns = asyncio.Semaphore(at_once)
            before, started, cpu = opened.database.transactions, time.perf_counter(), time.process_time()
            await asyncio.gather(*(_call(opened, turns, number) for number in range(calls)))
            elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
            return {
                "at_once": at_once,
                "largest_batch": batch,
                "calls_per_second": round(calls / elapsed, 1),
                "cpu_ms_per_call": round(cpu / calls * 1000, 2),
                "transactions_per_call": round((opened.database.transactions - before) / calls, 2),
            }
        finally:
            await opened.aclose()


async def _call(opened: Ledger, turns: asyncio.Semaphore, number: int) -> None:
    async with turns:
        key = AttemptKey("acme", f"req_{number:08d}", 1)
        await opened.attempts.open(key, deployment="d", model="m", hold=_HOLD, limits=Limits())
        await opened.attempts.settle(
            f"{key.request_id}.1",
            Outcome.OK,
            usage=_SPENT,
            output=f"answer {number}",
            finish_reason=FinishReason.STOP,
            model="m",
        )
