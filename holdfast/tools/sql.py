"""`sql_query`: asks a SQLite file or a PostgreSQL database, and cannot change it.

A query is parsed and admitted by what it does (`sql_statement`), then run in a session that could not write either
(`sql_sqlite`, `sql_postgresql`). What comes back is data that others wrote, so it taints the run as `tools`.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pydantic import Field, JsonValue, ValidationError, model_validator

from holdfast.errors import ConfigurationError, Unavailable
from holdfast.settings import Duration, Section, describe
from holdfast.tools.context import ToolContext
from holdfast.tools.sql_language import NAMES, Dialect
from holdfast.tools.sql_names import DatabaseNames
from holdfast.tools.sql_postgresql import PostgresqlDatabase
from holdfast.tools.sql_rows import Bounds, Rows, as_csv
from holdfast.tools.sql_schema import TableSchema, admitted, described
from holdfast.tools.sql_sqlite import SqliteDatabase
from holdfast.tools.sql_statement import MAX_SQL_CHARACTERS, checked_sql
from holdfast.tools.sql_table import Table
from holdfast.tools.tool import Tool

_MARGIN = timedelta(seconds=10)
_SQLITE_URL = "sqlite:///"
_PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "sql": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_SQL_CHARACTERS,
            "description": "One SELECT statement.",
        }
    },
    "required": ["sql"],
    "additionalProperties": False,
}


class SqlSettings(Section):
    """Options of `use = "sql_query"`: a `path` or a `url_env`, and bounds."""

    path: str = ""
    """A SQLite file, from where the process runs."""
    url_env: str = ""
    """The environment variable that holds `postgresql://user:password@host/name` or `sqlite:///file.db`."""
    schemas: tuple[str, ...] = Field(default=("public",), min_length=1)
    """Of PostgreSQL: those whose tables can be read."""
    tables: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Tables and views that can be read: `orders`, `sales.*`, `report_*`. All of the schemas when absent."""
    functions: tuple[str, ...] = ()
    """Functions that may be called beside the usual ones."""
    rows: int = Field(default=100, ge=1, le=10_000)
    """Most rows of a result."""
    cell_characters: int = Field(default=500, ge=10, le=100_000)
    """Longest value that is shown whole."""
    characters: int = Field(default=20_000, ge=1_000, le=1_000_000)
    """Longest result."""
    within: Duration = timedelta(seconds=10)
    """Longest a query may take."""
    schema_for: Duration = timedelta(minutes=5)
    """How long the tables are remembered before they are looked up again."""
    about: str = Field(default="", max_length=1_000)
    """What is in the database, for the model."""

    @model_validator(mode="after")
    def _one_database(self) -> "SqlSettings":
        if bool(self.path) == bool(self.url_env):
            raise ValueError("give either `path`, a SQLite file, or `url_env`, the variable with the database's URL")
        return self


