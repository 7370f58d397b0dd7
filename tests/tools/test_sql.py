"""`sql_query` on real SQLite and real PostgreSQL, as a user who may do everything: it reads what it may and no more."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from holdfast.errors import ConfigurationError, ToolProblem, Unavailable
from holdfast.tools import load_toolset
from holdfast.tools.context import ToolContext
from holdfast.tools.sql import SqlQuery, SqlSettings, build
from holdfast.tools.sql_postgresql import PostgresqlDatabase
from holdfast.tools.sql_rows import Bounds
from holdfast.tools.sql_sqlite import SqliteDatabase
from holdfast.tools.sql_table import Table
from tests.tools.shop_databases import postgresql_shop, sqlite_shop

CALLER = ToolContext(
    idempotency_key="0" * 32, tenant="acme", user="ann", session=None, agent="sql", request_id="req_1", key="0.0"
)
SHOWN = ("customers", "orders", "totals")
BOUNDS = Bounds(rows=10, cell_characters=100, characters=10_000, seconds=5)


@pytest.fixture(scope="session")
async def postgresql_url_of_shop() -> AsyncIterator[str]:
    async with postgresql_shop() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_path_of_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_shop(tmp_path_factory.mktemp("shop") / "my shop?#.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_path_of_shop')}"
    return str(request.getfixturevalue("postgresql_url_of_shop"))


@pytest.fixture
async def ask(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["Ask"]:
    monkeypatch.setenv("SHOP_URL", url)
    asking = Ask(url)
    yield asking
    await asking.aclose()


class Ask:
    """Asks a shop's database through the tool."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self._tools: list[SqlQuery] = []

    def tool(self, **options: object) -> SqlQuery:
        settings = SqlSettings.model_validate({"url_env": "SHOP_URL", "tables": SHOWN, **options})
        self._tools.append(SqlQuery("sql_query", settings, "tools.toml"))
        return self._tools[-1]

    async def __call__(self, sql: str, **options: object) -> str:
        return await self.tool(**options).call({"sql": sql}, CALLER)

    async def refused(self, sql: str, **options: object) -> str:
        with pytest.raises(ToolProblem) as caught:
            await self(sql, **options)
        return str(caught.value)

    async def everything(self) -> object:
        """All rows, as the database's owner sees them."""
        queries = ["SELECT * FROM customers", "SELECT * FROM orders", "SELECT * FROM secrets"]
        if self.sqlite:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
                names = connection.execute("SELECT name FROM sqlite_master").fetchall()
                return [names, *(connection.execute(query).fetchall() for query in queries)]
        connection = await asyncpg.connect(self.url)
        names = await connection.fetch("SELECT relname FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1")
        value = await connection.fetch("SELECT last_value, is_called FROM numbers")
        found = [names, value, *[await connection.fetch(query) for query in queries]]
        await connection.close()
        return found

    async def aclose(self) -> None:
        for tool in self._tools:
            await tool.aclose()


