"""A process that publishes one attempt of a request; run by `test_redis.py`.

Arguments: URL, prefix, request, attempt, text. It publishes what each line of its input says: `begin`, a number of
characters to say next, `end`, or `close`; and answers `ok` once Redis has it.
"""

import asyncio
import sys

from holdfast.relay import RedisRelay
from tests.relay.following import began, ended, text


async def main(url: str, prefix: str, request_id: str, attempt: int, said: str) -> None:
    """Obey until the input ends."""
    offset = 0
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        relay = RedisRelay(url, prefix)
        if line == "begin":
            await relay.publish(began(request_id, attempt))
        elif line == "end":
            await relay.publish(ended(request_id, attempt, offset))
        elif line == "close":
            await relay.close(request_id)
        else:
            for _ in range(int(line)):
                await relay.publish(text(request_id, attempt, offset, said[offset]))
                await asyncio.sleep(0)
                offset += 1
        await relay.aclose()
        print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]))
