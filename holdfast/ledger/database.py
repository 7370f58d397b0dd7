"""One database opened by several processes: who may write when, and how it is created.

SQLite runs in write-ahead-logging mode: readers never wait. Writers take turns: within a process on a lock, between
processes on SQLite's own, which `BEGIN IMMEDIATE` takes at the start of a transaction. A transaction that began as a
reader and then wants to write fails with "database is locked" without waiting; none does so here.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Insert, Table, event, func, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from holdfast.errors import ConfigurationError, Unavailable
from holdfast.ledger.schema import SCHEMA_VERSION, metadata, schema_version
from holdfast.ledger.sqlite import BUSY_TIMEOUT_SECONDS, connection_to, prepare

READERS = 2
"""Read connections of a process; each is a thread, and reads take a fraction of a millisecond."""


class Database:
    """Connections to the ledger's database. Open it with `Database.open`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._location = writer.url.render_as_string(hide_password=True)
        self._on_sqlite = writer.dialect.name == "sqlite"
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[Any] | None = None

    @classmethod
    async def open(cls, url: str) -> "Database":
        """Connect, and create the tables if this is the first time.

        Args:
            url: SQLAlchemy URL: `sqlite+aiosqlite:///relative/file.db`, four slashes for an absolute path, or
                `postgresql+asyncpg://...`.

        Raises:
            ConfigurationError: The URL is malformed, names no usable file, or a newer version wrote the database.
            Unavailable: The database does not answer.
        """
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigurationError(
                "`ledger.url` is not a database URL; write e.g. `sqlite+aiosqlite:///var/holdfast.db`."
            ) from None
        if parsed.drivername == "sqlite+aiosqlite":
            database = cls(*await _sqlite_engines(parsed))
        elif parsed.get_backend_name() == "postgresql":
            database = cls(*_postgresql_engines(parsed))
        else:
            raise ConfigurationError(
                f"`ledger.url` has the scheme {parsed.drivername!r}, which the ledger does not support; "
                "use `sqlite+aiosqlite:///<file>`."
            )
        try:
            async with database.write() as connection:
                await database.lock(connection, "holdfast.schema")
                await connection.run_sync(database._create_tables)
        except DBAPIError as error:
            await database.aclose()
            raise ConfigurationError(
                f"The ledger at {database._location} cannot be used: {error.orig}. "
                "Check that `ledger.url` names a database of Holdfast and that this process may write to it."
            ) from error
        except BaseException:
            await database.aclose()
            raise
        return database

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write: committed at the end of the block, rolled back if it raises.

        Keep it short: on SQLite every other writer waits for it.

        Raises:
            Unavailable: The database stayed locked, is full, or does not answer.
            RuntimeError: The task is inside another `write` block, and would wait for itself.
        """
        if not self._on_sqlite:
            async with self._answering(), self._writer.begin() as connection:
                yield connection
            return
        task = asyncio.current_task()
        if task is self._writing:
            raise RuntimeError("A ledger transaction is open in this task; pass its `connection` on.")
        async with self._turn:
            self._writing = task
            try:
                async with self._answering(), self._writer.begin() as connection:
                    yield connection
            finally:
                self._writing = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. Each statement sees the latest committed state; none of them may write.

        Raises:
            Unavailable: The database does not answer.
        """
        async with self._answering(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, connection: AsyncConnection | None) -> AsyncIterator[AsyncConnection]:
        """The given connection, or one of `read` when there is none."""
        if connection is not None:
            yield connection
            return
        async with self.read() as own:
            yield own

    @asynccontextmanager
    async def writing(self, connection: AsyncConnection | None) -> AsyncIterator[AsyncConnection]:
        """The given transaction, or one of `write` when there is none."""
        if connection is not None:
            yield connection
            return
        async with self.write() as own:
            yield own

    async def lock(self, connection: AsyncConnection, name: str) -> None:
        """Until the transaction ends, keep other transactions out that lock the same name.

        On SQLite there is nothing to do: a write transaction excludes every other.
        """
        if not self._on_sqlite:
            await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))

    def insert_once(self, table: Table) -> Insert:
        """An insert that leaves an existing row with the same primary key alone; `rowcount` tells which it was."""
        if self._on_sqlite:
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_or_replace(self, table: Table) -> Insert:
        """An insert that overwrites an existing row with the same primary key."""
        statement = sqlite.insert(table) if self._on_sqlite else postgresql.insert(table)
        columns = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=columns)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        await self._reader.dispose()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            yield
        except (OperationalError, ConnectionError, FileNotFoundError) as error:
            reason = error.orig if isinstance(error, OperationalError) else error
            raise Unavailable(
                f"The ledger at {self._location} does not answer: {reason}. "
                f"A lock is waited for {BUSY_TIMEOUT_SECONDS} s; check the disk and the processes that have it open."
                if self._on_sqlite
                else f"The ledger at {self._location} does not answer: {reason}. Check that the server runs."
            ) from error

    def _create_tables(self, connection: Connection) -> None:
        """In one transaction, so that of two processes starting together one creates and the other finds."""
        if inspect(connection).has_table(schema_version.name):
            version = connection.execute(select(func.max(schema_version.c.version))).scalar_one()
            if version > SCHEMA_VERSION:
                raise ConfigurationError(
                    f"The ledger at {self._location} has schema version {version}, written by a newer Holdfast; this "
                    f"one knows version {SCHEMA_VERSION}. Upgrade Holdfast, or point `ledger.url` at another database."
                )
            return
        metadata.create_all(connection)
        connection.execute(insert(schema_version), {"version": SCHEMA_VERSION})


async def _sqlite_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "`ledger.url` names no file, and the ledger is shared by several processes; "
            "write e.g. `sqlite+aiosqlite:///var/holdfast.db`."
        )
    file = Path(url.database)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(prepare, file)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise Unavailable(
                f"The ledger file {file} stayed locked for {BUSY_TIMEOUT_SECONDS} s; see which process has it open."
            ) from error
        raise _unusable(file, error) from error
    except (sqlite3.DatabaseError, OSError) as error:
        raise _unusable(file, error) from error
    connect_args = {"async_creator_fn": lambda *_, **__: connection_to(file)}
    writer = create_async_engine(url, pool_size=1, max_overflow=0, connect_args=connect_args)
    reader = create_async_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        connect_args=connect_args,
    )
    event.listen(writer.sync_engine, "connect", lambda connection, _: _run(connection, "PRAGMA synchronous=NORMAL"))
    event.listen(writer.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    event.listen(reader.sync_engine, "connect", lambda connection, _: _run(connection, "PRAGMA query_only=ON"))
    return writer, reader


def _postgresql_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    try:
        return create_async_engine(url), create_async_engine(url, isolation_level="AUTOCOMMIT")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"`ledger.url` needs the database driver {error.name!r}, which is not installed; install it."
        ) from error


def _unusable(file: Path, error: Exception) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigurationError(
        f"The ledger file {file} cannot be opened: {reason}. "
        "Point `ledger.url` at a file in a directory this process may write to."
    )


def _run(connection: Any, sql: str) -> None:
    cursor = connection.cursor()
    cursor.execute(sql)
    cursor.close()
