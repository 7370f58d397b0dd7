"""No name in a statement calls a function of the project or opens a table that is not on the list."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from holdfast.errors import ToolProblem
from holdfast.tools.context import ToolContext
from holdfast.tools.sql import SqlQuery, SqlSettings
from holdfast.tools.sql_language import Dialect
from holdfast.tools.sql_names import DatabaseNames
from holdfast.tools.sql_statement import checked_sql
from holdfast.tools.sql_table import Table
from tests.tools.shop_databases import postgresql_shop, sqlite_shop

CALLER = ToolContext(
    idempotency_key="0" * 32, tenant="acme", user="ann", session=None, agent="sql", request_id="req_1", key="0.0"
)
OWN = """
CREATE FUNCTION evil(orders) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT value FROM secrets';
CREATE FUNCTION lower(orders) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT value FROM secrets';
CREATE FUNCTION of_any(anyelement) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT value FROM secrets';
CREATE FUNCTION name(orders) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT value FROM secrets';
CREATE FUNCTION "Shout"(orders) RETURNS text LANGUAGE sql AS $$ SELECT 'aloud' $$;
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE DOMAIN checked AS text CHECK (length(VALUE) > 0);
"""
TABLES = (Table("public", "orders"), Table("public", "customers"))
NAMES = DatabaseNames(
    {TABLES[0]: {"id", "customer", "total"}, TABLES[1]: {"id", "name"}}, frozenset({"evil", "lower", "name", "total_"})
)


@pytest.fixture(scope="module")
async def postgresql_url() -> AsyncIterator[str]:
    async with postgresql_shop() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(OWN)
        await connection.close()
        yield url


@pytest.fixture
async def ask(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["Ask"]:
    monkeypatch.setenv("NAMES_URL", postgresql_url)
    asking = Ask()
    yield asking
    for tool in asking.tools:
        await tool.aclose()


class Ask:
    """Asks through the tool."""

    def __init__(self) -> None:
        self.tools: list[SqlQuery] = []

    async def __call__(self, sql: str, **options: object) -> str:
        given = {"url_env": "NAMES_URL", "tables": ["orders", "customers", "totals"], **options}
        if "path" in options:
            del given["url_env"]
        self.tools.append(SqlQuery("sql_query", SqlSettings.model_validate(given), "tools.toml"))
        return await self.tools[-1].call({"sql": sql}, CALLER)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT o.evil FROM orders o",
        'SELECT o."evil" FROM orders AS o',
        "SELECT o.EVIL FROM orders o",
        "SELECT orders.evil FROM orders",
        "SELECT orders.evil FROM public.orders",
        "SELECT public.orders.evil FROM orders",
        "SELECT (o).evil FROM orders o",
        "SELECT (orders).evil FROM orders",
        "SELECT 1 FROM orders o WHERE o.evil = 'hunter2'",
        "SELECT 1 FROM orders o ORDER BY o.evil",
        "SELECT o.evil FROM orders o, (SELECT 1 AS evil) q",
        "SELECT o.name FROM orders o",
        "SELECT o.name FROM orders o WHERE EXISTS (SELECT o.name FROM customers o)",
        "SELECT o.id FROM orders AS o(a, b, c, d) WHERE o.evil IS NULL",
        "SELECT q.of_any FROM (SELECT 1 AS a) AS q",
        "WITH q AS (SELECT 1 AS a) SELECT q.of_any FROM q",
        "SELECT g.of_any FROM generate_series(1, 2) AS g",
        "SELECT ('(1,1,1,)'::orders).evil",
        "SELECT ('(1,1,1,)'::public.orders).evil",
        "SELECT (CAST('(1,1,1,)' AS \"orders\")).evil",
        "SELECT ('{\"(1,1,1,)\"}'::orders[])[1].evil",
        "SELECT lower(o) FROM orders o",
        "SELECT lower(o.*) FROM orders o",
        "SELECT lower(ROW(1, 1, 1, NULL)::orders)",
        "SELECT of_any(1)",
        'SELECT o."Shout" FROM orders o',
        "SELECT 'red'::colour",
        "SELECT 'x'::checked",
        "SELECT ('/etc/passwd'::text).pg_read_file",
    ],
)
async def test_no_function_of_the_project_is_called_by_the_name_of_a_field_or_a_type(ask: Ask, sql: str) -> None:
    with pytest.raises(ToolProblem) as refused:
        await ask(sql)
    assert "hunter2" not in str(refused.value)
    assert "PostgreSQL refuses" not in str(refused.value), "the text has to be reason enough"


async def test_a_project_can_admit_its_functions_on_rows(ask: Ask) -> None:
    assert await ask("SELECT DISTINCT lower(o) AS l FROM orders o", functions=["lower"]) == "1 row.\nl\nhunter2"
    assert "MAIL" in await ask("SELECT upper('mail') AS m")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer WHERE o.id = 1", "1,Ann"),
        ('SELECT O.ID, "o"."total" FROM orders o WHERE o.id = 3', "3,5.25"),
        ("SELECT a.x FROM orders AS a(x, y) WHERE a.y = 2", "3"),
        ("WITH q AS (SELECT o.id AS n FROM orders o) SELECT q.n FROM q WHERE q.n = 2", "2"),
        ("SELECT q.s FROM (SELECT sum(o.total) AS s FROM orders o) q", "35.75"),
        ("SELECT o.id FROM orders o WHERE o.id = 1 UNION SELECT o.id FROM customers o WHERE o.note = ''", "1"),
        ("SELECT c.name FROM customers c WHERE c.id IN (SELECT o.customer FROM orders o) ORDER BY c.id LIMIT 1", "Ann"),
        ("SELECT c.id FROM customers c WHERE c.name IN ('Ann', 'Zoe')", "1"),
        ("SELECT rank() OVER (PARTITION BY o.customer ORDER BY o.total) AS r FROM orders o WHERE o.id = 3", "1"),
        ("SELECT j.value ->> 'a' AS a FROM jsonb_array_elements('[{\"a\": 7}]'::jsonb) AS j", "7"),
        ("SELECT (j.a ->> 'b')::int + 1 AS n FROM (SELECT '{\"b\": 1}'::jsonb AS a) AS j", "2"),
        ("SELECT (ARRAY[3, 4])[2] AS n, o.id = ANY (ARRAY[1, 2]) AS e FROM orders o WHERE o.id = 1", "4,true"),
        ("SELECT u.n FROM unnest(ARRAY[5, 6]) AS u(n)", "5\n6"),
        ("SELECT x.key FROM json_each('{\"k\": 1}') AS x", "k"),
        ("SELECT o.ctid IS NULL AS n FROM orders o WHERE o.id = 1", "false"),
        ("SELECT l.n FROM orders o, LATERAL (SELECT o.id * 2 AS n) l WHERE o.id = 1", "2"),
        ("SELECT o.* FROM orders o WHERE o.id = 3", "3,2,5.25"),
        ("SELECT count(o) AS n, count(o.*) AS m FROM orders o", "3,3"),
        ("SELECT row_to_json(c) ->> 'name' AS n FROM customers c WHERE c.id = 1", "Ann"),
        (
            "SELECT '1'::numeric(4, 1) AS a, '2'::varchar(3) AS b, '2026-01-01'::timestamptz::date AS c, "
            "'{1}'::int[] AS d, 3::double precision AS e, 't'::boolean AS f, DATE '2026-01-02' AS g, "
            "'1.2.3.4'::inet AS h, '2026-01-01 10:00'::timestamp(0) AS i, 'a'::char(2) AS j, 1::real AS k, "
            "'[1,2]'::int4range AS l, 'a b'::tsvector AS m, '10:00'::time AS n, INTERVAL '1 day' AS o",
            "1.0,2,2026-01-01,{1},3,true,2026-01-02,1.2.3.4/32,2026-01-01 10:00:00,",
        ),
    ],
)
async def test_honest_names_and_types_remain(ask: Ask, sql: str, expected: str) -> None:
    assert expected in await ask(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT o.totl FROM orders o", r"'o' has no column 'totl'\. Did you mean 'total'\?"),
        ("SELECT o.evil FROM orders o", "'evil' is a function of the database's own"),
        ("SELECT lower('A')", "'lower' may not be called here: the database has its own"),
        ("SELECT a.orders.o.total FROM orders o", "named with its database"),
        ("SELECT 1::orders", "casts to a type"),
        ("SELECT o." + "x" * 70 + " FROM orders o", "has no column"),
    ],
)
def test_a_name_is_refused_with_its_reason(sql: str, message: str) -> None:
    with pytest.raises(ToolProblem, match=message):
        checked_sql(sql, "postgres", TABLES, (), NAMES)


def test_a_name_is_compared_as_the_server_keeps_it() -> None:
    long, other = "f" * 63, "É"
    names = DatabaseNames({}, frozenset({long, other}))
    for name in (long + "tail", f'"{long}x"', other):
        with pytest.raises(ToolProblem, match="a function of the database's own"):
            checked_sql(f"SELECT q.{name} FROM (SELECT 1 AS a) q", "postgres", (), (), names)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    path = sqlite_shop(tmp_path / "shop.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE hidden (word text); INSERT INTO hidden VALUES ('hunter2');")
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "WITH totals AS (SELECT ('hunter2' IN hidden) AS a) SELECT * FROM totals",
        "WITH TOTALS AS (SELECT 1 AS a) SELECT * FROM totals",
        'WITH "Orders" AS (SELECT 1 AS a) SELECT * FROM "Orders"',
        "SELECT 'hunter2' IN hidden",
        "SELECT 'hunter2' NOT IN hidden",
        "SELECT 'hunter2' IN main.hidden",
        "SELECT 'hunter2' IN \"hidden\"",
        "SELECT 'hunter2' IN 'hidden'",
        "SELECT (1, 'hunter2') IN secrets",
        "SELECT 1 IN orders",
        "SELECT 1 IN json_each('[1]')",
        "SELECT 1 FROM orders WHERE id IN secrets ORDER BY id IN secrets",
    ],
)
async def test_no_table_of_sqlite_is_opened_by_in_or_under_the_name_of_a_view(sqlite_path: Path, sql: str) -> None:
    with pytest.raises(ToolProblem) as refused:
        await Ask()(sql, path=str(sqlite_path))
    assert "SQLite refuses" not in str(refused.value), "the text has to be reason enough"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name FROM customers WHERE id IN (SELECT customer FROM totals) ORDER BY id LIMIT 1", "Ann"),
        ("SELECT id FROM customers WHERE name NOT IN ('Ann', 'Zoe') ORDER BY id LIMIT 1", "2"),
        ("SELECT id FROM orders WHERE (id, customer) IN ((1, 1), (3, 9))", "1"),
        ("SELECT id FROM orders WHERE id IN (id) AND id = 2", "2"),
        ("SELECT 1 IN () AS n", "0"),
        ("WITH sums AS (SELECT * FROM totals) SELECT count(*) AS n FROM sums", "2"),
    ],
)
async def test_lists_and_queries_after_in_remain(sqlite_path: Path, sql: str, expected: str) -> None:
    assert expected in await Ask()(sql, path=str(sqlite_path))


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_a_table_after_in_is_refused_in_either_dialect(dialect: Dialect) -> None:
    with pytest.raises(ToolProblem, match="After `IN` comes a list"):
        checked_sql("SELECT 1 IN orders", dialect, (*TABLES, Table("", "orders")))