async def test_rows_come_back_as_csv_in_which_null_and_the_empty_text_differ(ask: Ask) -> None:
    assert await ask("SELECT id, name, note FROM customers ORDER BY id") == (
        '3 rows.\nid,name,note\n1,Ann,\n2,"Bob, the second",""\n3,"Cleo ""C""","two\nlines"'
    )
    assert await ask("SELECT total FROM orders WHERE id = 1") in ("1 row.\ntotal\n10.50", "1 row.\ntotal\n10.5")
    assert await ask("SELECT id FROM orders WHERE id = 7") == "No rows.\nid"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) AS n FROM orders", "n\n3"),
        (
            "select o.id from orders as o join customers c on c.id = o.customer where c.name = 'Ann' order by 1",
            "id\n1\n2",
        ),
        (
            "SELECT orders.id FROM orders, customers WHERE customers.id = orders.customer ORDER BY orders.id LIMIT 1",
            "id\n1",
        ),
        ("SELECT customer FROM totals ORDER BY total DESC;", "customer\n1\n2"),
        ("WITH big AS (SELECT * FROM orders WHERE total > 6) SELECT count(*) AS n FROM big", "n\n2"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3) SELECT x FROM c", "x\n1\n2\n3"),
        ("WITH a AS (SELECT id FROM orders), b AS (SELECT id FROM a) SELECT max(id) AS m FROM b", "m\n3"),
        ("SELECT id FROM orders WHERE customer IN (SELECT id FROM customers WHERE name LIKE 'B%')", "id\n3"),
        ("SELECT id FROM orders UNION ALL SELECT id FROM customers ORDER BY id DESC LIMIT 2", "id\n3\n3"),
        ("(SELECT 1 AS one)", "one\n1"),
        ("SELECT 'it''s; DELETE FROM orders -- no' AS text", "text\nit's; DELETE FROM orders -- no"),
        ("SELECT '\\' AS slash /* ; DROP TABLE orders */ -- and ; more", "slash\n\\"),
        ('SELECT "id" FROM "orders" WHERE "orders"."id" = 2', "id\n2"),
        ("SELECT ORDERS.ID FROM Orders WHERE id = 2", "id\n2"),
        ("SELECT customer, row_number() OVER (PARTITION BY customer ORDER BY id) AS r FROM orders ORDER BY id", "1,2"),
        ("SELECT CASE WHEN total > 6 THEN 'big' ELSE 'small' END AS size FROM orders WHERE id = 3", "size\nsmall"),
        ("SELECT coalesce(note, 'none') AS note, upper(name) AS n FROM customers WHERE id = 1", "note,n\nnone,ANN"),
        ("SELECT cast(total AS integer) AS t, round(total, 1) AS r FROM orders WHERE id = 2", "t,r\n20,20"),
        (
            "SELECT c.name, t.total FROM customers c LEFT JOIN totals t ON t.customer = c.id WHERE c.id = 3",
            '"Cleo ""C""",',
        ),
        ("SELECT EXISTS (SELECT 1 FROM orders WHERE total > 100) AS e", "e\n"),
        ("SELECT id AS a, id AS a FROM orders WHERE id = 1", "a,a\n1,1"),
        ("VALUES (1, 'x')", "1,x"),
    ],
)
async def test_ordinary_questions_are_answered(ask: Ask, sql: str, expected: str) -> None:
    assert expected in await ask(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders",
        "UPDATE orders SET total = 0",
        "INSERT INTO orders (id) VALUES (9)",
        "INSERT INTO orders (id) SELECT 9 RETURNING id",
        "REPLACE INTO orders (id) VALUES (1)",
        "MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN DELETE",
        "TRUNCATE orders",
        "DROP TABLE orders",
        "CREATE TABLE stolen AS SELECT * FROM customers",
        "CREATE TEMP TABLE t (a int)",
        "ALTER TABLE orders ADD COLUMN x int",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1;; SELECT 2",
        "",
        ";",
        "-- nothing",
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO orders (id) VALUES (9) RETURNING id) SELECT id FROM new",
        "WITH gone AS (UPDATE orders SET total = 0 RETURNING id) SELECT * FROM (SELECT * FROM gone) x",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "SELECT * INTO stolen FROM orders",
        "SELECT * FROM orders FOR UPDATE",
        "SELECT * FROM orders FOR SHARE",
        "SELECT * FROM (SELECT * FROM orders FOR NO KEY UPDATE) x",
        "COPY orders TO '/tmp/stolen'",
        "COPY (SELECT * FROM orders) TO PROGRAM 'cat > /tmp/stolen'",
        "COPY orders FROM PROGRAM 'echo 9'",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "EXPLAIN SELECT 1",
        "PRAGMA writable_schema = ON",
        "PRAGMA table_info(orders)",
        "ATTACH DATABASE '/tmp/stolen.db' AS stolen",
        "DETACH DATABASE main",
        "VACUUM INTO '/tmp/stolen.db'",
        "VACUUM",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "COMMIT; DELETE FROM orders; BEGIN",
        "ROLLBACK; DROP TABLE orders",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "RESET ALL",
        "SHOW ALL",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "CALL something()",
        "PREPARE p AS DELETE FROM orders",
        "EXECUTE p",
        "LOCK TABLE orders",
        "LISTEN x",
        "NOTIFY x, 'y'",
        "GRANT ALL ON orders TO PUBLIC",
        "LOAD 'library'",
        "DECLARE c CURSOR FOR SELECT 1",
        "REFRESH MATERIALIZED VIEW totals",
        "SELECT 1 \x00; DELETE FROM orders",
        "SELECT E'\\'; DELETE FROM orders; --'",
        "SELECT U&'\\0061'",
        "SELECT $1",
        "SELECT :name",
        "SELECT ?",
        "SELECT " + "(" * 4_000 + "1" + ")" * 4_000,
        "SELECT '" + "x" * 10_000 + "'",
        "SELECT",
        "SELECT * FROM",
        "not SQL at all",
        "💥",
    ],
)
async def test_whatever_is_not_one_reading_statement_is_refused_and_changes_nothing(ask: Ask, sql: str) -> None:
    before = await ask.everything()
    assert await ask.refused(sql)
    assert await ask.everything() == before


