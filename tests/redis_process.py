"""A Redis server of one's own, to be killed and started again."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import redis

from tests import ports, services


class RedisProcess:
    """A server on a free port of the loopback interface that keeps nothing when it is killed."""

    def __init__(self, directory: Path) -> None:
        services.redis_url()
        binary = shutil.which("redis-server")
        assert binary is not None, "redis answers but `redis-server` is not on the PATH"
        self._binary = binary
        self._directory = directory
        self.port = ports.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", str(self._directory), "--loglevel", "warning"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while not self._answers():
                assert self._process.returncode is None, f"redis-server ended with code {self._process.returncode}"
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                return False
