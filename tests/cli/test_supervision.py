import asyncio
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI

from cli.client import DEFAULT_URL
from cli.output import Output, Problem
from cli.supervision import Options, _exports, _gateway, at_simulator, running, settings_for, unless_a_part_dies
from cli.temporal_server import TemporalServer
from holdfast.configuration import load_configuration
from holdfast.errors import Unavailable
from holdfast.settings import load_settings

CONFIG = Path(__file__).parents[2] / "config"


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fail(error: Exception) -> None:
    raise error


async def test_work_is_done_while_every_part_lives() -> None:
    part = asyncio.ensure_future(for_ever())
    assert await unless_a_part_dies(asyncio.sleep(0, result="done"), (part,)) == "done"
    part.cancel()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unavailable("The store is gone."), "The store is gone."),
        (ExceptionGroup("workers", [ValueError("no such queue")]), "The worker has died: ValueError: no such queue"),
    ],
)
async def test_a_part_that_dies_ends_the_work_with_its_reason(error: Exception, message: str) -> None:
    part = asyncio.ensure_future(fail(error))
    with pytest.raises((Unavailable, Problem), match=message):
        await unless_a_part_dies(for_ever(), (part,))


async def test_a_part_that_ends_by_itself_has_died_too() -> None:
    part = asyncio.ensure_future(asyncio.sleep(0))
    with pytest.raises(Problem, match="it ended by itself"):
        await unless_a_part_dies(for_ever(), (part,))


def test_only_deployments_of_the_usual_simulator_follow_it_to_another_port() -> None:
    configuration = load_configuration(CONFIG)
    far = configuration.deployments["sim-large"].model_copy(update={"base_url": "http://127.0.0.1:80910/v1"})
    configuration.deployments["far"] = far
    moved = at_simulator(configuration, "http://127.0.0.1:4321").deployments
    assert moved["sim-large"].base_url == "http://127.0.0.1:4321/v1"
    assert moved["far"].base_url == "http://127.0.0.1:80910/v1"
    assert moved["extractive"] == configuration.deployments["extractive"]


def test_data_moves_everything_that_is_kept(tmp_path: Path) -> None:
    settings = settings_for(Options(data=tmp_path, port=4321))
    assert settings.ledger.url == f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"
    assert settings.knowledge.path == tmp_path / "knowledge"
    assert settings.gateway.port == 4321


def test_another_shell_is_told_where_gateway_ledger_and_engine_are(tmp_path: Path) -> None:
    settings = settings_for(Options(data=tmp_path))
    engine = settings.engine.model_copy(update={"address": "127.0.0.1:4321"})
    exports = _exports(settings.model_copy(update={"engine": engine}), "http://127.0.0.1:9999")
    assert [line.partition("=")[0] for line in exports] == [
        "HOLDFAST_URL",
        "HOLDFAST_LEDGER__URL",
        "HOLDFAST_ENGINE__ADDRESS",
    ]
    assert _exports(load_settings(), DEFAULT_URL) == []


async def test_a_directory_in_use_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CONFIG_DIR", str(CONFIG))
    async with TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False):
        with pytest.raises(Problem, match="in use by the Temporal server") as refused:
            async with running(Options(data=tmp_path, temporal_port=0, ui_port=0), Output(as_json=True)):
                pass
    assert "--data" in refused.value.remedy


@pytest.mark.parametrize("asked_for", [True, False])
async def test_a_taken_port_is_left_for_another_unless_somebody_asked_for_it(asked_for: bool) -> None:
    moved: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        async with AsyncExitStack() as stack:
            if asked_for:
                with pytest.raises(Problem, match=str(wanted)) as refused:
                    await _gateway(stack, FastAPI(), "127.0.0.1", wanted, moved, asked_for=True)
                assert "without `--port`" in refused.value.remedy
                assert moved == []
            else:
                assert await _gateway(stack, FastAPI(), "127.0.0.1", wanted, moved, asked_for=False) != wanted
                assert moved[0].startswith(f"Port {wanted} is taken")


SPEAKS_TO_NOBODY = """
import asyncio, pathlib, sys
from cli import supervision
from cli.output import Output
from cli.supervision import Options, _task, unless_a_part_dies
from holdfast.leaving import leave

stopped = pathlib.Path(sys.argv[1])

async def part():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)  # stopping in order takes the event loop
        stopped.write_text("stopped in order")

async def serve(options, output, *, as_team):
    async with _task(part()) as running:
        await asyncio.sleep(0)
        await unless_a_part_dies(asyncio.to_thread(output.say, "Holdfast is running."), (running,))
        await asyncio.Event().wait()

def run():
    try:
        return supervision.run(Options(data=stopped.parent), Output(as_json=False))
    except BrokenPipeError:
        return 17

supervision._serve = serve
leave(run())
"""


def test_a_reader_that_goes_away_ends_everything_in_order(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stopped = tmp_path / "stopped"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", SPEAKS_TO_NOBODY, str(stopped)],
            cwd=CONFIG.parent,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 17, f"not an ordinary error: {ended.stderr}"
    assert stopped.read_text(encoding="utf-8") == "stopped in order"
