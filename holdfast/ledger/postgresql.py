"""The ledger in PostgreSQL.

A process writes through one connection, which group commit keeps busy, and reads through a few others. What must not
happen at the same time in two processes is kept apart by advisory locks, taken in one statement and one order at the
start of a transaction, so that two processes never wait for each other in a circle.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from sqlalchemy import ARRAY, BigInteger, Connection, bindparam, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast.errors import ConfigurationError, Unavailable
from holdfast.ledger.store import Conflicted

Result = TypeVar("Result")

ANSWER_TIMEOUT_SECONDS = 10
"""How long a connection or a statement may take, waiting for other transactions included."""

_AWAY = ("08", "53", "57", "58")
"""SQLSTATE classes of a server that cannot serve now: connection, resources, operator, system."""
_CONFLICT = ("40",)
"""SQLSTATE class of transactions undone in favour of others: serialization failure, deadlock."""

_keys = func.unnest(bindparam("keys", type_=ARRAY(BigInteger))).column_valued("key")
_LOCK = select(func.pg_advisory_xact_lock(_keys))


class PostgresqlStore:
    """A PostgreSQL database.

    Args:
        url: SQLAlchemy URL with the driver asyncpg.

    Raises:
        ConfigurationError: The driver is not installed.
    """

    dialect: Literal["sqlite", "postgresql"] = "postgresql"
    savepoints_are_cheap = False

    def __init__(self, url: URL) -> None:
        self.location = url.render_as_string(hide_password=True)
        timeouts = {"timeout": ANSWER_TIMEOUT_SECONDS, "command_timeout": ANSWER_TIMEOUT_SECONDS}
        try:
            self._writer = create_async_engine(url, pool_size=1, max_overflow=0, connect_args=timeouts)
            self._reader = create_async_engine(url, isolation_level="AUTOCOMMIT", connect_args=timeouts)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"`ledger.url` needs the database driver {error.name!r}, which is not installed; install it."
            ) from error
        self._connection: AsyncConnection | None = None

    async def transact(self, work: Callable[[Connection], Result], locks: Iterable[str]) -> Result:
        """See `Store`. A connection that turns out dead before anything was committed is replaced once."""
        keys = sorted({_key_of(name) for name in locks})
        committing = False

        def run(connection: Connection) -> Result:
            nonlocal committing
            with connection.begin():
                if keys:
                    connection.execute(_LOCK, {"keys": keys})
                result = work(connection)
                committing = True
            return result

        while True:
            reused = self._connection is not None
            try:
                if self._connection is None:
                    self._connection = await self._writer.connect()
                return await self._connection.run_sync(run)
            except Exception as error:
                translated = self.translated(error)
                if translated is error:
                    raise
                if isinstance(translated, Unavailable):
                    await self._disconnect()
                    if reused and not committing:
                        continue
                raise translated from error
            except BaseException:  # the task was cancelled, in whatever state that left the connection
                await self._disconnect()
                raise

    @contextmanager
    def savepoint(self, connection: Connection) -> Iterator[None]:
        """See `Store`."""
        connection.exec_driver_sql("SAVEPOINT unit")
        try:
            yield
        except BaseException:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
            raise
        connection.exec_driver_sql("RELEASE SAVEPOINT unit")

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """See `Store`. Reading is repeated once, for a connection that died while nobody used it."""
        try:
            return await self._read(work)
        except Exception as error:
            if not isinstance(self.translated(error), Unavailable):
                raise
        try:
            return await self._read(work)
        except Exception as error:
            translated = self.translated(error)
            if translated is error:
                raise
            raise translated from error

    def translated(self, error: Exception) -> Exception:
        """See `Store`."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or ""
        if state.startswith(_CONFLICT):
            return Conflicted(f"A transaction of the ledger at {self.location} was undone: {cause}.")
        away = (
            isinstance(error, OSError | InterfaceError | OperationalError)
            or (isinstance(error, DBAPIError) and error.connection_invalidated)
            or state.startswith(_AWAY)
        )
        if not away:
            return error
        reason = str(cause) or f"no answer for {ANSWER_TIMEOUT_SECONDS} s"
        unavailable = Unavailable(
            f"The ledger at {self.location} does not answer: {reason}. Check that the server runs and can be reached."
        )
        unavailable.__cause__ = error
        return unavailable

    async def aclose(self) -> None:
        """See `Store`."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        await self._writer.dispose()
        await self._reader.dispose()

    async def _read(self, work: Callable[[Connection], Result]) -> Result:
        async with self._reader.connect() as connection:
            return await connection.run_sync(work)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()


def _key_of(name: str) -> int:
    """The number that stands for a lock's name; two names with one number only wait for each other needlessly."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
