"""A leaner cursor for SQLite under asyncio: only what can wait goes to the database's thread.

aiosqlite runs every cursor operation as a message to its thread, and SQLAlchemy needs four of them per statement
(open, execute, fetch, close). Under load each message costs a wake-up and a fight for the interpreter's lock. Only
`BEGIN IMMEDIATE` can wait for another process, and only a commit can reach the disk (a checkpoint), so these two go to
the thread; a statement in between finds its lock held and its pages in memory, takes some 20 microseconds, and runs
where it is. Results are read whole, which suits a ledger: rows are few.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import aiosqlite

BUSY_TIMEOUT_SECONDS = 10
"""How long a statement waits for another process's transaction before it fails with "database is locked"."""

_MAY_WAIT = ("BEGIN", "PRAGMA", "CREATE")
"""How statements begin that wait for locks or write to the disk."""


class WholeCursor:
    """Executes a statement and reads all its rows in one message to the connection's thread."""

    def __init__(self, connection: "WholeConnection") -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> "WholeCursor":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def execute(self, sql: str, parameters: Any = ()) -> None:
        """Run one statement."""
        if sql.startswith(_MAY_WAIT):
            await self._connection.in_thread(self._run, sql, parameters)
        else:
            self._run(self._connection.driver, sql, parameters)

    async def executemany(self, sql: str, parameters: Any) -> None:
        """Run one statement for each set of parameters."""
        self._run_many(self._connection.driver, sql, parameters)

    async def fetchall(self) -> Sequence[Any]:
        """The rows that `execute` has already read."""
        return self._rows

    async def close(self) -> None:
        """Nothing to release: the driver's cursor was closed in its own thread."""

    def _run(self, database: sqlite3.Connection, sql: str, parameters: Any) -> None:
        cursor = database.execute(sql, parameters)
        try:
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else ()
            self.rowcount = cursor.rowcount
            self.lastrowid = cursor.lastrowid
        finally:
            cursor.close()

    def _run_many(self, database: sqlite3.Connection, sql: str, parameters: Any) -> None:
        cursor = database.executemany(sql, parameters)
        self.rowcount = cursor.rowcount
        cursor.close()


class WholeConnection(aiosqlite.Connection):
    """An aiosqlite connection whose cursors are `WholeCursor`s."""

    def cursor(self) -> Any:
        """A cursor, without asking the thread for one."""
        return WholeCursor(self)

    @property
    def driver(self) -> sqlite3.Connection:
        """The driver's connection. Its thread is idle whenever a statement is run, because every hop is awaited."""
        return self._conn

    async def in_thread(self, function: Any, *arguments: Any) -> None:
        """Call `function(sqlite3 connection, *arguments)` in the connection's thread."""
        execute: Callable[..., Awaitable[None]] = self._execute
        await execute(function, self._conn, *arguments)


def connection_to(file: Path) -> WholeConnection:
    """An unopened connection in SQLite's own autocommit mode, so that transactions start when we say so."""
    connection = WholeConnection(
        lambda: sqlite3.connect(
            file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        ),
        iter_chunk_size=64,
    )
    # A process that ends without closing the ledger must not hang on this thread.
    connection._thread.daemon = True
    return connection


def prepare(file: Path) -> None:
    """Create the file if need be and put it in write-ahead-logging mode, which it keeps.

    Blocks; call it in a thread. Safe when several processes do it at once.

    Raises:
        sqlite3.Error: The file cannot be opened, is no database, or stays locked.
    """
    connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        # Changing the journal mode does not wait for locks the way transactions do, so the exclusive lock that a
        # second process may hold at this moment is waited out with a transaction of our own.
        for _ in range(50):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
