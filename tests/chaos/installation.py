"""An installation whose rooms are processes of their own and may be killed: worker, gateway, Temporal server.

The simulated model runs in the test's process, because it is not Holdfast and its bill has to be read.
"""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cli.temporal_server import TemporalServer
from holdfast.contracts import Status
from holdfast.ledger import Attempt, Ledger
from simulator.program import Profile
from simulator.server import Simulator
from tests.chaos.client import Client
from tests.house import write_config

ROOT = Path(__file__).parents[2]
TENANT = "local"

_AGENT = """
deployments = ["%s"]
prompt = "plain.md"
collection = "docs"
passages = 3
recall = %s
[approval]
approvers = ["ann"]
within = "4h"
"""

AGENTS = {
    f"{name}{twin}": _AGENT % (deployment, recall)
    for name, deployment in (("librarian", "sim"), ("secretary", "spare"))
    for twin, recall in (("", "true"), ("-undisturbed", "false"))
}
"""Each walks through every step. The undisturbed twins neither use nor leave answers to be recalled."""

# Slow enough that a kill can come while an answer is being written.
MODELS = Profile.read(
    {
        "default": {"token_ms": 20},
        "models": {"sim-spare": {"content": "Written to <EMAIL_1>, as [1] demands."}},
    }
)

SETTINGS = """
config_dir = "{config}"
[engine]
address = "{address}"
task_queue = "chaos"
workflow_task_timeout = "2s"
sticky_timeout = "1s"
heartbeat_timeout = "3s"
[gateway]
port = {port}
[ledger]
url = "{ledger}"
[knowledge]
path = "{directory}/knowledge"
"""

DOCUMENTS = {
    "anchor.md": "An anchor holds a ship fast in a storm. Its chain must be five times as long as the water is deep.",
    "sail.md": "A sail moves a ship when the wind blows. In a gale it is taken down before it tears.",
    "rudder.md": "A rudder turns a ship against the water. Without way on the ship it turns nothing.",
    "pilot.md": "A pilot knows the rocks of one harbour. No captain enters a strange harbour without one.",
    "log.md": "The log keeps what was done, by whom and when. No page of the log is ever torn out.",
}


class Mortal:
    """A process that can die and be started again; see `tests.chaos.mortal`.

    Args:
        role: `worker` or `gateway`.
        plan: The file that names the point to die at.
        log: Where the process writes.
    """

    def __init__(self, role: str, plan: Path, log: Path) -> None:
        self._role = role
        self._plan = plan
        self._nursery: Process | None = None
        self._pid = 0
        self._end: asyncio.Task[int] | None = None
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._end is not None and not self._end.done()

    async def start(self, settings: Path) -> None:
        """Bring it to life; the first time this imports everything."""
        if self._nursery is None:
            with self.log.open("ab") as log:
                self._nursery = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.chaos.mortal", self._role, str(self._plan), str(self.log)),
                    cwd=self.log.parent,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_CONFIG": str(settings)},
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=log,
                )
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(b"\n")
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
        """End it and its parent for good."""
        self.kill()
        if self._nursery is not None and self._nursery.stdin is not None:
            self._nursery.stdin.close()
            await self._nursery.wait()
        if self._end is not None:
            await self._end

    async def _told(self) -> int:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        line = await self._nursery.stdout.readline()
        assert line, f"The {self._role}'s parent has died; see {self.log}."
        return int(line)


@dataclass
class Installation:
    """All rooms of one installation."""

    directory: Path
    server: TemporalServer
    worker: Mortal
    gateway: Mortal
    simulator: Simulator
    ledger: Ledger
    http: httpx.AsyncClient

    @property
    def settings(self) -> Path:
        """The settings file of all processes."""
        return self.directory / "holdfast.toml"

    @property
    def plan(self) -> Path:
        """The file that names the point to die at."""
        return self.directory / "kill.plan"

    @property
    def logs(self) -> tuple[Path, ...]:
        """What the processes have to say."""
        return self.server.log, self.gateway.log, self.worker.log

    async def revive(self) -> None:
        """Start what is dead, and forget plans."""
        self.plan.unlink(missing_ok=True)
        self.plan.with_suffix(".claimed").unlink(missing_ok=True)
        if not self.server.running:
            await self.server.start()
        for mortal in (self.gateway, self.worker):
            if not mortal.alive:
                await mortal.start(self.settings)

    async def kill_at(self, points: Sequence[str], client: Client) -> None:
        """Let the processes die at the points, one after the other, and start each again.

        The first point is planned before this waits for anything.
        """
        for point in points:
            victim, _, moment = point.partition(":")
            within = await self._killed_from_outside(victim, moment, client)
            if within:
                continue
        raise NotImplementedError

    def billed(self, request_id: str) -> list[dict[str, Any]]:
        """The provider's bill for a request."""
        return [
            entry
            for entry in self.simulator.bill()["entries"]
            if str(entry["client_request_id"]).rpartition(".")[0] == request_id
        ]
