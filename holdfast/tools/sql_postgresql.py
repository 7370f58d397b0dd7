"""Queries on PostgreSQL, each in a transaction that is read-only and limited in time by the server.

The extended protocol takes one statement only. What a query returns is cut to size by the server: the query becomes the
subquery of one that turns every column into text of bounded length, so that a huge value never crosses the wire. Give
the tool a database user of its own who may only read what models may see; what is here would be the second wall then.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg

from holdfast.errors import ToolProblem, Unavailable
from holdfast.tools.sql_rows import MAX_COLUMNS, Bounds, Rows, shorten
from holdfast.tools.sql_schema import Column, TableSchema
from holdfast.tools.sql_table import Table

_AT_ONCE = 4
_CONNECT_SECONDS = 5.0
_SLACK_SECONDS = 1.0
"""What the server is left beyond a statement's time to end it by itself."""
_SCHEMA_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_SETTINGS = {
    "application_name": "holdfast sql_query",
    "default_transaction_read_only": "on",
    "standard_conforming_strings": "on",
    "lock_timeout": "2000",
    "max_parallel_workers_per_gather": "0",
    "bytea_output": "hex",
}
_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
)

_TABLES = """
SELECT n.nspname, c.relname, obj_description(c.oid, 'pg_class'),
       a.attname, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum),
       EXISTS (SELECT FROM pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'p' AND a.attnum = ANY (p.conkey)),
       (SELECT fn.nspname || '.' || f.relname || '.' || fa.attname
          FROM pg_constraint k
          JOIN pg_class f ON f.oid = k.confrelid
          JOIN pg_namespace fn ON fn.oid = f.relnamespace
          JOIN pg_attribute fa ON fa.attrelid = f.oid AND fa.attnum = k.confkey[array_position(k.conkey, a.attnum)]
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey)
         ORDER BY k.conname LIMIT 1)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = ANY ($1::text[]) AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT c.relispartition
   AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
 ORDER BY n.nspname <> 'public', n.nspname, c.relname, a.attnum
"""


