"""Databases for tests: a PostgreSQL database of one's own, dropped at the end."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.services import postgresql_url


@asynccontextmanager
async def postgresql_database() -> AsyncIterator[str]:
    """The URL of a new, empty database; the test is skipped where no server answers."""
    server = make_url(postgresql_url())
    name = f"holdfast_test_{secrets.token_hex(8)}"
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
            try:
                yield server.set(database=name).render_as_string(hide_password=False)
            finally:
                await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        await engine.dispose()


async def empty(url: str) -> None:
    """Leave nothing in a database, and nobody connected to it: much faster than a new one for each test."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    async with engine.connect() as connection:
        await connection.execute(text(f"{others} pg_backend_pid()"))
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
