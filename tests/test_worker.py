"""The worker as a process: it says what it serves, does the work, ends in order, and explains why it cannot start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

import worker
from cli.temporal_server import TemporalServer
from gateway.app import create_app
from gateway.engine import Engine
from holdfast.configuration import load_configuration
from holdfast.errors import ConfigurationError
from holdfast.ledger import Ledger
from holdfast.settings import load_settings
from simulator.server import Simulator
from tests.house import write_config
from tests.telemetry.receiver import receiving
from workflows.connection import connect_client

ROOT = Path(__file__).parents[1]

WORKER = """
import runpy
import holdfast.knowledge
from tests.house import HashedWords
holdfast.knowledge.MiniLM = HashedWords  # what it embeds is not what the test is about, and torch takes seconds
runpy.run_path("worker.py", run_name="__main__")
"""


@contextmanager
def process(environment: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python worker.py` under an environment."""
    running = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def environment_of(directory: Path, simulator: Simulator, temporal: TemporalServer) -> dict[str, str]:
    """Settings of an installation in a directory."""
    return {
        "HOLDFAST_CONFIG_DIR": str(write_config(directory, simulator.url)),
        "HOLDFAST_ENGINE__ADDRESS": temporal.address,
        "HOLDFAST_ENGINE__TASK_QUEUE": f"worker-{directory.name}",
        "HOLDFAST_LEDGER__URL": f"sqlite+aiosqlite:///{directory}/holdfast.db",
        "HOLDFAST_KNOWLEDGE__PATH": str(directory / "knowledge"),
    }


async def test_a_worker_serves_its_queues_traces_what_it_does_and_ends_in_order(
    tmp_path: Path, temporal_server: TemporalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        async with Simulator() as simulator:
            environment = environment_of(tmp_path, simulator, temporal_server)
            with process({**environment, "HOLDFAST_TELEMETRY__OTLP_ENDPOINT": receiver.url}) as running:
                assert running.stdout is not None
                said = running.stdout.readline()
                queue = environment["HOLDFAST_ENGINE__TASK_QUEUE"]
                for served in (queue, f"{queue}.ingest", f"{queue}.generate.sim", f"{queue}.generate.spare"):
                    assert served in said
                reply = await _ask(environment, monkeypatch)
                assert reply["status"] == "completed", reply
                running.send_signal(signal.SIGTERM)
                output, errors = running.communicate(timeout=180)
                assert running.returncode == 0, errors
                assert "Worker stopped." in output
    assert receiver.spans()["chat sim-large"] == "holdfast-worker"


async def _ask(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    configuration = load_configuration(settings.config_dir)
    client = await connect_client(settings.engine.address, settings.engine.namespace)
    ledger = await Ledger.open(settings.ledger.url)
    try:
        app = create_app(settings, configuration, ledger, Engine(client, settings.engine))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=60) as http:
            body = {"agent": "plain", "input": "Who works?"}
            return dict((await http.post("/v1/requests", params={"wait": 30}, json=body)).json())
    finally:
        await ledger.aclose()


def cannot_start(environment: Mapping[str, str]) -> str:
    """The one line with which a worker gives up."""
    with process(environment) as running:
        output, errors = running.communicate(timeout=180)
        assert running.returncode == 1, errors
        assert output == ""
        assert "Traceback" not in errors
        last = errors.splitlines()[-1]
        assert last.startswith("The worker cannot start. ")
        return last


async def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, temporal_server: TemporalServer, free_port: int
) -> None:
    async with Simulator() as simulator:
        environment = environment_of(tmp_path, simulator, temporal_server)
        assert "HOLDFAST_ENGINE__ADDRESS" in cannot_start(
            {**environment, "HOLDFAST_ENGINE__ADDRESS": f"127.0.0.1:{free_port}"}
        )
        assert "models.toml" in cannot_start({**environment, "HOLDFAST_CONFIG_DIR": str(tmp_path / "nowhere")})
        assert "stiky_timeout" in cannot_start({**environment, "HOLDFAST_ENGINE__STIKY_TIMEOUT": "5s"})


def test_a_worker_that_is_asked_for_help_answers_and_serves_nothing() -> None:
    with process({}, "--help") as running:
        output, errors = running.communicate(timeout=180)
    assert running.returncode == 0, errors
    assert "HOLDFAST_*" in output
    assert "Worker serves" not in output


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("serve", 2)])
def test_a_worker_takes_no_arguments(argument: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    worker.read_arguments([])
    with pytest.raises(SystemExit) as answered:
        worker.read_arguments([argument])
    assert answered.value.code == code
    said = capsys.readouterr()
    assert said.out.startswith("holdfast ") or "unrecognized arguments: serve" in said.err


async def test_a_tool_whose_database_no_variable_names_stops_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = '[tools.shop]\nuse = "sql_query"\nurl_env = "SHOP_DATABASE_OF_NOBODY"\n'
    clerk = 'deployments = ["sim"]\nprompt = "plain.md"\ntools = ["shop"]\n'
    config = write_config(tmp_path, "http://127.0.0.1:9", {"clerk": clerk}, tools=tools)
    monkeypatch.setenv("HOLDFAST_CONFIG_DIR", str(config))
    with pytest.raises(ConfigurationError, match=r"tools\.shop: the variable SHOP_DATABASE_OF_NOBODY is not set"):
        await worker.main()


async def test_a_deployment_whose_key_is_missing_stops_the_worker_and_a_disabled_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    models = config / "models.toml"
    models.write_text(
        models.read_text()
        + '\n[deployments.paid]\nprovider = "openai"\nmodel = "m"\nbase_url = "https://api.example.org/v1"\n'
        'api_key_env = "PAID_KEY"\n'
    )
    settings = load_settings(
        config_dir=config,
        ledger={"url": f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"},
        knowledge={"path": tmp_path / "knowledge"},
    )
    with pytest.raises(ConfigurationError, match=r"'paid' .* PAID_KEY, which is not set"):
        await worker.open_services(settings, load_configuration(config), environment={})
    models.write_text(models.read_text() + "enabled = false\n")
    services = await worker.open_services(settings, load_configuration(config), environment={})
    await services.aclose()


def test_production_runs_without_the_sandbox_and_tests_with_it() -> None:
    assert isinstance(worker.workflow_runner(sandbox=load_settings().engine.sandbox), UnsandboxedWorkflowRunner)
    assert isinstance(worker.workflow_runner(sandbox=True), SandboxedWorkflowRunner)
