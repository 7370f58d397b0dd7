"""The ledger in a SQLite file, shared by several processes.

The file is in write-ahead-logging mode: readers never wait. Writers take turns on SQLite's own lock, which
`BEGIN IMMEDIATE` takes at the start of a transaction; a transaction that began as a reader and then wants to write
would fail with "database is locked" without waiting.

Only two things can take long: waiting for another process's transaction, and a commit, which may reach the disk. These
go to a thread. A statement in between finds its lock held and its pages in memory, takes some 20 microseconds, and runs
where it is: a hop to a thread costs more than that, and under load it is a fight for the interpreter's lock.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, StaticPool, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from holdfast.errors import ConfigurationError, Unavailable

Result = TypeVar("Result")

BUSY_TIMEOUT_SECONDS = 10
"""How long another process's transaction is waited for before the ledger counts as unavailable."""


class SqliteStore:
    """A SQLite file. Open it with `SqliteStore.open`."""

    dialect: Literal["sqlite", "postgresql"] = "sqlite"
    savepoints_are_cheap = True

    def __init__(self, file: Path, location: str) -> None:
        self.location = location
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        # A writer that finds the file locked must not block the event loop: it asks again, patiently, in the thread.
        self._driver = _connect(file, "PRAGMA synchronous=NORMAL", "PRAGMA busy_timeout=0")
        patience = f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}"
        self._engines = (_engine(self._driver), _engine(_connect(file, "PRAGMA query_only=ON", patience)))
        self._writer, self._reader = (engine.connect() for engine in self._engines)

    @classmethod
    async def open(cls, url: URL) -> "SqliteStore":
        """Open the file, creating it and its directory if need be.

        Raises:
            ConfigurationError: The URL names no usable file.
            Unavailable: The file stayed locked.
        """
        if not url.database or url.database == ":memory:":
            raise ConfigurationError(
                "`ledger.url` names no file, and the ledger is shared by several processes; "
                "write e.g. `sqlite+aiosqlite:///var/holdfast.db`."
            )
        file = Path(url.database)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(_prepare, file)
            return cls(file, url.render_as_string(hide_password=True))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Unavailable(
                    f"The ledger file {file} stayed locked for {BUSY_TIMEOUT_SECONDS} s; see which process has it open."
                ) from error
            raise _unusable(file, error) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise _unusable(file, error) from error

    async def transact(self, work: Callable[[Connection], Result], locks: Iterable[str]) -> Result:  # noqa: ARG002
        """See `Store`. A write transaction excludes every other, so there is nothing to lock."""
        try:
            await self._begin()
            try:
                result = work(self._writer)
                await self._in_thread(self._driver.execute, "COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._driver.execute("ROLLBACK")
                raise
        except (sqlite3.OperationalError, OperationalError) as error:
            raise self.translated(error) from error
        return result

    @contextmanager
    def savepoint(self, connection: Connection) -> Iterator[None]:  # noqa: ARG002 - there is one writer
        """See `Store`."""
        if not self._driver.in_transaction:  # SQLite undoes the whole transaction when the disk is full
            raise sqlite3.OperationalError("the transaction was undone")
        self._driver.execute("SAVEPOINT unit")
        try:
            yield
        except BaseException:
            self._driver.execute("ROLLBACK TO unit")
            raise
        finally:
            self._driver.execute("RELEASE unit")

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """See `Store`."""
        try:
            return work(self._reader)
        except OperationalError as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> Exception:
        """See `Store`."""
        reason = error.orig if isinstance(error, OperationalError) else error
        if not isinstance(reason, sqlite3.OperationalError):
            return error
        unavailable = Unavailable(
            f"The ledger at {self.location} does not answer: {reason}. A lock is waited for {BUSY_TIMEOUT_SECONDS} s; "
            "check the disk and the processes that have it open."
        )
        unavailable.__cause__ = error
        return unavailable

    async def aclose(self) -> None:
        """See `Store`."""
        for connection, engine in zip((self._writer, self._reader), self._engines, strict=True):
            connection.close()
            engine.dispose()
        self._thread.shutdown(wait=False)

    async def _begin(self) -> None:
        try:
            self._driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await self._in_thread(self._begin_patiently)

    def _begin_patiently(self) -> None:
        self._driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}")
        try:
            self._driver.execute("BEGIN IMMEDIATE")
        finally:
            self._driver.execute("PRAGMA busy_timeout=0")

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _connect(file: Path, *pragmas: str) -> sqlite3.Connection:
    """A connection in SQLite's own autocommit mode, so that transactions start and end when we say so."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, cached_statements=256)
    for pragma in pragmas:
        connection.execute(pragma)
    return connection


def _engine(driver: sqlite3.Connection) -> Engine:
    """SQLAlchemy over a connection whose transactions it leaves alone."""
    return create_engine(
        "sqlite://",
        creator=lambda: driver,
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
    )


def _prepare(file: Path) -> None:
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


def _unusable(file: Path, error: Exception) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigurationError(
        f"The ledger file {file} cannot be opened: {reason}. "
        "Point `ledger.url` at a file in a directory this process may write to."
    )