_FUNCTIONS = """
SELECT DISTINCT p.proname
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY ($1::text[]) AND n.nspname <> 'pg_catalog'
   AND NOT EXISTS (
       SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""


class PostgresqlDatabase:
    """A database that is read.

    Args:
        url: `postgresql://user:password@host/name`.
        schemas: Those whose tables there are.
        seconds: Longest a statement may take; the server holds it.
    """

    dialect = "postgres"

    def __init__(self, url: str, schemas: Sequence[str], seconds: float) -> None:
        self._url = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._schemas = tuple(schemas)
        self._settings = {
            **_SETTINGS,
            # The system's own functions come first even though they are not named.
            "search_path": ", ".join('"' + schema.replace('"', '""') + '"' for schema in schemas),
            "statement_timeout": str(max(1, round(seconds * 1_000))),
        }
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def schema(self) -> tuple[TableSchema, ...]:
        """All tables and views of the schemas that the user may read, with the columns that they may read.

        Raises:
            Unavailable: The database does not answer.
        """
        found = await self._looked_up(_TABLES)
        tables: dict[Table, tuple[str, list[Column]]] = {}
        for schema, name, comment, column, kind, told, primary, foreign in found:
            notes = ("primary key" if primary else "", f"-> {foreign.removeprefix('public.')}" if foreign else "")
            note = " ".join(filter(None, (*notes, f"({' '.join(told.split())[:100]})" if told else "")))
            tables.setdefault(Table(schema, name), (comment or "", []))[1].append(Column(column, kind, note))
        return tuple(TableSchema(table, tuple(columns), comment) for table, (comment, columns) in tables.items())

    async def own_functions(self) -> frozenset[str]:
        """All functions of the schemas but those that an extension brought.

        Raises:
            Unavailable: The database does not answer.
        """
        return frozenset(str(name) for (name,) in await self._looked_up(_FUNCTIONS))

    async def query(self, sql: str, tables: Collection[Table], bounds: Bounds) -> Rows:  # noqa: ARG002 - they are in sql
        """Run a checked statement.

        Raises:
            ToolProblem: The server refuses it, or it takes too long.
            Unavailable: The database does not answer.
        """
        pool = await self._opened()
        try:
            async with asyncio.timeout(bounds.seconds + _SLACK_SECONDS), _connection(pool) as connection:
                columns = shorten([column.name for column in (await connection.prepare(sql)).get_attributes()])
                if not 0 < len(columns) <= MAX_COLUMNS:
                    raise ToolProblem(f"The result has {len(columns)} columns; take 1 to {MAX_COLUMNS}.")
                cursor = await connection.cursor(_bounded(sql, len(columns), bounds))
                rows = await cursor.fetch(bounds.rows + 1)
                return Rows(columns, tuple(tuple(row) for row in rows[: bounds.rows]), more=len(rows) > bounds.rows)
        except (TimeoutError, asyncpg.QueryCanceledError):
            raise ToolProblem(f"The query takes longer than {bounds.seconds:g} s; ask for less.") from None
        except asyncpg.ReadOnlySQLTransactionError:
            raise ToolProblem("The statement would write something; this tool only reads.") from None
        except _AWAY as error:
            raise _unavailable(error) from None
        except asyncpg.PostgresError as error:
            hint = f" Hint: {error.hint}" if getattr(error, "hint", None) else ""
            raise ToolProblem(f"PostgreSQL refuses the statement: {error.args[0]}.{hint}") from None

    async def _looked_up(self, sql: str) -> "list[asyncpg.Record]":
        pool = await self._opened()
        try:
            async with asyncio.timeout(_SCHEMA_SECONDS), pool.acquire() as connection:
                return list(await connection.fetch(sql, list(self._schemas)))
        except (*_AWAY, asyncpg.PostgresError, TimeoutError) as error:
            raise _unavailable(error) from None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            with suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), _CONNECT_SECONDS)

    async def _opened(self) -> "asyncpg.Pool":
        async with self._opening:
            if self._pool is None:
                try:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=0,
                        max_size=_AT_ONCE,
                        timeout=_CONNECT_SECONDS,
                        max_inactive_connection_lifetime=_IDLE_SECONDS,
                        statement_cache_size=0,  # a pooler between here and the server may know no prepared statements
                        server_settings=self._settings,
                    )
                except (*_AWAY, asyncpg.PostgresError, ValueError) as error:
                    raise _unavailable(error) from None
            return self._pool


@asynccontextmanager
async def _connection(pool: "asyncpg.Pool") -> AsyncIterator["asyncpg.Connection"]:
    """A connection in a read-only transaction that is rolled back: some functions write although it is read-only.

    When the block is given up, the connection is cut off instead: while the server is inside a function it does not
    hear of a cancellation, and whoever waited for its answer would wait as long.
    """
    async with pool.acquire() as connection:
        try:
            transaction = connection.transaction(readonly=True)
            await transaction.start()
            try:
                yield connection
            except Exception:
                await transaction.rollback()
                raise
            await transaction.rollback()
        except asyncio.CancelledError:
            connection.terminate()
            raise


def _bounded(sql: str, columns: int, bounds: Bounds) -> str:
    """The statement with every column as text that is long enough to see that it was cut."""
    names = ", ".join(f"c{place}" for place in range(columns))
    texts = ", ".join(f"left(c{place}::text, {bounds.cell_characters + 1}) AS c{place}" for place in range(columns))
    return f"SELECT {texts} FROM ({sql}\n) AS q({names})"  # noqa: S608 - checked, and written out by the parser


def _unavailable(error: Exception) -> Unavailable:
    # The driver's message may hold the URL's parts; its type says enough.
    return Unavailable(f"The PostgreSQL database of `sql_query` does not answer ({type(error).__name__})")
