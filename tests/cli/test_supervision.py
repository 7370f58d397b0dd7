import asyncio
from pathlib import Path

import pytest

from cli.output import Output, Problem
from cli.supervision import Options, at_simulator, running, settings_for, unless_a_part_dies
from cli.temporal_server import TemporalServer
from holdfast.configuration import load_configuration
from holdfast.errors import Unavailable

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


async def test_a_directory_in_use_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CONFIG_DIR", str(CONFIG))
    async with TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False):
        with pytest.raises(Problem, match="in use by the Temporal server") as refused:
            async with running(Options(data=tmp_path, temporal_port=0, ui_port=0), Output(as_json=True)):
                pass
    assert "--data" in refused.value.remedy
