"""A ledger in a directory of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.ledger import Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the test's ledger is; the directory does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path}/var/holdfast.db"


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """An open, empty ledger."""
    opened = await Ledger.open(url)
    yield opened
    await opened.aclose()
