"""A whole Holdfast for tests: real engine, real ledger, real gateway, real provider adapter, simulated model.

Only the embedding model is replaced, by one that hashes words, because what it returns is not what these tests are
about and loading torch takes seconds.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

import worker
from gateway.app import create_app
from gateway.engine import Engine
from holdfast.configuration import Configuration, load_configuration
from holdfast.contracts import Progress
from holdfast.health import Health, MemoryHealth
from holdfast.knowledge import DIMENSIONS, Vectors
from holdfast.settings import Settings
from simulator.server import Simulator
from workflows.connection import DATA_CONVERTER

PATIENCE_SECONDS = 120
"""How long a test waits for what must come; a machine that is busy with something else may be slow."""

_NOT_YET = frozenset({RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED})
"""What the engine says to a question that no worker could answer yet."""

_numbers = itertools.count(1)

AGENTS: Mapping[str, str] = {
    "plain": 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n',
    "recalling": 'deployments = ["sim"]\nprompt = "plain.md"\n',
    "held": (
        'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
        '[approval]\napprovers = ["ann", "bob"]\nwithin = "4h"\n'
    ),
    "json": 'deployments = ["sim"]\nprompt = "plain.md"\noutput_schema = "point.json"\nrecall = false\n',
    "heldjson": (
        'deployments = ["sim"]\nprompt = "plain.md"\noutput_schema = "point.json"\nrecall = false\n'
        '[approval]\napprovers = ["ann"]\n'
    ),
    "docs": 'deployments = ["extractive"]\nprompt = "plain.md"\ncollection = "docs"\nrecall = false\n',
    "fallback": 'deployments = ["sim", "spare"]\nprompt = "plain.md"\nrecall = false\n',
    "anthropic": 'deployments = ["claude"]\nprompt = "plain.md"\nrecall = false\n',
    "careful": (
        'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
        '[fallbacks]\ncontext_window = ["long"]\ncontent_policy = ["claude"]\nbudget = ["spare"]\n'
    ),
    "unsure": (
        'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[escalation]\nbelow = 0.7\nto = ["long"]\n'
    ),
    "sureof": (
        'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\noutput_schema = "sure.json"\n'
        '[escalation]\nbelow = 0.7\nto = ["spare"]\nfield = "/confidence"\n'
    ),
    "helpdesk": (
        'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[[intents]]\nname = "password"\n'
        'deployment = "password-reset"\nexamples = ["how do I reset my password", "reset my password please", '
        '"i want to reset my password"]\n'
    ),
    "frugal": ('deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[fallbacks]\nbudget = ["extractive"]\n'),
    "asking": ('deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[budget_approval]\napprovers = ["boss"]\n'),
    "throttled": 'deployments = ["narrow"]\nprompt = "plain.md"\nrecall = false\n',
    "fleeting": 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\non_disconnect = "cancel"\n',
    "nightly": 'deployments = ["bulk"]\nprompt = "plain.md"\nrecall = false\n',
    "nightlyclaude": 'deployments = ["bulkclaude"]\nprompt = "plain.md"\nrecall = false\n',
    "nightlyspare": 'deployments = ["bulk", "spare"]\nprompt = "plain.md"\nrecall = false\n',
    "nightlyjson": 'deployments = ["bulk"]\nprompt = "plain.md"\noutput_schema = "point.json"\nrecall = false\n',
    "nightlyheld": 'deployments = ["bulk"]\nprompt = "plain.md"\nrecall = false\n[approval]\napprovers = ["ann"]\n',
    "strict": ('deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n[guards]\nrefuse = ["forbidden topic"]\n'),
}

MODELS = """
[deployments.extractive]
provider = "extractive"
model = "extractive-1"
price = { input = "0", output = "0" }

[deployments.sim]
provider = "openai"
model = "sim-large"
base_url = "%(url)s/v1"
price = { input = "0.50", output = "1.50" }

[deployments.spare]
provider = "openai"
model = "sim-spare"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }

[deployments.claude]
provider = "anthropic"
model = "sim-claude"
base_url = "%(url)s"
price = { input = "3", output = "15", cache_read = "0.30", cache_write = "3.75" }

[deployments.long]
provider = "openai"
model = "sim-long"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
context_window = 1000000

[deployments.narrow]
provider = "openai"
model = "sim-narrow"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
concurrency = 2

[deployments.bulk]
provider = "openai"
model = "sim-bulk"
base_url = "%(url)s/v1"
price = { input = "2", output = "6" }
batch = true

[deployments.bulkclaude]
provider = "anthropic"
model = "sim-bulkclaude"
base_url = "%(url)s"
price = { input = "2", output = "6" }
batch = true

