"""A server whose program is not there is told before a request needs it: by `agents check` and by `doctor`."""

import json
import shutil
from pathlib import Path

import pytest

from cli import checks
from cli.main import execute
from holdfast.configuration import load_configuration

CONFIG = Path(__file__).parents[2] / "config"
NAME = "holdfast-test-clock"


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose only agent uses a server; the directory on `PATH` that its program may come to."""
    config = tmp_path / "config"
    shutil.copytree(CONFIG, config)
    for file in (config / "agents").glob("*.toml"):
        file.unlink()
    (config / "tools.toml").write_text(f'[mcp.clock]\ncommand = "{NAME}"\ntools = ["get_*"]\n', encoding="utf-8")
    agent = 'deployments = ["sim-small"]\nprompt = "writer.md"\ndescription = "Tells the time."\n'
    (config / "agents" / "clock.toml").write_text(f'{agent}tools = ["clock.get_*"]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG_DIR", raising=False)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs


def install(programs: Path) -> None:
    (programs / NAME).write_text("#!/bin/sh\n", encoding="utf-8")
    (programs / NAME).chmod(0o755)


def test_check_tells_of_a_program_that_is_not_there(clock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["agents", "check", "--json"]) == 0
    (lacking,) = json.loads(capsys.readouterr().out)["lacking"]
    assert f"mcp.clock.command: {NAME!r} is found neither" in lacking
    assert "install it, or name its path" in lacking
    install(clock)
    assert execute(["agents", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lacking"] == []


def test_doctor_tells_of_it_and_of_the_path_that_it_looked_on(clock: Path) -> None:
    missing = checks.tools(load_configuration(Path("config")))
    assert missing.verdict == "advice"
    assert f"mcp.clock.command: {NAME!r} is found neither" in missing.found
    assert str(clock) in missing.remedy
    install(clock)
    there = checks.tools(load_configuration(Path("config")))
    assert there.verdict == "ok"
    assert str(clock) in there.found, "the worker's PATH may be another one"
