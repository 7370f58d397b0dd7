"""An installation whose rooms are processes of their own and get killed: worker, gateway, Temporal server.

The simulated model runs in the test's process, because it is not Holdfast's, and its bill has to be read.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import temporalio.client

from cli.temporal_server import TemporalServer
from holdfast.ledger import Ledger
from simulator.program import Profile
from simulator.server import Simulator
from tests.chaos.client import POLL_SECONDS, Client
from tests.chaos.processes import Mortal
from tests.house import write_config
from tests.ports import free_port

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
    for name, deployment in (("librarian", "sim"), ("secretary", "spare"), ("nightly", "bulk"))
    for twin, recall in (("", "true"), ("-undisturbed", "false"))
}
"""Each walks through every step. The undisturbed twins neither use nor leave answers to be recalled."""

# Slow enough that a kill comes while an answer is being written.
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
heartbeat_timeout = "6s"

[gateway]
port = {port}

[ledger]
url = "{ledger}"

[batch]
collect = "200ms"
poll = "1s"
lost_after = "2s"

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

FROM_OUTSIDE = {
    "approve:waiting": "waiting",
    "gateway:accepted": "accepted",
    "gateway:generating": "generating",
    "server:accepted": "accepted",
    "server:generating": "generating",
    "server:waiting": "waiting",
    "server:decided": "decided",
}
"""Points that are no line of the victim's code: what the client or the provider sees when the kill comes."""


@dataclass
class Installation:
    """All rooms of one installation."""

    plan: Path
    """The file that names the point to die at."""
    server: TemporalServer
    worker: Mortal
    gateway: Mortal
    simulator: Simulator
    ledger: Ledger
    engine: temporalio.client.Client
    http: httpx.AsyncClient

    @property
    def logs(self) -> tuple[Path, ...]:
        """What the processes have to say."""
        return self.server.log, self.gateway.log, self.worker.log

    async def revive(self) -> None:
        """Start what is dead, and forget the plan."""
        self.plan.unlink(missing_ok=True)
        self._claimed.unlink(missing_ok=True)
        self.simulator.clear_script()
        if not self.server.running:
            await self.server.start()
        for mortal in (self.gateway, self.worker):
            if not mortal.alive:
                await mortal.start()

    async def deaths(self, points: Sequence[str], client: Client) -> AsyncGenerator[str, None]:
        """Kill at the points, one after the other, and start the victim again after each.

        The first point is planned before this waits for anything.

        Args:
            points: Where; see `FROM_OUTSIDE` and `tests.chaos.mortal`.
            client: The client of the request that is disturbed.

        Yields:
            Each point, while the victim is dead.
        """
        self._arm(points[0], client)
        for point, following in zip(points, [*points[1:], None], strict=True):
            if point in FROM_OUTSIDE:
                await self._moment(FROM_OUTSIDE[point], client)
            await self._death(point)
            yield point
            if following:
                self._arm(following, client)
            await self._start(point)
            client.may_decide.set()

    @property
    def _claimed(self) -> Path:
        return self.plan.with_suffix(".claimed")

    def _victim(self, point: str) -> Mortal | None:
        """The process to die, `None` for the server."""
        room = point.partition(":")[0]
        return None if room == "server" else self.gateway if room == "gateway" else self.worker

    async def _death(self, point: str) -> None:
        victim = self._victim(point)
        if victim is None:
            self.server.kill()
            assert not self.server.running
            return
        if point in FROM_OUTSIDE:
            victim.kill()
        assert await victim.died() == -signal.SIGKILL
        if point not in FROM_OUTSIDE:
            assert self._claimed.read_text() == point
            self._claimed.unlink()

    async def _start(self, point: str) -> None:
        victim = self._victim(point)
        await (self.server if victim is None else victim).start()

    def _arm(self, point: str, client: Client) -> None:
        if FROM_OUTSIDE.get(point) != "waiting":
            client.may_decide.set()
        if FROM_OUTSIDE.get(point) == "generating":
            # So slow that the client is sure to hear that the request was accepted while its answer is being written.
            self.simulator.script({"token_ms": 200})
        if point not in FROM_OUTSIDE:
            draft = self.plan.with_suffix(".draft")
            draft.write_text(point)
            draft.rename(self.plan)

    async def _moment(self, name: str, client: Client) -> None:
        if name == "generating":
            await client.accepted.wait()
            while not self._generating(client.request_id):  # noqa: ASYNC110 - the bill has no event
                await asyncio.sleep(POLL_SECONDS)
        else:
            await {"accepted": client.accepted, "waiting": client.waiting, "decided": client.decided}[name].wait()

    def _generating(self, request_id: str) -> bool:
        return any(entry["completion_tokens"] and not entry["completed"] for entry in self.billed(request_id))

    async def runs(self, request_id: str) -> int:
        """How many runs of the request the engine has, once its lists, which follow the runs, have any."""
        while not (found := (await self.engine.count_workflows(f"WorkflowId = '{request_id}'")).count):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        return found

    def billed(self, request_id: str) -> list[dict[str, Any]]:
        """The provider's bill for a request."""
        return [
            entry
            for entry in self.simulator.bill()["entries"]
            if str(entry["client_request_id"]).replace("-", ".").rpartition(".")[0] == request_id
        ]


@asynccontextmanager
async def open_installation(
    directory: Path,
    *,
    agents: Mapping[str, str] = AGENTS,
    models: Profile = MODELS,
    tools: str = "",
    settings_too: str = "",
) -> AsyncIterator[Installation]:
    """Start every room, teach it the documents, and end every process at last.

    Args:
        directory: Where everything is.
        agents: By name.
        models: What the simulated models do.
        tools: `config/tools.toml`; modules that it names lie in `directory`.
        settings_too: More sections for the settings file.
    """
    settings, plan, ledger_url = (
        directory / "holdfast.toml",
        directory / "kill.plan",
        f"sqlite+aiosqlite:///{directory}/holdfast.db",
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            TemporalServer(port=0, ui=False, database=directory / "temporal.db", log=directory / "temporal.log")
        )
        simulator = await stack.enter_async_context(Simulator(profile=models))
        port = free_port()  # fixed for the whole test, because a gateway comes back at the address its clients know
        settings.write_text(
            SETTINGS.format(
                config=write_config(directory, simulator.url, agents, tools=tools),
                address=server.address,
                port=port,
                ledger=ledger_url,
                directory=directory,
            )
            + settings_too
        )
        worker = Mortal("worker", settings, plan, directory / "worker.log")
        stack.push_async_callback(worker.aclose)
        gateway = Mortal("gateway", settings, plan, directory / "gateway.log")
        stack.push_async_callback(gateway.aclose)
        await asyncio.gather(worker.start(), gateway.start())
        ledger = await Ledger.open(ledger_url)
        stack.push_async_callback(ledger.aclose)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60))
        engine = await temporalio.client.Client.connect(server.address)
        await _ready(http)
        documents = [{"source": source, "text": text} for source, text in DOCUMENTS.items()]
        reply = await http.post("/v1/collections/docs/documents?wait=60", json={"documents": documents})
        assert reply.json().get("sources") == len(DOCUMENTS), reply.text
        yield Installation(plan, server, worker, gateway, simulator, ledger, engine, http)


async def _ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(180):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(POLL_SECONDS)