class Database(Protocol):
    """What a query is put to."""

    async def schema(self) -> tuple[TableSchema, ...]:
        """All tables that can be read."""
        ...

    async def own_functions(self) -> frozenset[str]:
        """Names of the functions that the project made and that a statement could call without a schema."""
        ...

    async def query(self, sql: str, tables: tuple[Table, ...], bounds: Bounds) -> Rows:
        """Run a checked statement."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class SqlQuery(Tool):
    """The tool.

    Args:
        name: What models call it.
        settings: Which database, and how much of it.
        where: File and key, for messages.
    """

    def __init__(self, name: str, settings: SqlSettings, where: str) -> None:
        self._settings = settings
        self._bounds = Bounds(
            settings.rows, settings.cell_characters, settings.characters, settings.within.total_seconds()
        )
        self._shared = _Shared(settings, where)
        super().__init__(
            name,
            f"Ask a database with one SELECT statement. {settings.about}".strip(),
            _PARAMETERS,
            side_effects=False,
            idempotent=True,
            origin="tools",
            timeout=settings.within + _MARGIN,
            output_tokens=4_000,
        )

    async def describe(self) -> str:
        """The description with the database's tables.

        Raises:
            ConfigurationError: The environment variable is not set, or names no database.
            Unavailable: The database does not answer.
        """
        schema = await self._shared.schema()
        return (
            f"{self.description} It is {NAMES[self._shared.dialect]}, read-only. At most {self._settings.rows} rows "
            f"come back, as CSV; an empty cell is NULL.\nTables:\n{described(schema)}"
        )

    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:  # noqa: ARG002 - any caller
        """Check and ask.

        Raises:
            ToolProblem: The statement is not admitted, or the database refuses it.
            Unavailable: The database does not answer.
        """
        sql = str(arguments["sql"])
        schema = await self._shared.schema()
        tables = tuple(one.table for one in schema)
        names = DatabaseNames(
            {one.table: frozenset(column.name for column in one.columns) for one in schema}, self._shared.own_functions
        )
        functions, dialect = self._settings.functions, self._shared.dialect
        statement = await asyncio.to_thread(checked_sql, sql, dialect, tables, functions, names)
        rows = await self._shared.database().query(statement, tables, self._bounds)
        return as_csv(rows, self._bounds)

    def ready(self) -> None:
        """See that there is a database to open; a server is not asked.

        Raises:
            ConfigurationError: The environment variable is not set, or names no database.
            Unavailable: The SQLite file cannot be read.
        """
        self._shared.ready()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._shared.aclose()


class _Shared:
    """The database and what is known of its tables: opened at first use, kept for all copies of the tool."""

    def __init__(self, settings: SqlSettings, where: str) -> None:
        self._settings = settings
        self._where = where
        self._database: Database | None = None
        self._schema: tuple[TableSchema, ...] = ()
        self.own_functions: frozenset[str] = frozenset()
        """As they were when the tables were looked up."""
        self._known_until = 0.0
        self._looking = asyncio.Lock()

    @property
    def dialect(self) -> Dialect:
        """Of the database."""
        self.database()
        return "sqlite" if isinstance(self._database, SqliteDatabase) else "postgres"

    def database(self) -> Database:
        """The database, whose URL is read from the environment now."""
        if self._database is None:
            self._database = _database(self._settings, self._where)
        return self._database

    def ready(self) -> None:
        """See that there is something to open."""
        database, key = self.database(), "path" if self._settings.path else "url_env"
        if isinstance(database, SqliteDatabase):
            try:
                database.check()
            except Unavailable:
                raise Unavailable(
                    f"{self._where}: `{key}` leads to {str(database.path)!r}, which is no SQLite database that can be "
                    "read; put it there, or correct the key. Until then, runs begin without this tool."
                ) from None

    async def schema(self) -> tuple[TableSchema, ...]:
        """The tables that can be read."""
        async with self._looking:
            if time.monotonic() >= self._known_until:
                self._schema = admitted(await self.database().schema(), self._settings.tables)
                self.own_functions = await self.database().own_functions()
                self._known_until = time.monotonic() + self._settings.schema_for.total_seconds()
            return self._schema

    async def aclose(self) -> None:
        if self._database is not None:
            await self._database.aclose()


def _database(settings: SqlSettings, where: str) -> Database:
    url = os.environ.get(settings.url_env, "") if settings.url_env else f"{_SQLITE_URL}{settings.path}"
    if url.startswith(_SQLITE_URL) and len(url) > len(_SQLITE_URL):
        return SqliteDatabase(Path(url.removeprefix(_SQLITE_URL)), settings.functions)
    if url.startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
        return PostgresqlDatabase(url, settings.schemas, settings.within.total_seconds())
    raise ConfigurationError(
        f"{where}: the variable {settings.url_env} {'holds no URL of a database' if url else 'is not set'}; "
        f"set it to 'postgresql://user:password@host/name' or 'sqlite:///file.db'"
    )


def build(name: str, options: Mapping[str, object], where: str) -> Tool:
    """A reader of a database. It is opened at the first use.

    Raises:
        ConfigurationError: An option is missing, unknown or wrong.
    """
    try:
        settings = SqlSettings.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {describe(error, SqlSettings)}") from None
    return SqlQuery(name, settings, where)
