"""Redis away: nothing is let through, the error says so, and it works again by itself."""

import asyncio
from pathlib import Path

import pytest

from holdfast.errors import Unavailable
from holdfast.limits import Admitted, RedisLimiter, Scope
from tests.redis_process import RedisProcess

SCOPE = Scope("d", requests_per_minute=1_000, tokens_per_minute=1_000, concurrency=100)


async def test_without_redis_nothing_is_let_through_and_afterwards_it_goes_on(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path)
    await server.start()
    limiter = RedisLimiter(server.url, "test")
    try:
        before = await asyncio.gather(*(limiter.admit(f"a{number}", [SCOPE], 1) for number in range(30)))
        assert all(isinstance(answer, Admitted) for answer in before)
        await server.kill()
        answers = await asyncio.gather(
            *(limiter.admit(f"b{number}", [SCOPE], 1) for number in range(30)), return_exceptions=True
        )
        assert all(isinstance(answer, Unavailable) for answer in answers)
        with pytest.raises(Unavailable, match=rf"limiter.*Redis at 127.0.0.1:{server.port}/0.*Start it"):
            await limiter.admit("c", [SCOPE], 1)
        assert isinstance(before[0], Admitted)
        with pytest.raises(Unavailable):
            await limiter.settle(before[0], 1)
        assert isinstance(await limiter.admit("d", [Scope("free")], 1), Admitted)
        await server.start()
        after = await asyncio.gather(*(limiter.admit(f"e{number}", [SCOPE], 1) for number in range(30)))
        assert all(isinstance(answer, Admitted) for answer in after)
        await limiter.settle(before[0], 1)
    finally:
        await limiter.aclose()
        await server.kill()


async def test_a_server_that_accepts_and_never_answers_is_given_up_on() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limiter = RedisLimiter(f"redis://:secret@127.0.0.1:{port}/0", "test")
    try:
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                *(limiter.admit(f"t{number}", [SCOPE], 1) for number in range(50)), return_exceptions=True
            )
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert not any("secret" in str(answer) for answer in answers)
    finally:
        await limiter.aclose()
        server.close()
        await server.wait_closed()
