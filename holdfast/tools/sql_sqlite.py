"""Queries on a SQLite file, which is opened for reading only, once for each query.

Four walls: the file is opened with `mode=ro`, the connection is set to `query_only`, an authorizer refuses every action
but reading the admitted tables and calling the admitted functions, and the query runs in a process of its own
(`sql_sqlite_reader.py`) that the system ends at its time. The authorizer is asked by SQLite itself while it compiles,
so it does not depend on how the text was read before.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from holdfast.errors import ToolProblem, Unavailable
from holdfast.tools import sql_sqlite_reader
from holdfast.tools.sql_functions import SQLITE_FUNCTIONS
from holdfast.tools.sql_rows import MAX_COLUMNS, Bounds, Rows, shorten
from holdfast.tools.sql_schema import Column, TableSchema
from holdfast.tools.sql_table import Table
from holdfast.tools.threads import in_thread

_READER = Path(sql_sqlite_reader.__file__)
_AT_ONCE = 4
_NEEDED = ("LD_LIBRARY_PATH",)
"""Without which some builds of Python do not start. The rest of the environment may hold secrets."""
_START_SECONDS = 5.0
"""How long the process may take to start, beside the time of its query."""
_TIME_IS_UP = -signal.SIGALRM
_SENT_AWAY = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""A service manager that stops the worker may tell every process of it to end; a terminal's keys do not reach it."""


class SqliteDatabase:
    """A file that is read.

    Args:
        path: Of the file; it need not be there yet.
        functions: Admitted beside the usual ones.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, functions: Collection[str] = ()) -> None:
        self.path = path.absolute()
        self._functions = SQLITE_FUNCTIONS | {name.lower() for name in functions}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def check(self) -> None:
        """Look whether the file can be read.

        Raises:
            Unavailable: It cannot.
        """
        self._open().close()

    async def schema(self) -> tuple[TableSchema, ...]:
        """All tables and views but SQLite's own.

        Raises:
            Unavailable: The file cannot be opened.
        """
        return await in_thread(self._schema)

    async def own_functions(self) -> frozenset[str]:
        """A file holds no functions."""
        return frozenset()

    async def query(self, sql: str, tables: Collection[Table], bounds: Bounds) -> Rows:
        """Run a checked statement.

        Raises:
            ToolProblem: SQLite refuses it, or it takes too long.
            Unavailable: The file cannot be opened, or the process was ended from outside.
        """
        question = {
            "path": str(self.path),
            "sql": sql,
            "tables": [table.name for table in tables],
            "functions": sorted(self._functions),
            "columns": MAX_COLUMNS,
            "rows": bounds.rows,
            "characters": bounds.characters,
            "cell_characters": bounds.cell_characters,
            "seconds": bounds.seconds,
        }
        async with self._places:
            answer = await _answer(question, bounds)
        if "away" in answer:
            raise self._away()
        if "problem" in answer:
            raise ToolProblem(str(answer["problem"]))
        columns = shorten(answer["columns"])
        if not 0 < len(columns) <= MAX_COLUMNS:
            raise ToolProblem(f"The result has {len(columns)} columns; take 1 to {MAX_COLUMNS}.")
        return Rows(columns, tuple(tuple(row) for row in answer["rows"]), more=bool(answer["more"]))

    async def aclose(self) -> None:
        """Nothing is held open."""
        return

    def _open(self) -> sqlite3.Connection:
        try:
            return sql_sqlite_reader.opened(self.path)
        except (sqlite3.Error, OSError):
            raise self._away() from None

    def _away(self) -> Unavailable:
        return Unavailable(f"The SQLite file {str(self.path)!r} cannot be opened for reading; see that it is there")

    def _schema(self) -> tuple[TableSchema, ...]:
        with closing(self._open()) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_' "
                "ORDER BY type, name"
            ).fetchall()
            return tuple(TableSchema(Table("", name), self._columns(connection, name)) for (name,) in names)

    def _columns(self, connection: sqlite3.Connection, table: str) -> tuple[Column, ...]:
        try:
            columns = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall()
            keys = connection.execute(
                'SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (table,)
            ).fetchall()
        except sqlite3.Error:
            return ()  # a view of a table that is gone: it cannot be queried, and that is told when it is
        notes = {column: f"-> {other}.{key}" if key else f"-> {other}" for column, other, key in keys}
        return tuple(
            Column(name, kind.lower(), " ".join(filter(None, ("primary key" if pk else "", notes.get(name, "")))))
            for name, kind, pk in columns
        )


async def _answer(question: dict[str, object], bounds: Bounds) -> dict[str, Any]:
    """What the process wrote; it ends with the waiting for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_READER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _NEEDED if name in os.environ},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_START_SECONDS + bounds.seconds):
            written, _ = await process.communicate(json.dumps(question).encode())
    except TimeoutError:
        raise ToolProblem(_too_long(bounds)) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == _TIME_IS_UP:
        raise ToolProblem(_too_long(bounds))
    if process.returncode in _SENT_AWAY:
        raise Unavailable("The query was ended from outside, as when a worker is stopped; it can be asked again.")
    try:
        answer = json.loads(written)
    except ValueError:
        raise ToolProblem("The query needs more memory than it may take; ask for less.") from None
    return answer if isinstance(answer, dict) else {}


def _too_long(bounds: Bounds) -> str:
    return f"The query takes longer than {bounds.seconds:g} s; ask for less."