@pytest.mark.parametrize(
    "call",
    [
        "pg_read_file('/etc/passwd')",
        "pg_catalog.pg_read_file('/etc/passwd')",
        "\"pg_read_file\"('/etc/passwd')",
        '"pg_catalog"."pg_read_file"(\'/etc/passwd\')',
        "pg_read_binary_file('/etc/passwd')",
        "pg_ls_dir('/')",
        "pg_stat_file('/etc/passwd')",
        "lo_import('/etc/passwd')",
        "lo_export(1, '/tmp/stolen')",
        "lo_create(0)",
        "dblink('host=127.0.0.1', 'DELETE FROM orders')",
        "dblink_exec('DELETE FROM orders')",
        "nextval('numbers')",
        "setval('numbers', 9)",
        "currval('numbers')",
        "pg_sleep(60)",
        "PG_SLEEP(60)",
        "pg_sleep_for('1 minute')",
        "set_config('transaction_read_only', 'off', false)",
        "set_config('statement_timeout', '0', false)",
        "current_setting('data_directory')",
        "pg_terminate_backend(pg_backend_pid())",
        "pg_cancel_backend(1)",
        "pg_reload_conf()",
        "pg_notify('x', 'y')",
        "pg_advisory_lock(1)",
        "pg_export_snapshot()",
        "txid_current()",
        "query_to_xml('SELECT * FROM secrets', true, true, '')",
        "table_to_xml('secrets', true, true, '')",
        "database_to_xml(true, true, '')",
        "ts_stat('SELECT value::tsvector FROM secrets')",
        "ts_rewrite('a'::tsquery, 'SELECT 1')",
        "inet_server_addr()",
        "version()",
        "add_one()",
        "public.add_one()",
        "load_extension('evil')",
        "readfile('/etc/passwd')",
        "writefile('/tmp/stolen', 'x')",
        "edit('x')",
        "fts3_tokenizer('x', 1)",
        "randomblob(1000000000)",
        "zeroblob(1000000000)",
        "sqlite_version()",
        "sqlite_source_id()",
        "last_insert_rowid()",
        "sqlite_compileoption_get(1)",
        "has_table_privilege('secrets', 'select')",
        "pg_get_viewdef('totals'::text)",
        "to_regclass('secrets')",
        "xmlparse(document '<a/>')",
    ],
)
async def test_no_function_with_an_effect_or_an_eye_for_elsewhere_can_be_called(ask: Ask, call: str) -> None:
    before = await ask.everything()
    for sql in (
        f"SELECT {call}",
        f"SELECT id FROM orders WHERE {call} IS NULL",
        f"SELECT id FROM orders ORDER BY {call}",
        f"WITH x AS (SELECT {call} AS y) SELECT y FROM x",
        f"SELECT count({call}) FROM orders",
        f"SELECT CASE WHEN 1 = 1 THEN {call} END",
        f"SELECT * FROM {call} AS f",
    ):
        await ask.refused(sql)
    assert await ask.everything() == before


