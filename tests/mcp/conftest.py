"""Servers for the tests: a hostile one written here, and real ones that were not."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.mcp import McpServerSettings
from tests.mcp import thirdparty
from tests.mcp.open_servers import HOSTILE, Open, open_servers


@pytest.fixture
async def hostile() -> AsyncIterator[Callable[..., Open]]:
    """Makes a client of the hostile server: `hostile("tools=5", timeout="1s")`; closed with the test."""
    opened: list[Open] = []

    def start(*words: str, **settings: object) -> Open:
        table = {"command": sys.executable, "args": (str(HOSTILE), *words), "tools": ("*",), **settings}
        opened.append(open_servers({"h": McpServerSettings.model_validate(table)}))
        return opened[-1]

    yield start
    for one in opened:
        await one.servers.aclose()


@pytest.fixture(scope="session")
def npm_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of servers from npm."""
    return thirdparty.npm_programs(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="session")
def pypi_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of servers from PyPI."""
    return thirdparty.pypi_programs(tmp_path_factory.mktemp("pypi"))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the start of a program as long as a busy machine may take for it."""
    monkeypatch.setattr("holdfast.mcp.servers.PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr("holdfast.mcp.servers.WARM_UP_SECONDS", 60.0)
