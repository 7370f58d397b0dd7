"""Starts what is measured: Temporal server on a WAL file, simulator and application, each a process of its own."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.temporal_server import TemporalServer

MODELS = """
[deployments.sim]
provider = "openai"
model = "sim-large"
base_url = "%(url)s/v1"
price = { input = "0.50", output = "1.50" }
concurrency = 1200
timeouts = { first_token = "120s", between_tokens = "60s" }

[deployments.extractive]
provider = "extractive"
model = "extractive-1"
price = { input = "0", output = "0" }
"""

AGENTS = {
    "plain": 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n',
    "recalling": 'deployments = ["sim"]\nprompt = "plain.md"\n',
    "documents": 'deployments = ["sim"]\nprompt = "plain.md"\ncollection = "docs"\n',
}


@dataclass(frozen=True)
class Stack:
    """A running installation."""

    gateway: str
    simulator: str
    temporal: TemporalServer
    ledger: Path
    """The SQLite file."""
    pids: dict[str, int]
    """Process ids by role, for reading their CPU time."""


@asynccontextmanager
async def running(*, profile: str | None = None, simulator_profile: str = "") -> AsyncIterator[Stack]:
    """Start a stack in a scratch directory and stop it in order.

    Args:
        profile: File for a cProfile of the application.
        simulator_profile: TOML for the simulator, e.g. latencies.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        temporal = await stack.enter_async_context(TemporalServer(database=directory / "temporal.db", port=0, ui=False))
        (directory / "simulator.toml").write_text(simulator_profile)
        simulator, line = await _start(
            stack, "simulator", "--port", "0", "--profile", str(directory / "simulator.toml"), environment={}
        )
        url = line.rsplit(" ", 1)[-1]
        config = _write_config(directory, url)
        environment = {
            "HOLDFAST_CONFIG_DIR": str(config),
            "HOLDFAST_ENGINE__ADDRESS": temporal.address,
            "HOLDFAST_GATEWAY__PORT": "0",
            "HOLDFAST_GATEWAY__MAX_WAIT": "10m",
            "HOLDFAST_LEDGER__URL": f"sqlite+aiosqlite:///{directory}/holdfast.db",
            "HOLDFAST_KNOWLEDGE__PATH": str(directory / "knowledge"),
        } | ({"BENCH_PROFILE": profile} if profile else {})
        application, gateway = await _start(stack, "bench.application", environment=environment)
        yield Stack(
            gateway,
            url,
            temporal,
            directory / "holdfast.db",
            {"temporal": temporal.pid or 0, "simulator": simulator.pid, "application": application.pid},
        )


async def _start(
    stack: AsyncExitStack, module: str, *arguments: str, environment: dict[str, str]
) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )

    async def stop() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()
                await process.wait()

    stack.push_async_callback(stop)
    if process.stdout is None:
        raise AssertionError("stdout is a pipe")
    line = (await asyncio.wait_for(process.stdout.readline(), 120)).decode().strip()
    if not line:
        raise RuntimeError(f"{module} ended before it was ready, with code {await process.wait()}")
    return process, line


def _write_config(directory: Path, url: str) -> Path:
    config = directory / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text(MODELS % {"url": url})
    (config / "prompts" / "plain.md").write_text("Answer the question.\n")
    for name, text in AGENTS.items():
        (config / "agents" / f"{name}.toml").write_text(text)
    return config


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15 of `stat`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def client(*, connections: int = 2_000) -> httpx.AsyncClient:
    """An HTTP client that does not limit the load."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(timeout=httpx.Timeout(900), limits=limits)


async def submit(http: httpx.AsyncClient, gateway: str, agent: str, text: str, *, wait: int = 300) -> dict[str, object]:
    """Post one request and wait for its end."""
    reply = await http.post(f"{gateway}/v1/requests", params={"wait": wait}, json={"agent": agent, "input": text})
    reply.raise_for_status()
    return dict(json.loads(reply.content))
