"""A process that sends as many calls as a shared limiter lets through, and prints when each was admitted.

Run as `python -m tests.limits.competitor URL PREFIX NAME CALLS`.
"""

import asyncio
import sys
import time
from datetime import timedelta

from holdfast.limits import Admitted, RedisLimiter, Scope

SCOPE = Scope("shared", requests_per_minute=1_200, tokens_per_minute=240_000, concurrency=10)
WINDOW = timedelta(seconds=1)
"""A sixtieth of the limits above: 20 calls and 4,000 tokens in each second."""
TOKENS = 150


async def _call(limiter: RedisLimiter, name: str) -> None:
    while True:
        answer = await limiter.admit(name, [SCOPE], TOKENS)
        if isinstance(answer, Admitted):
            break
        await asyncio.sleep(answer.duration.total_seconds())
    began = time.time()
    await asyncio.sleep(0.02)
    ended = time.time()
    await limiter.settle(answer, TOKENS)
    print(answer.at, began, ended, flush=True)


async def _main(url: str, prefix: str, name: str, calls: int) -> None:
    limiter = RedisLimiter(url, prefix, window=WINDOW)
    await asyncio.gather(*(_call(limiter, f"{name}-{number}") for number in range(calls)))
    await limiter.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
