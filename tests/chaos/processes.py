"""A worker or a gateway as a child process that dies and is started again; see `tests.chaos.mortal`."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]


class Mortal:
    """A process that can die.

    Args:
        role: Which one.
        settings: Holdfast's settings file.
        plan: The file that names the point to die at.
        log: Where the process writes.
    """

    def __init__(self, role: Literal["worker", "gateway"], settings: Path, plan: Path, log: Path) -> None:
        self._command = (sys.executable, "-m", "tests.chaos.mortal", role, str(plan), str(log))
        self._settings = settings
        self._parent: Process | None = None
        self._pid = 0
        self._end: asyncio.Task[int] | None = None
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._end is not None and not self._end.done()

    async def start(self) -> None:
        """Bring it to life; the first time this imports everything."""
        if self._parent is None:
            with self.log.open("ab") as log:
                self._parent = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=self.log.parent,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_CONFIG": str(self._settings)},
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=log,
                )
        assert self._parent.stdin is not None
        self._parent.stdin.write(b"\n")
        self._pid = await self._told()
        self._end = asyncio.create_task(self._told())

    async def died(self) -> int:
        """Wait for its death.

        Returns:
            The exit code; negative for a signal.
        """
        assert self._end is not None
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.alive:
            os.kill(self._pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """End it for good."""
        if self._parent is None:
            return
        self.kill()
        if self._end is not None:
            await self._end
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        await self._parent.wait()

    async def _told(self) -> int:
        assert self._parent is not None
        assert self._parent.stdout is not None
        line = await self._parent.stdout.readline()
        assert line, f"The process could not start; see {self.log}."
        return int(line)
