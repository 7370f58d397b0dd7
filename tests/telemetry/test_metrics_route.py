"""`GET /metrics` of a gateway: whoever calls from this machine, or has a key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import create_app
from holdfast.configuration import load_configuration
from holdfast.ledger import Ledger
from holdfast.settings import Settings, TelemetrySettings
from holdfast.telemetry import METRICS_CONTENT_TYPE, start_metrics
from tests.gateway.recorded import RecordedEngine


@asynccontextmanager
async def gateway(directory: Path, *, api_keys: str = "", measured: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that has answered one request from the ledger."""
    config = directory / "config"
    (config / "agents").mkdir(parents=True)
    (config / "prompts").mkdir()
    (config / "prompts" / "prompt.md").write_text("Answer.")
    (config / "agents" / "docs.toml").write_text('deployments = ["extractive"]\nprompt = "prompt.md"\n')
    (config / "models.toml").write_text('[deployments.extractive]\nprovider = "extractive"\nmodel = "extractive-1"\n')
    running = start_metrics(TelemetrySettings(), "holdfast-gateway", own_server=False)
    running.metrics.edge_hit("docs")
    ledger = await Ledger.open(f"sqlite+aiosqlite:///{directory / 'ledger.db'}")
    try:
        app = create_app(
            Settings.model_validate({"api_keys": api_keys}),
            load_configuration(config),
            ledger,
            RecordedEngine(),
            running_metrics=running if measured else None,
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as http:
            yield http
    finally:
        await ledger.aclose()
        running.stop()


async def test_prometheus_reads_a_gateway_on_its_own_machine(tmp_path: Path) -> None:
    async with gateway(tmp_path) as http:
        reply = await http.get("/metrics")
    assert (reply.status_code, reply.headers["content-type"]) == (200, METRICS_CONTENT_TYPE)
    (hits,) = (family for family in text_string_to_metric_families(reply.text) if family.name == "holdfast_edge_hits")
    assert [(sample.labels, sample.value) for sample in hits.samples] == [({"holdfast_agent": "docs"}, 1)]


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.example"}, 421), ({"Origin": "https://evil.example"}, 403)]
)
async def test_without_keys_nobody_else_reads_them(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with gateway(tmp_path) as http:
        reply = await http.get("/metrics", headers=headers)
    assert reply.status_code == status
    assert "holdfast_edge_hits" not in reply.text


@pytest.mark.parametrize(("key", "status"), [("", 401), ("Bearer kx", 401), ("Bearer ka", 200)])
async def test_with_keys_reading_them_needs_one(tmp_path: Path, key: str, status: int) -> None:
    async with gateway(tmp_path, api_keys="ka=acme/ann") as http:
        reply = await http.get("/metrics", headers={"Authorization": key} if key else {})
    assert reply.status_code == status
    assert ("holdfast_edge_hits" in reply.text) == (status == 200)


async def test_a_gateway_that_measures_nothing_has_no_metrics(tmp_path: Path) -> None:
    async with gateway(tmp_path, measured=False) as http:
        assert (await http.get("/metrics")).status_code == 404
