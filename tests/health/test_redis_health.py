"""Health through Redis: one probe over processes, small state that goes by itself, and Redis away."""

import asyncio
import logging
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

import holdfast.health.redis
from holdfast.breaker import BreakerPolicy, Verdict
from holdfast.errors import Outcome, Unavailable
from holdfast.health import RedisHealth, Standing
from tests.health.conftest import KEY
from tests.limits.conftest import redis_prefix
from tests.redis_process import RedisProcess


async def test_of_several_processes_that_ask_at_once_one_sends_the_probe() -> None:
    processes, times = 3, 20
    async with redis_prefix() as (url, prefix, _):
        # Opened for no time at all: whoever asks next is the probe.
        health = RedisHealth(url, prefix, BreakerPolicy(open_for=timedelta(microseconds=1)))
        for _ in range(5):
            await health.admit(KEY)
        for _ in range(5):
            await health.record(KEY, Outcome.OVERLOADED, first_token=None, duration=None)
        running = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.health.competitor", url, prefix, KEY, str(times)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(processes)
        ]
        async with asyncio.timeout(120):
            for process in running:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in running))
        await health.aclose()
    verdicts = Counter(line for output, _ in outputs for line in output.decode().split())
    assert verdicts == {Verdict.PROBE.value: 1, Verdict.REFUSE.value: processes * times - 1}


async def test_records_of_two_workers_are_added_up() -> None:
    async with redis_prefix() as (url, prefix, _):
        workers = [RedisHealth(url, prefix) for _ in range(2)]
        for worker in workers:
            for _ in range(3):
                assert (await worker.admit(KEY)).verdict is Verdict.ALLOW
        assert (await workers[0].look([KEY]))[KEY].in_flight == 6
        await asyncio.gather(
            *(
                worker.record(KEY, Outcome.OVERLOADED, first_token=None, duration=None)
                for worker in workers
                for _ in range(3)
            )
        )
        for worker in workers:
            assert (await worker.admit(KEY)).verdict is Verdict.REFUSE
            await worker.aclose()


async def test_the_state_is_small_and_goes_by_itself() -> None:
    async with redis_prefix() as (url, prefix, client):
        health = RedisHealth(url, prefix)
        for number in range(300):
            await health.admit(KEY)
            await health.record(
                KEY,
                Outcome.OK if number % 3 else Outcome.UNKNOWN,
                first_token=timedelta(milliseconds=number),
                duration=timedelta(seconds=2),
                output_tokens=number,
                timed_out=True,
            )
        keys = [key async for key in client.scan_iter(match=f"*{prefix}*", count=1000)]
        assert len(keys) == 2
        for key in keys:
            assert 0 < await client.ttl(key) <= 3600
            size = await client.memory_usage(key)
            assert size is not None
            assert size < 4_096
        await health.aclose()


async def test_a_look_is_remembered_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert holdfast.health.redis.FRESH_SECONDS == 1.0
    monkeypatch.setattr("holdfast.health.redis.FRESH_SECONDS", 3_600.0)
    async with redis_prefix() as (url, prefix, _):
        health = RedisHealth(url, prefix)
        before = (await health.look([KEY]))[KEY]
        await health.admit(KEY)
        assert (await health.look([KEY]))[KEY] == before
        monkeypatch.setattr("holdfast.health.redis.FRESH_SECONDS", 0.0)
        assert (await health.look([KEY]))[KEY].in_flight == 1
        await health.aclose()


async def test_without_redis_nothing_goes_no_reply_is_lost_and_afterwards_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.health.redis.FRESH_SECONDS", 0.0)
    server = RedisProcess(tmp_path)
    await server.start()
    health = RedisHealth(server.url, "test")
    try:
        for _ in range(3):
            await health.admit(KEY)
        await health.record(KEY, Outcome.RATE_LIMITED, first_token=None, duration=None)
        known = (await health.look([KEY]))[KEY]
        assert (known.state, known.in_flight) == (Standing.COOLING, 2)
        await server.kill()
        answers = await asyncio.gather(*(health.admit(KEY) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        with pytest.raises(Unavailable, match=rf"health.*Redis at 127.0.0.1:{server.port}/0.*Start it"):
            await health.admit(KEY)
        with caplog.at_level(logging.WARNING):
            await health.record(KEY, Outcome.OK, first_token=None, duration=None)
        assert "outcome of a call is not counted" in caplog.text
        assert (await health.look([KEY]))[KEY] == known
        await server.start()
        assert (await health.admit(KEY)).verdict is Verdict.ALLOW
        assert (await health.look([KEY]))[KEY].in_flight == 2
    finally:
        await health.aclose()
        await server.kill()


async def test_many_that_ask_a_silent_server_do_not_wait_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wait for seconds; together they wait about as long as one."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    health = RedisHealth(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", "test")
    try:
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(health.admit(KEY) for _ in range(100)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
    finally:
        await health.aclose()
        server.close()
        await server.wait_closed()
