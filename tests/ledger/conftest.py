"""A ledger of the test's own, once in a SQLite file and once in PostgreSQL."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from holdfast.ledger import Ledger
from tests.ledger.databases import empty, postgresql_database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where the test's ledger is, if it is about SQLite; the directory does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path}/var/holdfast.db"


Emptied = Callable[[], Awaitable[str]]
"""Gives the URL of an empty PostgreSQL database."""


@pytest.fixture(scope="session")
async def emptied() -> AsyncIterator[Emptied]:
    """The session's PostgreSQL database, created when the first test asks for it and emptied for each."""
    async with AsyncExitStack() as stack:
        created = ""

        async def database() -> str:
            nonlocal created
            created = created or await stack.enter_async_context(postgresql_database())
            await empty(created)
            return created

        yield database


@pytest.fixture
async def postgresql(emptied: Emptied) -> str:
    """An empty database, if the test is about PostgreSQL."""
    return await emptied()


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, sqlite_url: str, emptied: Emptied) -> str:
    """Where the test's ledger is."""
    return sqlite_url if request.param == "sqlite" else await emptied()


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """An open, empty ledger."""
    opened = await Ledger.open(url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def sqlite_ledger(sqlite_url: str) -> AsyncIterator[Ledger]:
    """An open, empty ledger in a SQLite file."""
    opened = await Ledger.open(sqlite_url)
    yield opened
    await opened.aclose()
