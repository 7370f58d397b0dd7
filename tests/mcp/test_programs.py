"""Where the program of a server is looked for, and that one which is nowhere is told before a run needs it."""

import os
import sys
from pathlib import Path

import pytest

from holdfast.mcp import McpServerSettings
from holdfast.mcp.programs import find_program
from holdfast.tools import load_toolset
from tests.mcp.open_servers import HOSTILE, open_servers

NAME = "holdfast-test-server"


def program(directory: Path) -> Path:
    """Put the hostile server there as a program, as pip would."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / NAME
    file.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -I "{HOSTILE}" "$@"\n', encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of programs of a virtual environment whose Python runs this, and that is not on `PATH`."""
    directory = tmp_path / "environment" / "bin"
    directory.mkdir(parents=True)
    (directory / "python").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return directory


async def test_a_program_beside_the_running_python_is_started_without_path(environment: Path) -> None:
    program(environment)
    opened = open_servers({"h": McpServerSettings(command=NAME, tools=("echo",))})
    try:
        assert await opened.pin() == ["h__echo"]
    finally:
        await opened.servers.aclose()


def test_what_is_on_path_is_preferred(environment: Path, tmp_path: Path) -> None:
    beside = program(environment)
    assert find_program(NAME, str(tmp_path / "nowhere")) == str(beside)
    assert find_program(NAME, "") == str(beside)
    chosen = program(tmp_path / "chosen")
    assert find_program(NAME, f"{tmp_path / 'nowhere'}{os.pathsep}{chosen.parent}") == str(chosen)


def test_a_path_is_taken_as_it_is(environment: Path, tmp_path: Path) -> None:
    program(environment)
    assert find_program(str(tmp_path / NAME), "/usr/bin") is None
    settings = McpServerSettings(command=str(tmp_path / NAME), tools=("*",))
    assert f"{str(tmp_path / NAME)!r} is no program that can be started" in settings.lacking()


def test_a_toolset_tells_once_of_a_listed_program_that_is_nowhere(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "tools.toml").write_text(
        f'[mcp.one]\ncommand = "{NAME}"\ntools = ["*"]\n'
        '[mcp.unused]\ncommand = "no-such-program"\ntools = ["*"]\n'
        '[mcp.web]\nurl = "https://mcp.example.org/mcp"\ntools = ["*"]\n',
        encoding="utf-8",
    )
    toolset = load_toolset(tmp_path)
    (told,) = toolset.unready(["calculator", "one.echo", "one.get_*", "web.*"])
    assert f"tools.toml: mcp.one.command: {NAME!r} is found neither on PATH nor in {environment}" in told
    assert "install it, or name its path" in told
    program(environment)
    assert toolset.unready(["one.echo"]) == []