@pytest.mark.parametrize("sql", ["SELECT 'secrets'::regclass", "SELECT cast(1260 AS regclass)", "SELECT 'x'::regproc"])
async def test_the_catalog_cannot_be_asked_by_a_cast(
    postgresql_url_of_shop: str, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setenv("SHOP_URL", postgresql_url_of_shop)
    assert "type of the system's catalog" in await Ask(postgresql_url_of_shop).refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM secrets",
        "SELECT * FROM SECRETS",
        'SELECT * FROM "secrets"',
        "SELECT * FROM public.secrets",
        "SELECT * FROM main.secrets",
        "SELECT (SELECT value FROM secrets) AS v FROM orders",
        "SELECT * FROM orders o JOIN secrets s ON s.id = o.id",
        "SELECT * FROM orders WHERE id IN (SELECT id FROM secrets)",
        "SELECT id FROM orders UNION SELECT id FROM secrets",
        "WITH s AS (SELECT * FROM secrets) SELECT * FROM s",
        "WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets",
        "WITH a AS (SELECT * FROM secrets), secrets AS (SELECT 1 AS id) SELECT * FROM a",
        "SELECT * FROM (WITH secrets AS (SELECT 1 AS id) SELECT * FROM secrets) a, secrets",
        "SELECT 1 WHERE EXISTS (WITH secrets AS (SELECT 1) SELECT 1) AND (SELECT count(*) FROM secrets) > 0",
        "TABLE secrets",
        "SELECT * FROM other.orders",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pg_catalog.pg_authid",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_class",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM main.sqlite_master",
        "SELECT * FROM sqlite_temp_master",
        "SELECT * FROM pragma_table_info('secrets')",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM dbstat",
        "SELECT * FROM elsewhere.public.secrets",
        "SELECT * FROM nothing",
    ],
)
async def test_no_table_beyond_the_list_can_be_read(ask: Ask, sql: str) -> None:
    told = await ask.refused(sql)
    assert "hunter2" not in told
    assert "hidden" not in told


async def test_a_view_can_be_read_without_what_is_behind_it(ask: Ask) -> None:
    assert await ask("SELECT count(*) AS n FROM totals", tables=["totals"]) == "1 row.\nn\n2"
    assert "5.25" in await ask("SELECT * FROM totals", tables=["totals"])
    for sql in ("SELECT * FROM orders", "SELECT count(*) FROM orders", "SELECT totals.id FROM totals, orders"):
        assert "no table 'orders'" in await ask.refused(sql, tables=["totals"])


async def test_a_common_table_expression_may_have_any_name(ask: Ask) -> None:
    assert await ask("WITH secrets AS (SELECT 1 AS id) SELECT id FROM secrets") == "1 row.\nid\n1"
    nested = (
        "WITH secrets AS (SELECT 1 AS id) SELECT * FROM (SELECT id FROM secrets) x WHERE id IN (SELECT id FROM secrets)"
    )
    assert await ask(nested) == "1 row.\nid\n1"


async def test_a_mistake_is_told_with_what_there_is(ask: Ask) -> None:
    assert "Did you mean 'orders'?" in await ask.refused("SELECT * FROM ordrs")
    assert "there are customers, orders, totals" in await ask.refused("SELECT * FROM nothing")
    assert "'lowr' may not be called here; there is 'lower'" in await ask.refused("SELECT lowr(name) FROM customers")
    assert "nam" in await ask.refused("SELECT nam FROM customers")
    assert "2 statements; write exactly one" in await ask.refused("SELECT 1; SELECT 2")


async def test_a_result_is_bounded_in_rows_cells_and_characters(ask: Ask) -> None:
    assert await ask("SELECT id FROM orders ORDER BY id", rows=2) == (
        "The first 2 rows; there are more. Use conditions, aggregates or LIMIT with OFFSET.\nid\n1\n2"
    )
    assert (await ask("SELECT id FROM orders ORDER BY id", rows=3)).startswith("3 rows.")
    long = await ask("SELECT name FROM customers WHERE id = 2", cell_characters=10)
    assert long == "1 row. Values longer than 10 characters are cut and end in '…'.\nname\n\"Bob, the s…\""
    wide = "SELECT 'ten words of text, repeated' AS t FROM orders a, orders b, orders c, orders d"
    assert len(await ask(wide, characters=1_000)) < 1_200


