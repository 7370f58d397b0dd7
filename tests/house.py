"""A whole Holdfast for tests: real engine, real ledger, real gateway, real provider adapter, simulated model.

Only the embedding model is replaced, by one that hashes words, because what it returns is not what these tests are
about and loading torch takes seconds.
"""

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory

import worker
from gateway.app import create_app
from gateway.engine import Engine
from holdfast.configuration import Configuration, load_configuration
from holdfast.knowledge import DIMENSIONS, Vectors
from holdfast.settings import Settings
from simulator.server import Simulator
from workflows.connection import DATA_CONVERTER

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
timeouts = { first_token = "20s", between_tokens = "5s" }

[deployments.spare]
provider = "openai"
model = "sim-spare"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
"""

POINT_SCHEMA = (
    '{"type": "object", "properties": {"x": {"type": "integer"}, "note": {"type": "string", "minLength": 1}}, '
    '"required": ["x", "note"], "additionalProperties": false}'
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


def write_config(directory: Path, simulator_url: str, agents: Mapping[str, str] = AGENTS) -> Path:
    """Write a `config` directory with the test agents and return it."""
    config = directory / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text(MODELS % {"url": simulator_url})
    (config / "prompts" / "plain.md").write_text("Answer the question.\n")
    (config / "schemas" / "point.json").write_text(POINT_SCHEMA)
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

    async def submit(self, agent: str, text: str, *, wait: float = 0, **body: Any) -> dict[str, Any]:
        """Post a request and return its JSON."""
        reply = await self.http.post(
            "/v1/requests", params={"wait": wait} if wait else {}, json={"agent": agent, "input": text, **body}
        )
        assert reply.status_code in (200, 202), reply.text
        return dict(reply.json())

    async def ask(self, agent: str, text: str, **body: Any) -> dict[str, Any]:
        """Post a request and wait for its end, or for a person."""
        return await self.submit(agent, text, wait=30, **body)

    async def show(self, request_id: str, *, wait: float = 30) -> dict[str, Any]:
        """Read a request, waiting for its end or for a person."""
        reply = await self.http.get(f"/v1/requests/{request_id}", params={"wait": wait})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def decide(
        self, request_id: str, decision: str, *, by: str, content: str | None = None, **body: Any
    ) -> httpx.Response:
        """Decide an approval as `by`; without `content`, on what is waiting."""
        if content is None:
            content = (await self.waiting(request_id))["content_sha256"]
        return await self.http.post(
            f"/v1/approvals/{request_id}/decisions",
            headers={"X-Holdfast-User": by},
            json={"decision": decision, "content_sha256": content, **body},
        )

    async def waiting(self, request_id: str) -> dict[str, Any]:
        """The open approval of a request, as the engine's memory holds it."""
        description = await self.client.get_workflow_handle(request_id).describe()
        memo = await description.memo()
        approval = memo["approval"]
        return {"content_sha256": approval["content"]["sha256"], "deadline": approval["deadline"]}

    async def ended(self, request_id: str) -> None:
        """Wait until the request's run is closed, however it ended."""
        async with asyncio.timeout(60):
            with contextlib.suppress(WorkflowFailureError):
                await self.client.get_workflow_handle(request_id).result()

    async def until_the_model_is_called(self) -> None:
        """Wait until the simulator has accepted a call."""
        async with asyncio.timeout(30):
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
    sandbox: bool = True,
    simulator: Simulator | None = None,
    engine: Mapping[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open a house on its own task queues and stores, and close it in order."""
    config = client.config()
    config["data_converter"] = DATA_CONVERTER
    client = Client(**config)
    async with simulator or Simulator() as model:
        settings = Settings.model_validate(
            {
                "config_dir": write_config(directory, model.url, agents),
                "engine": {
                    "address": client.service_client.config.target_host,
                    "task_queue": f"house-{next(_numbers)}",
                    "workflow_task_timeout": timedelta(seconds=5),
                    "heartbeat_timeout": timedelta(seconds=5),
                    "sandbox": sandbox,
                    **(engine or {}),
                },
                "ledger": {"url": f"sqlite+aiosqlite:///{directory}/holdfast.db"},
                "knowledge": {"path": directory / "knowledge"},
            }
        )
        configuration = load_configuration(settings.config_dir)
        services = await worker.open_services(settings, configuration, embedder=HashedWords())
        workers = worker.build_workers(client, services, settings, configuration)
        serving = asyncio.create_task(worker.serve_workers(workers))
        edge = Engine(client, settings.engine)
        app = create_app(settings, configuration, services.ledger, edge)
        transport = httpx.ASGITransport(app=app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=60) as http:
                yield House(settings, configuration, services, client, edge, http, model)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await services.aclose()
