"""A shop with a ledger of its own, and a desk that works with the shop's tools."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.guards import Sanitizer
from holdfast.ledger import Ledger
from holdfast.tools import load_toolset
from holdfast.tools.equipment import Equipment
from tests.tools.desk import Desk, Shelf
from tests.tools.shop import DIRECTORY


@pytest.fixture(scope="session")
def sanitizer() -> Sanitizer:
    """One for all tests, because it takes a second to load."""
    return Sanitizer()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the shop's effects are written."""
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.setenv(DIRECTORY, str(directory))
    return directory


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open, empty ledger."""
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


@pytest.fixture
def desk(tmp_path: Path, shop: Path, ledger: Ledger, sanitizer: Sanitizer) -> Desk:
    """A run of an agent with the shop's tools."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "tools.toml").write_text('modules = ["tests.tools.shop"]\n')
    toolset, shelf = load_toolset(config), Shelf()
    return Desk(ledger, toolset, shelf, Equipment(toolset, shelf, ledger, sanitizer))
