"""A ledger, and an environment that runs an activity as a worker would."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from holdfast.ledger import Ledger


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open, empty ledger."""
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


@pytest.fixture
def running() -> ActivityEnvironment:
    """Runs activities."""
    return ActivityEnvironment()