async def test_a_query_without_end_is_ended(ask: Ask) -> None:
    bomb = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    product = "SELECT count(*) FROM " + ", ".join(f"orders o{number}" for number in range(24))
    for sql in (bomb, product):
        assert "takes longer than 0.3 s" in await ask.refused(sql, within="300ms")
    assert (await ask("SELECT 1 AS one")).endswith("1")


async def test_a_value_without_end_is_cut_or_refused(ask: Ask) -> None:
    grown = (
        "WITH RECURSIVE g(t) AS (SELECT 'xxxxxxxxxxxxxxxx' UNION ALL SELECT t || t FROM g WHERE length(t) < 10000000) "
        "SELECT max(t) AS t FROM g"
    )
    try:
        assert len(await ask(grown, cell_characters=100)) < 300
    except ToolProblem as refused:
        assert "too big" in str(refused) or "takes longer" in str(refused)  # noqa: PT017 - either ending is right


async def test_the_model_is_told_the_tables_it_can_read(ask: Ask) -> None:
    told = await ask.tool(about="Orders of the shop.", tables=("orders", "cust*")).describe()
    assert told.startswith("Ask a database with one SELECT statement. Orders of the shop. It is ")
    assert "customers(id integer primary key, name text, note text)" in told
    assert "orders(id integer primary key, customer integer -> customers.id, total numeric" in told
    assert "secrets" not in told
    assert "totals" not in told
    if not ask.sqlite:
        assert "total numeric (In euros.), placed date) -- What was bought." in told


async def test_without_a_list_all_tables_of_the_schemas_can_be_read_and_the_systems_cannot(ask: Ask) -> None:
    assert "hunter2" in await ask("SELECT value FROM secrets", tables=["*"])
    for sql in ("SELECT * FROM sqlite_master", "SELECT * FROM pg_class", "SELECT * FROM other.orders"):
        await ask.refused(sql, tables=["*"])


async def test_what_the_parser_would_miss_the_session_refuses(ask: Ask) -> None:
    """The second wall alone: statements go to the database unchecked."""
    before = await ask.everything()
    database = (
        SqliteDatabase(Path(ask.url.removeprefix("sqlite:///")))
        if ask.sqlite
        else PostgresqlDatabase(ask.url, ("public",), 5)
    )
    tables = (Table("", "orders"), Table("", "totals"))
    writes = ["DELETE FROM orders", "UPDATE orders SET total = 0", "CREATE TABLE t (a int)", "DROP TABLE orders"]
    if ask.sqlite:
        writes += ["ATTACH '/tmp/x.db' AS x", "PRAGMA query_only = OFF", "VACUUM INTO '/tmp/x.db'", "BEGIN IMMEDIATE"]
        writes += ["WITH orders AS (SELECT value FROM secrets) SELECT * FROM orders"]
        writes += ["SELECT * FROM secrets", "SELECT * FROM sqlite_master", "SELECT load_extension('x')"]
        writes += ["SELECT randomblob(10)", "SELECT * FROM pragma_table_info('orders')", "SELECT 1; DELETE FROM orders"]
    else:
        writes += ["SELECT nextval('numbers')", "SELECT setval('numbers', 9)", "SELECT * FROM orders FOR UPDATE"]
        writes += [
            "SELECT 1; DELETE FROM orders",
            "COMMIT; DELETE FROM orders",
            "SELECT * FROM sneaky",
            "SELECT add_one()",
        ]
        writes += ["WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x"]
        writes += ["SELECT set_config('transaction_read_only', 'off', false)", "SET TRANSACTION READ WRITE"]
        writes += ["SELECT 1) AS q; DELETE FROM orders; --"]
    for sql in writes:
        with pytest.raises(ToolProblem):
            await database.query(sql, tables, BOUNDS)
    if not ask.sqlite:  # which a read-only transaction of PostgreSQL 15 admits
        assert len((await database.query("SELECT lo_create(7)", tables, BOUNDS)).rows) == 1
        assert (await database.query("SELECT count(*) FROM pg_largeobject_metadata", tables, BOUNDS)).rows == (("0",),)
    assert (await database.query("SELECT count(*) AS n FROM orders", tables, BOUNDS)).rows == (("3",),)
    await database.aclose()
    assert await ask.everything() == before


