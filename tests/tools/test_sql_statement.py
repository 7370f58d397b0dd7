"""Statements are checked without a database: whatever the text, it is refused or becomes one query of known tables."""

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from holdfast.errors import ToolProblem
from holdfast.tools.sql_language import Dialect
from holdfast.tools.sql_statement import checked_sql
from holdfast.tools.sql_table import Table

TABLES = {
    "sqlite": (Table("", "orders"), Table("", "Odd Name")),
    "postgres": (Table("public", "orders"), Table("s", "t")),
}
_WORDS = r"""
SELECT FROM WHERE orders secrets s t id * ( ) , . ; ' " $$ E' U&' -- /* */ [ ] :: = < || -> ->> ? $1 :x @a 1 'x' \ é 💥
WITH RECURSIVE AS UNION ALL JOIN LATERAL ON GROUP BY ORDER LIMIT OVER FILTER VALUES TABLE ROWS FOR UPDATE OF INTO INSERT
DELETE SET RETURNING CREATE DROP COPY PRAGMA ATTACH EXPLAIN CASE WHEN THEN END CAST INTERVAL NOT NULL IN EXISTS count
lower pg_sleep pg_catalog public main ARRAY ROW UNNEST json_each DISTINCT WINDOW QUALIFY PIVOT MATCH ESCAPE COLLATE AT
TIME ZONE BETWEEN LIKE IS ANY ONLY TABLESAMPLE OPERATOR GLOB EXTRACT TRIM
"""
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgres")


def admitted(sql: str, dialect: Dialect) -> str | None:
    try:
        return checked_sql(sql, dialect, TABLES[dialect])
    except ToolProblem:
        return None


def see(sql: str, dialect: Dialect) -> None:
    """Every table of an admitted statement is known, and checking it again changes nothing."""
    written = admitted(sql, dialect)
    if written is None:
        return
    assert checked_sql(written, dialect, TABLES[dialect]) == written
    (statement,) = sqlglot.parse(written, read=dialect)
    assert isinstance(statement, exp.Query | exp.Values)
    common = {query.alias.lower() for query in statement.find_all(exp.CTE)}
    for table in statement.find_all(exp.Table):
        known = Table(table.db.replace("main", ""), table.name) in TABLES[dialect]
        assert known or not table.name or table.name.lower() in common
    assert not statement.find(exp.Insert, exp.Delete, exp.Update, exp.Into, exp.Lock, exp.Create, exp.Drop, exp.Command)


@given(st.lists(st.sampled_from(_WORDS.split()), max_size=25).map(" ".join), st.sampled_from(DIALECTS))
def test_any_words_are_a_query_of_known_tables_or_refused(sql: str, dialect: Dialect) -> None:
    see(sql, dialect)
    see(f"SELECT {sql}", dialect)
    see(f"SELECT id FROM orders {sql}", dialect)


@given(st.text(max_size=60), st.sampled_from(DIALECTS))
def test_any_text_is_a_query_of_known_tables_or_refused(sql: str, dialect: Dialect) -> None:
    see(sql, dialect)
    see(f"SELECT '{sql}' FROM orders", dialect)
    see(f'SELECT "{sql}" FROM orders', dialect)
    see(f"SELECT 1 /*{sql}*/ FROM orders -- {sql}", dialect)


@given(st.text(max_size=40).filter(lambda text: "\x00" not in text), st.sampled_from(DIALECTS))
def test_a_text_stays_the_text_it_was(text: str, dialect: Dialect) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    written = checked_sql(f"SELECT {quoted} AS t", dialect, ())
    assert written == f"SELECT {quoted} AS t"


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("select id from orders", 'SELECT id FROM "public"."orders" AS "orders"'),
        ("select o.id from public.orders o", 'SELECT o.id FROM "public"."orders" AS o'),
        ("select * from t", 'SELECT * FROM "s"."t" AS "t"'),
        ("select s.t.a from s.t -- comment", 'SELECT t.a FROM "s"."t" AS "t"'),
    ],
)
def test_what_is_executed_names_every_table_with_its_schema(sql: str, written: str) -> None:
    assert checked_sql(sql, "postgres", TABLES["postgres"]) == written


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM orders", "Only `SELECT`"),
        ("EXPLAIN SELECT 1", "Only `SELECT`"),
        ("WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x", "would write"),
        ("SELECT * FROM (WITH x AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM x) y", "would write"),
        ("SELECT * INTO stolen FROM orders", "would write"),
        ("SELECT * FROM (SELECT * FROM orders FOR UPDATE) x", "would lock rows"),
        ("SELECT E'\\''", "escaped text"),
        ("SELECT U&'a'", "escaped text"),
        ("SELECT $$a$$", "escaped text"),
        ("SELECT $1", "a parameter"),
        ("SELECT pg_catalog.lower('a')", "by its schema"),
        ("SELECT * FROM pg_catalog.generate_series(1, 2)", "by its schema"),
        ("SELECT 1 OPERATOR(pg_catalog.+) 1", "names an operator"),
        ("SELECT * FROM elsewhere.public.orders", "named with its database"),
    ],
)
def test_the_text_alone_is_reason_enough(sql: str, message: str) -> None:
    with pytest.raises(ToolProblem, match=message):
        checked_sql(sql, "postgres", TABLES["postgres"])


def test_a_name_of_two_schemas_has_to_be_told_apart() -> None:
    tables = (Table("a", "t"), Table("b", "t"))
    with pytest.raises(ToolProblem, match="name it with its schema"):
        checked_sql("SELECT * FROM t", "postgres", tables)
    assert '"b"."t"' in checked_sql("SELECT * FROM b.t", "postgres", tables)


def test_a_project_can_admit_a_function() -> None:
    with pytest.raises(ToolProblem, match="'levenshtein' may not be called"):
        checked_sql("SELECT levenshtein('a', 'b')", "postgres", ())
    assert "LEVENSHTEIN" in checked_sql("SELECT levenshtein('a', 'b')", "postgres", (), ("Levenshtein",))
