"""One database opened by several processes: how it is created, brought up to date, read and written.

Work on it is a plain function over a SQLAlchemy connection. What several callers write at the same time is committed
together; see `committer`.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy import Connection, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from holdfast.errors import ConfigurationError
from holdfast.ledger.committer import Committer
from holdfast.ledger.migrations import bring_up_to_date
from holdfast.ledger.postgresql import PostgresqlStore
from holdfast.ledger.sqlite import SqliteStore
from holdfast.ledger.store import Store

Result = TypeVar("Result")


class Database:
    """The ledger's database. Open it with `Database.open`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._committer = Committer(store)

    @classmethod
    async def open(cls, url: str) -> "Database":
        """Connect, create the tables if this is the first time, and migrate those of an earlier version.

        Args:
            url: SQLAlchemy URL: `sqlite+aiosqlite:///relative/file.db`, four slashes for an absolute path, or
                `postgresql+asyncpg://...`.

        Raises:
            ConfigurationError: The URL is malformed, names no usable database, or a newer version wrote it.
            Unavailable: The database does not answer.
        """
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigurationError(
                "`ledger.url` is not a database URL; write e.g. `sqlite+aiosqlite:///var/holdfast.db`."
            ) from None
        store: Store
        if parsed.drivername in ("sqlite", "sqlite+aiosqlite"):
            store = await SqliteStore.open(parsed)
        elif parsed.get_backend_name() == "postgresql":
            store = PostgresqlStore(parsed.set(drivername="postgresql+asyncpg"))
        else:
            raise ConfigurationError(
                f"`ledger.url` has the scheme {parsed.drivername!r}, which the ledger does not support; "
                "use `sqlite+aiosqlite:///<file>` or `postgresql+asyncpg://<user>@<host>/<database>`."
            )
        database = cls(store)
        try:
            # In one transaction, so that of two processes starting together one creates and the other finds.
            await database.write(lambda connection: bring_up_to_date(connection, store.location), ["holdfast.schema"])
        except DBAPIError as error:
            await database.aclose()
            raise ConfigurationError(
                f"The ledger at {store.location} cannot be used: {error.orig}. "
                "Check that `ledger.url` names a database of Holdfast and that this process may write to it."
            ) from error
        except BaseException:
            await database.aclose()
            raise
        return database

    @property
    def location(self) -> str:
        """The database's URL without its password."""
        return self._store.location

    @property
    def transactions(self) -> int:
        """Write transactions that this process has committed."""
        return self._committer.transactions

    async def write(self, unit: Callable[[Connection], Result], locks: Iterable[str] = ()) -> Result:
        """Run a unit of work that may write: on return it is durable, and if it raises it has left nothing.

        Units that are asked for at the same time share a transaction; each sees what those before it wrote.

        Args:
            unit: The work; keep it short. It may be run again after its effects were undone.
            locks: Names that units of other processes with the same name are kept out of until this one is durable.

        Raises:
            Unavailable: The database stayed locked, is full, or does not answer.
        """
        return await self._committer.submit(unit, locks)

    async def read(self, unit: Callable[[Connection], Result]) -> Result:
        """Run work that only reads. Each statement sees the latest committed state; none of them may write.

        Raises:
            Unavailable: The database does not answer.
        """
        return await self._store.read(unit)

    def insert_once(self, table: Table) -> Insert:
        """An insert that leaves an existing row with the same primary key alone; `rowcount` tells which it was."""
        if self._store.dialect == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_or_replace(self, table: Table) -> Insert:
        """An insert that overwrites an existing row with the same primary key."""
        statement = self.upsert(table)
        columns = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=columns)

    def upsert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """An insert of the database's own kind, to which `on_conflict_do_update` can be added."""
        return sqlite.insert(table) if self._store.dialect == "sqlite" else postgresql.insert(table)

    async def aclose(self) -> None:
        """Commit what was submitted, and close every connection."""
        await self._committer.aclose()
        await self._store.aclose()