async def test_a_view_that_writes_cannot(postgresql_url_of_shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", postgresql_url_of_shop)
    ask = Ask(postgresql_url_of_shop)
    assert "only reads" in await ask.refused("SELECT * FROM sneaky", tables=["sneaky"])
    await ask.aclose()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 'NaN'::float8 AS a, 'Infinity'::numeric AS b, NULL::int AS c, true AS d", "NaN,Infinity,,true"),
        (
            "SELECT '{1,2}'::int[] AS a, '{\"k\": [1]}'::jsonb AS b, '1 day'::interval AS c",
            '"{1,2}","{""k"": [1]}",1 day',
        ),
        ("SELECT '\\xdeadbeef'::bytea AS a, ROW(1, 'x') AS b", '\\xdeadbeef,"(1,x)"'),
        ("SELECT date_trunc('month', placed)::date AS m, count(*) FROM orders GROUP BY 1 ORDER BY 1", "2026-01-01,2"),
        ("SELECT name FROM customers WHERE name ILIKE 'a%' AND name ~ '^A'", "Ann"),
        ("SELECT string_agg(name, '; ' ORDER BY id) FILTER (WHERE id < 2) AS s FROM customers", "Ann"),
        (
            "SELECT c.name, o.n FROM customers c, LATERAL (SELECT count(*) AS n FROM orders WHERE customer = c.id) o",
            "Ann,2",
        ),
        ("SELECT extract(year FROM placed) AS y FROM orders WHERE id = 1", "2026"),
        ("SELECT jsonb_build_object('a', 1) ->> 'a' AS a", "1"),
        ("SELECT g FROM generate_series(1, 3) AS g", "1\n2\n3"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) AS p FROM orders", "10.5"),
        ("SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, placed DESC", "1,2"),
        ("SELECT public.orders.id FROM public.orders WHERE id = 1", "1"),
        ("SELECT count(*) AS n FROM orders GROUP BY ROLLUP (customer) ORDER BY 1 DESC LIMIT 1", "3"),
        (
            "SELECT placed + interval '1 day' AS d, now() > placed AS n FROM orders WHERE id = 1",
            "2026-01-02 00:00:00,true",
        ),
    ],
)
async def test_the_dialect_of_postgresql_is_understood(
    postgresql_url_of_shop: str, monkeypatch: pytest.MonkeyPatch, sql: str, expected: str
) -> None:
    monkeypatch.setenv("SHOP_URL", postgresql_url_of_shop)
    ask = Ask(postgresql_url_of_shop)
    assert expected in await ask(sql)
    await ask.aclose()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT strftime('%Y-%m', placed) AS m, count(*) AS n FROM orders GROUP BY m ORDER BY m", "2026-01,2"),
        ("SELECT date('2026-01-31', '+1 day') AS d, typeof(1.5) AS t", "2026-02-01,real"),
        ("SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]') AS a, '{\"b\": 3}' ->> '$.b' AS b", "2,3"),
        ("SELECT value FROM json_each('[1, 2]')", "1\n2"),
        ("SELECT 9e999 AS a, x'ff' IS NULL AS b", ""),
        ("SELECT group_concat(name, '; ') AS s FROM customers WHERE id < 3", "Ann; Bob, the second"),
        ("SELECT name FROM customers WHERE name GLOB 'A*' COLLATE NOCASE", "Ann"),
        ("SELECT iif(1 = 1, 'yes', 'no') AS a, printf('%.2f', 1.5) AS b", "yes,1.50"),
        ("SELECT rowid FROM orders WHERE id = 1", "1"),
    ],
)
async def test_the_dialect_of_sqlite_is_understood(
    sqlite_path_of_shop: Path, monkeypatch: pytest.MonkeyPatch, sql: str, expected: str
) -> None:
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{sqlite_path_of_shop}")
    ask = Ask(f"sqlite:///{sqlite_path_of_shop}")
    if not expected:
        assert await ask.refused(sql)  # a text with escapes of its own
    else:
        assert expected in await ask(sql)


