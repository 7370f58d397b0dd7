"""A process that asks a shared health store many times at once whether it may go, and prints the verdicts.

Run as `python -m tests.health.competitor URL PREFIX KEY TIMES`.
"""

import asyncio
import sys

from holdfast.health import RedisHealth


async def _main(url: str, prefix: str, key: str, times: int) -> None:
    health = RedisHealth(url, prefix)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for admission in await asyncio.gather(*(health.admit(key) for _ in range(times))):
        print(admission.verdict.value)
    await health.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