[deployments.password-reset]
provider = "handler"
model = "holdfast.handlers:password_reset"
parameters = { reset_url = "https://example.org/reset" }
"""

POINT_SCHEMA = (
    '{"type": "object", "properties": {"x": {"type": "integer"}, "note": {"type": "string", "minLength": 1}}, '
    '"required": ["x", "note"], "additionalProperties": false}'
)


SURE_SCHEMA = (
    '{"type": "object", "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}}, '
    '"required": ["answer", "confidence"], "additionalProperties": false}'
)


class HashedWords:
    """An embedder whose vectors are hashed bags of words: deterministic, and similar for texts that share words."""

    async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Vectors:
        """One unit vector per text."""
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.strip(".,;:?!`").encode()).digest()
                vectors[row, int.from_bytes(digest[:4]) % DIMENSIONS] += 1
            vectors[row, 0] += 0.01
            vectors[row] /= np.linalg.norm(vectors[row])
        return vectors

    async def aclose(self) -> None:
        """Nothing to release."""


def write_config(
    directory: Path,
    simulator_url: str,
    agents: Mapping[str, str] = AGENTS,
    models: str = MODELS,
    tools: str = "",
    notifications: str = "",
    people: str = "",
) -> Path:
    """Write a `config` directory with the test agents and return it; `%(url)s` in `models` is the simulator."""
    config = directory / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text(models % {"url": simulator_url})
    if tools:
        (config / "tools.toml").write_text(tools)
    if notifications:
        (config / "notifications.toml").write_text(notifications)
    if people:
        (config / "people.toml").write_text(people)
    (config / "prompts" / "plain.md").write_text("Answer the question.\n")
    (config / "schemas" / "point.json").write_text(POINT_SCHEMA)
    (config / "schemas" / "sure.json").write_text(SURE_SCHEMA)
    for name, text in agents.items():
        (config / "agents" / f"{name}.toml").write_text(text)
    return config


@dataclass
class House:
    """The rooms of one running installation."""

    settings: Settings
    configuration: Configuration
    services: worker.Services
    client: Client
    engine: Engine
    http: httpx.AsyncClient
    simulator: Simulator
    health: Health
    decided: set[tuple[str, int]] = field(default_factory=set)
    """Questions that a decision has settled, by request and number."""

    def reset(self) -> None:
        """Forget what is scripted and billed, and which deployments are not well."""
        self.simulator.reset()
        if isinstance(self.health, MemoryHealth):
            self.health.clear()

    async def submit(self, agent: str, text: str, *, wait: float = 0, **body: Any) -> dict[str, Any]:
        """Post a request and return its JSON."""
        reply = await self.http.post(
            "/v1/requests", params={"wait": wait} if wait else {}, json={"agent": agent, "input": text, **body}
        )
        assert reply.status_code in (200, 202), reply.text
        shown = dict(reply.json())
        return await self._settled(shown) if wait else shown

    async def ask(self, agent: str, text: str, **body: Any) -> dict[str, Any]:
        """Post a request and wait for its end, or for a person."""
        return await self.submit(agent, text, wait=30, **body)

    async def show(self, request_id: str, *, wait: float = 30) -> dict[str, Any]:
        """Read a request; unless `wait` is 0, at its end, or when it waits for a decision that it was not given yet."""
        shown = await self._read(request_id, wait)
        return await self._settled(shown) if wait else shown

    async def _read(self, request_id: str, wait: float) -> dict[str, Any]:
        reply = await self.http.get(f"/v1/requests/{request_id}", params={"wait": wait})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def _settled(self, shown: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while shown["status"] == "running" or self._is_decided(shown):
                await asyncio.sleep(0.02)
                shown = await self._read(shown["id"], 30)
        return shown

    def _is_decided(self, shown: dict[str, Any]) -> bool:
        """Whether a request shows a question whose decision was taken: its run says so with its next task."""
        return shown["status"] == "waiting" and (shown["id"], shown["approval"]["round"]) in self.decided

    async def decide(
        self, request_id: str, decision: str, *, by: str, content: str | None = None, **body: Any
    ) -> httpx.Response:
        """Decide an approval as `by`; without `content`, on what is waiting. Sent again while no worker takes it."""
        if content is None:
            content = (await self.waiting(request_id))["content_sha256"]
        key = uuid.uuid4().hex
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                reply = await self.http.post(
                    f"/v1/approvals/{request_id}/decisions",
                    headers={"X-Holdfast-User": by, "Idempotency-Key": key},
                    json={"decision": decision, "content_sha256": content, **body},
                )
                if reply.status_code != 503:
                    break
                await asyncio.sleep(0.1)
        if reply.status_code == 200 and reply.json()["final"]:
            self.decided.add((request_id, reply.json()["round"]))
        return reply

    async def listed(self, request_id: str, user: str) -> dict[str, Any]:
        """A question as one person's list has it, once the list, which follows the run, has it as the run has it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                content = (await self.waiting(request_id))["content_sha256"]
                for row in await self.list_of(user):
                    if (row["request_id"], row["content_sha256"]) == (request_id, content):
                        return row
                await asyncio.sleep(0.05)

    async def list_of(self, user: str) -> list[dict[str, Any]]:
        """What a person's list has at this moment."""
        reply = await self.http.get("/v1/approvals", headers={"X-Holdfast-User": user}, params={"limit": 500})
        assert reply.status_code == 200, reply.text
        return list(reply.json()["approvals"])

    async def waiting(self, request_id: str) -> dict[str, Any]:
        """The open approval of a request, as the engine's memory holds it."""
        description = await self.client.get_workflow_handle(request_id).describe()
        memo = await description.memo()
        approval = memo["approval"]
        return {"content_sha256": approval["content"]["sha256"], "deadline": approval["deadline"]}

    async def progress(self, request_id: str, run_id: str | None = None) -> Progress:
        """A request's run sheet; waits for a run that has just begun, which the engine asks nothing before its first
        task is done.
        """
        handle = self.client.get_workflow_handle(request_id, run_id=run_id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    sheet: Progress = await handle.query("progress", result_type=Progress)
                except RPCError as error:
                    if error.status not in _NOT_YET:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return sheet

    async def ended(self, request_id: str) -> None:
        """Wait until the request's run is closed, however it ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(WorkflowFailureError):
                await self.client.get_workflow_handle(request_id).result()

    async def until_the_model_is_called(self) -> None:
        """Wait until the simulator has accepted a call."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.simulator.bill(entries=False)["requests"]:  # noqa: ASYNC110 - the bill has no event
                await asyncio.sleep(0.01)

    async def history(self, request_id: str) -> WorkflowHistory:
        """The request's recorded history."""
        return await self.client.get_workflow_handle(request_id).fetch_history()


@asynccontextmanager
async def open_house(
    directory: Path,
    client: Client,
    *,
    agents: Mapping[str, str] = AGENTS,
    models: str = MODELS,
    tools: str = "",
    notifications: str = "",
    people: str = "",
    environment: Mapping[str, str] | None = None,
    sandbox: bool = True,
    simulator: Simulator | None = None,
    engine: Mapping[str, Any] | None = None,
    health: Health | None = None,
    batch: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open a house on its own task queues and stores, and close it in order; `settings` replace whole sections."""
    config = client.config()
    config["data_converter"] = DATA_CONVERTER
    client = Client(**config)
    async with simulator or Simulator() as model:
        opened = Settings.model_validate(
            {
                "config_dir": write_config(directory, model.url, agents, models, tools, notifications, people),
                "engine": {
                    "address": client.service_client.config.target_host,
                    "task_queue": f"house-{next(_numbers)}",
                    "heartbeat_timeout": timedelta(seconds=10),
                    "sandbox": sandbox,
                    **(engine or {}),
                },
                "ledger": {"url": f"sqlite+aiosqlite:///{directory}/holdfast.db"},
                "knowledge": {"path": directory / "knowledge"},
                "batch": batch or {"collect": "100ms", "poll": "1s", "lost_after": "1s"},
                **(settings or {}),
            }
        )
        configuration = load_configuration(opened.config_dir)
        health = health or MemoryHealth()
        services = await worker.open_services(
            opened,
            configuration,
            environment={**os.environ, **(environment or {})},
            embedder=HashedWords(),
            health=health,
        )
        # Loading takes seconds, which the first request's `sanitize` would have to bear within its timeout.
        await asyncio.to_thread(services.sanitizer.warm_up)
        await worker.apply_queue_limits(client, opened, configuration)
        workers = worker.build_workers(client, services, opened, configuration)
        serving = asyncio.create_task(worker.serve_workers(workers))
        edge = Engine(client, opened.engine)
        app = create_app(opened, configuration, services.ledger, edge, relay=services.relay)
        transport = httpx.ASGITransport(app=app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=60) as http:
                yield House(opened, configuration, services, client, edge, http, model, health)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await services.aclose()
            await _end_runs(client, opened.engine.task_queue)


async def _end_runs(client: Client, task_queue: str) -> None:
    """End what was left under way, so that no list of a later test is full of it."""
    with contextlib.suppress(RPCError):
        left = f"TaskQueue = '{task_queue}' AND ExecutionStatus = 'Running'"
        async for run in client.list_workflows(left, rpc_timeout=timedelta(seconds=10)):
            with contextlib.suppress(RPCError):
                await client.get_workflow_handle(run.id).terminate(
                    "the test is over", rpc_timeout=timedelta(seconds=10)
                )