async def test_a_huge_value_is_refused_by_sqlite_before_it_is_made(sqlite_path_of_shop: Path) -> None:
    database = SqliteDatabase(sqlite_path_of_shop)
    with pytest.raises(ToolProblem, match="too big"):
        await database.query("SELECT replace(printf('%900000d', 1), ' ', 'xxxxxxxx')", (), BOUNDS)
    assert (await database.query("SELECT printf('%1000000000d', 1)", (), BOUNDS)).rows == ((None,),)


async def test_bytes_that_are_no_text_are_shown_and_break_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE odd (a, b)")
        connection.execute("INSERT INTO odd VALUES (cast(x'ff41' AS text), x'00ff')")
        connection.commit()
    tool = build("odd", {"path": str(path)}, "tools.toml")
    assert await tool.call({"sql": "SELECT a, b FROM odd"}, CALLER) == "1 row.\na,b\n\ufffdA,<2 bytes>"


async def test_a_statement_is_not_written_to_the_log(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await ask.refused("EXPLAIN ANALYZE SELECT 'ann@example.org'")
    await ask.refused("VACUUM INTO 'ann@example.org'")
    await ask("SELECT 'ann@example.org' AS a")
    assert "ann@example.org" not in "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("asyncio", "aiosqlite"))
    )


async def test_a_database_that_is_away_is_unavailable_and_its_url_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = build("q", {"path": str(tmp_path / "missing.db")}, "tools.toml")
    with pytest.raises(Unavailable, match=r"missing\.db' cannot be opened for reading"):
        await missing.describe()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a look at an empty directory: none was made
    monkeypatch.setenv("SHOP_URL", "postgresql://ann:hunter2@127.0.0.1:9/shop")
    away = build("q", {"url_env": "SHOP_URL"}, "tools.toml")
    with pytest.raises(Unavailable) as unavailable:
        await away.call({"sql": "SELECT 1"}, CALLER)
    assert "hunter2" not in str(unavailable.value)


@pytest.mark.parametrize("value", [None, "mysql://x", "sqlite:///", "postgresql"])
async def test_a_variable_that_holds_no_database_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("SHOP_URL", value)
    with pytest.raises(
        ConfigurationError, match=r"tools\.toml, `shop`: the variable SHOP_URL (is not set|holds no URL)"
    ):
        await build("q", {"url_env": "SHOP_URL"}, "tools.toml, `shop`").describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"tools\.toml: .*give either `path`, a SQLite file, or `url_env`"),
        ({"path": "a.db", "url_env": "X"}, "give either `path`"),
        ({"path": "a.db", "row": 1}, "Did you mean 'rows'"),
        ({"path": "a.db", "tables": []}, "`tables`"),
        ({"path": "a.db", "within": 5}, "a duration needs a unit"),
    ],
)
def test_wrong_options_are_found_at_start(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("sql_query", options, "tools.toml")


async def test_two_tables_of_tools_toml_make_the_tools(tmp_path: Path) -> None:
    path = sqlite_shop(tmp_path / "shop.db")
    (tmp_path / "tools.toml").write_text(
        f'[tools.ask_shop]\nuse = "sql_query"\npath = "{path}"\ntables = ["orders"]\ntimeout = "3s"\n'
        '[tools.read_docs]\nuse = "fetch_url"\nhosts = ["docs.example.org"]\n'
    )
    toolset = load_toolset(tmp_path)
    assert {"ask_shop", "read_docs"} <= set(toolset.tools)
    assert toolset.tools["ask_shop"].timeout == timedelta(seconds=3)
    assert "orders(id integer" in await toolset.tools["ask_shop"].describe()
    assert toolset.tools["read_docs"].origin == "web"
    await toolset.aclose()


def test_it_is_a_tool_without_side_effects() -> None:
    tool = build("ask_shop", {"path": "a.db"}, "tools.toml")
    assert (tool.name, tool.side_effects, tool.idempotent, tool.origin) == ("ask_shop", False, True, "tools")
