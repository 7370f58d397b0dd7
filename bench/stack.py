"""Starts what is measured: Temporal server on a WAL file, simulator and application, each a process of its own."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
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

PROMPT = "Answer the question."
"""The instructions of every agent here, and of the wrapper."""

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
async def running(
    *,
    profile: str | None = None,
    simulator_profile: str | Path = "",
    models: str = MODELS,
    agents: Mapping[str, str] = AGENTS,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """Start a stack in a scratch directory and stop it in order.

    Args:
        profile: File for a cProfile of the application.
        simulator_profile: TOML for the simulator, e.g. latencies; or a file with it.
        models: `models.toml`; `%(url)s` stands for the simulator.
        agents: Files of `config/agents`, by name.
        environment: Further settings of the application.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        temporal = await stack.enter_async_context(TemporalServer(database=directory / "temporal.db", port=0, ui=False))
        simulator, url = await provider(stack, directory, simulator_profile)
        config = _write_config(directory, models % {"url": url}, agents)
        settings = {
            "HOLDFAST_CONFIG_DIR": str(config),
            "HOLDFAST_ENGINE__ADDRESS": temporal.address,
            "HOLDFAST_GATEWAY__PORT": "0",
            "HOLDFAST_GATEWAY__MAX_WAIT": "10m",
            "HOLDFAST_LEDGER__URL": f"sqlite+aiosqlite:///{directory}/holdfast.db",
            "HOLDFAST_KNOWLEDGE__PATH": str(directory / "knowledge"),
            **({"BENCH_PROFILE": profile} if profile else {}),
            **(environment or {}),
        }
        application, gateway = await start(stack, "bench.application", environment=settings)
        yield Stack(
            gateway,
            url,
            temporal,
            directory / "holdfast.db",
            {"temporal": temporal.pid or 0, "simulator": simulator.pid, "application": application.pid},
        )


async def provider(
    stack: AsyncExitStack, directory: Path, profile: str | Path = ""
) -> tuple[asyncio.subprocess.Process, str]:
    """Start a simulator as a process of its own.

    Args:
        stack: Stops it.
        directory: For its files.
        profile: Its profile as TOML, or the file with it.

    Returns:
        The process and its address.
    """
    if isinstance(profile, str):
        written = directory / "simulator.toml"
        written.write_text(profile)
        profile = written
    process, line = await start(stack, "simulator", "--port", "0", "--profile", str(profile), environment={})
    return process, line.rsplit(" ", 1)[-1]


async def start(
    stack: AsyncExitStack, module: str, *arguments: str, environment: Mapping[str, str], patience: float = 120
) -> tuple[asyncio.subprocess.Process, str]:
    """Run a module as a process, stopped with the stack.

    Args:
        stack: Stops it.
        module: Which.
        arguments: On its command line.
        environment: Beside this process's own.
        patience: Seconds to wait for its first line.

    Returns:
        The process, and the first line that it printed.
    """
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
    line = (await asyncio.wait_for(process.stdout.readline(), patience)).decode().strip()
    if not line:
        raise RuntimeError(f"{module} ended before it was ready, with code {await process.wait()}")
    return process, line


def _write_config(directory: Path, models: str, agents: Mapping[str, str]) -> Path:
    config = directory / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text(models)
    (config / "prompts" / "plain.md").write_text(f"{PROMPT}\n")
    for name, text in agents.items():
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
