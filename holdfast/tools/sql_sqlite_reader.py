"""Runs one checked query on a SQLite file: a program of its own, see `sql_sqlite`.

SQLite looks at its clock between the steps of a query and never inside a function, and a query may call slow functions
on long values by the hundred. So the query has a process to itself, which the system ends at its time whatever it does.
It imports nothing of Holdfast, so that it starts fast, and it has neither the worker's environment nor its memory.

    python -I -S sql_sqlite_reader.py < question.json
"""

import json
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

MAX_VALUE_BYTES = 1_000_000
"""Longest text or blob that SQLite makes or reads in a query."""
MAX_MEMORY_BYTES = 1024 * 1024 * 1024

_MAX_FILE_BYTES = 16 * 1024 * 1024
"""It writes to a pipe; only the index of a write-ahead log is ever written beside a database that is being read."""
_TABLE_FUNCTIONS = frozenset({"json_each", "json_tree"})


def main() -> None:
    """Read the question, ask, and write what came of it."""
    question = json.loads(sys.stdin.buffer.read())
    seconds = float(question["seconds"])
    _limit(resource.RLIMIT_CPU, int(seconds) + 2)
    _limit(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, _MAX_FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    # Not handled but deadly: a handler would have to wait until SQLite returns.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    sys.stdout.write(json.dumps(_answer(question)))


def opened(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Raises:
        sqlite3.Error: The file is not there, or is no database.
        OSError: It cannot be looked for.
    """
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # reads the file, and so notices
    return connection


def _answer(question: dict[str, object]) -> dict[str, object]:
    try:
        connection = opened(Path(str(question["path"])))
    except (sqlite3.Error, OSError):
        return {"away": True}
    with closing(connection):
        try:
            return _rows(connection, question)
        except sqlite3.Error as error:
            return {"problem": f"SQLite refuses the statement: {error}."}
        except (OverflowError, MemoryError):
            return {"problem": "The query needs more memory than it may take; ask for less."}


def _rows(connection: sqlite3.Connection, question: dict[str, object]) -> dict[str, object]:
    most, most_characters, cell = (int(str(question[name])) for name in ("rows", "characters", "cell_characters"))
    tables, functions = (_names(question[name]) for name in ("tables", "functions"))
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    views = {name.lower() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
    connection.execute("SELECT * FROM json_each('[]'), json_tree('[]')")  # later they would ask to be declared
    connection.set_authorizer(_authorizer(tables, tables & views, functions))
    cursor = connection.execute(str(question["sql"]))
    columns = [column[0] for column in cursor.description or ()]
    if not 0 < len(columns) <= int(str(question["columns"])):
        return {"columns": columns, "rows": [], "more": False}
    rows: list[list[str | None]] = []
    characters = 0
    for row in cursor:
        if len(rows) == most or characters > most_characters:  # more would not be shown
            return {"columns": columns, "rows": rows, "more": True}
        rows.append([_text(value, cell + 1) for value in row])
        characters += sum(len(value or "") for value in rows[-1])
    return {"columns": columns, "rows": rows, "more": False}


def _authorizer(readable: set[str], views: set[str], functions: Collection[str]) -> Callable[..., int]:
    """What SQLite asks while it compiles a statement: only reading is admitted."""

    def authorize(action: int, first: str | None, second: str | None, _database: str | None, view: str | None) -> int:
        match action:
            case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
                return sqlite3.SQLITE_OK
            case sqlite3.SQLITE_READ:
                # What an admitted view reads is read for the view. Where rows are only counted, SQLite asks for a
                # column without a name and does not say for whom; the check of the text has looked at the table.
                admitted = (first or "").lower() in readable | _TABLE_FUNCTIONS or (view or "").lower() in views
                return sqlite3.SQLITE_OK if admitted or not second else sqlite3.SQLITE_DENY
            case sqlite3.SQLITE_FUNCTION:
                return sqlite3.SQLITE_OK if (second or "").lower() in functions else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY

    return authorize


def _names(given: object) -> set[str]:
    return {str(name).lower() for name in given} if isinstance(given, list) else set()


def _text(value: object, most: int) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)[:most]


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (bound, bound))


if __name__ == "__main__":
    main()
