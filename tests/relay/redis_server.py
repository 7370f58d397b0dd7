"""A Redis server of a test's own, which may be killed and started again."""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests import ports


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that no event tells of."""
    try:
        async with asyncio.timeout(60):
            while not await holds():  # noqa: ASYNC110 - what is waited for tells of nothing
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail("What was waited for has not happened.")


class RedisServer:
    """A server on a free port.

    Args:
        directory: Where it keeps its file.
        durable: Whether every write is on the disk before it is answered; else it starts empty again.
    """

    def __init__(self, directory: Path, *, durable: bool) -> None:
        program = shutil.which("redis-server")
        if program is None:
            reason = "`redis-server` is not installed, and this test kills one: install Redis 6.2 or newer"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        self.port = ports.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(str(program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""),
            *("--appendonly", "yes" if durable else "no", "--appendfsync", "always"),
        ]
        self._process: Process | None = None

    async def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=DEVNULL, stderr=DEVNULL)
        client = Redis.from_url(self.url, protocol=2)

        async def answers() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, f"redis-server ended with code {self._process.returncode}"
            try:
                return bool(await client.ping())
            except RedisConnectionError:
                return False

        await until(answers)
        await client.aclose()

    async def kill(self) -> None:
        """End it as a power failure would."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
