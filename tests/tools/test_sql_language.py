"""Reading and writing SQL ends whatever the text, and whatever a text makes the library raise is a refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import ToolProblem
from holdfast.tools.sql_language import MAX_ARRAYS, MAX_BRACKETS, Dialect, Language
from holdfast.tools.sql_statement import checked_sql
from holdfast.tools.sql_table import Table

ROOT = Path(__file__).parents[2]
TABLES = (Table("public", "orders"), Table("", "orders"))
ENTANGLED = {
    "brackets": "SELECT " + "[" * 40 + "1" + "]" * 40,
    "arrays": "SELECT " + "ARRAY[" * 40 + "1" + "]" * 40,
    "joins": "SELECT * FROM orders" + " JOIN orders" * 40,
    "unions": "SELECT " + "UNION (" * 40,
    "sizes": "SELECT 1::" + "numeric(" * 80 + "1" + ")" * 80,
    "subscripts": "SELECT a" + "[1]" * 3_000 + " FROM orders",
    "pipes": "FROM orders " + "|> SELECT id " * 700,
}
CHECK = """
import json, sys
from holdfast.errors import ToolProblem
from holdfast.tools.sql_statement import checked_sql
from holdfast.tools.sql_table import Table
sql, tables = json.load(sys.stdin)
for dialect in ("sqlite", "postgres"):
    try:
        checked_sql(sql, dialect, [Table(*table) for table in tables])
    except ToolProblem as problem:
        print(problem)
"""


@pytest.mark.parametrize("sql", ENTANGLED.values(), ids=ENTANGLED)
def test_a_text_that_the_parser_would_try_for_hours_is_refused(sql: str) -> None:
    question = json.dumps([sql, [[table.schema, table.name] for table in TABLES]])
    # In a process of its own, which is ended when the check would not: nothing else ends it.
    told = subprocess.run(
        [sys.executable, "-c", CHECK], input=question, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True
    )
    refusals = told.stdout.splitlines()
    assert len(refusals) == 2, "one for each dialect"
    assert all(refusal.startswith(("The statement", "There are more than")) for refusal in refusals)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM . . . .",
        "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
        "SELECT " + "NOT " * 2_400 + "1",
        "SELECT 1" + "::int" * 1_900,
        "SELECT * FROM orders |> WHERE id = 1",
    ],
)
def test_what_the_parser_stumbles_over_is_refused_without_the_text(sql: str, dialect: Dialect) -> None:
    with pytest.raises(ToolProblem, match=r"cannot be read as SQL of (SQLite|PostgreSQL)|nested too deeply"):
        checked_sql(sql, dialect, TABLES)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_a_long_query_of_the_honest_kind_is_read_and_written(dialect: Dialect) -> None:
    columns = ", ".join(f"round(o.column_{number}, 2) AS c{number}" for number in range(250))
    written = checked_sql(
        f"SELECT {columns} FROM orders o WHERE o.id IN (1, 2)",
        dialect,
        TABLES[:1] if dialect == "postgres" else TABLES[1:],
    )
    assert written.count("ROUND(") == 250


def test_arrays_and_subscripts_have_bounds_of_their_own() -> None:
    language = Language("postgres")
    assert language.write(language.read("SELECT ARRAY[ARRAY[1, 2], ARRAY[3, 4]][1][2]")[0]).count("ARRAY[") == 3
    with pytest.raises(ToolProblem, match=f"more than {MAX_ARRAYS} arrays"):
        language.read("SELECT " + "[" * (MAX_ARRAYS + 1) + "1" + "]" * (MAX_ARRAYS + 1))
    with pytest.raises(ToolProblem, match=f"more than {MAX_BRACKETS} `\\["):
        language.read("SELECT a" + "[1]" * (MAX_BRACKETS + 1))


def test_a_length_of_five_thousand_digits_is_a_refusal() -> None:
    with pytest.raises(ToolProblem, match="second argument of `repeat`"):
        checked_sql(f"SELECT repeat('x', {'9' * 5_000})", "postgres", ())
