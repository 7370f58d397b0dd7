"""A query ends at its time whatever it calls, and what would grow a text without bound is refused on PostgreSQL."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from holdfast.errors import ToolProblem, Unavailable
from holdfast.tools.context import ToolContext
from holdfast.tools.sql import build
from holdfast.tools.sql_growth import MAX_LENGTH
from holdfast.tools.sql_postgresql import PostgresqlDatabase
from holdfast.tools.sql_rows import Bounds
from holdfast.tools.sql_sqlite import SqliteDatabase
from holdfast.tools.sql_statement import checked_sql
from tests.tools.shop_databases import postgresql_shop, sqlite_shop

CALLER = ToolContext(
    idempotency_key="0" * 32, tenant="acme", user="ann", session=None, agent="sql", request_id="req_1", key="0.0"
)
SHORT = Bounds(rows=10, cell_characters=100, characters=10_000, seconds=0.3)
LONG_PRODUCT = (
    "SELECT 1 AS n FROM (SELECT 9::numeric ^ (67000 + id) AS x FROM orders OFFSET 0) AS q WHERE "
    + " + ".join(["x * x"] * 90)
    + " > 0 LIMIT 1"
)
"""Keeps a server for seconds in one row of one expression, where it hears of nothing."""
AT_WORK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
    "AND application_name = 'holdfast sql_query'"
)
LONG_SEARCH = (
    "SELECT instr(replace(printf('%990000d', 1), ' ', 'a'), replace(printf('%400000d', 1), ' ', 'a') || 'b') AS n"
)
"""Keeps SQLite for seconds in one function."""


@pytest.fixture(scope="module")
async def postgresql_url() -> AsyncIterator[str]:
    async with postgresql_shop() as url:
        yield url


@pytest.mark.parametrize(
    "call",
    [
        "repeat('x', 1000000000)",
        "repeat('x', id)",
        "repeat('x', '1000000000'::int)",
        "repeat(repeat('x', 10000), 10000)",
        "\"repeat\"('x', 1000000000)",
        "lpad('x', 1000000000)",
        "rpad('x', id * 1000)",
        "rpad('x', LEAST(id, 1000000000))",
        "rpad('x', LEAST(id, id * 2))",
        "format('%1000000000s', 'x')",
        "format('%1$-1000000000s', 'x')",
        "format('%*s', 1000000000, 'x')",
        "format('%%%1$*2$s', 'x', 1000000000)",
        "format('%' || '1000000000s', 'x')",
        "\"format\"('%1000000000s', 'x')",
    ],
)
def test_a_text_whose_length_cannot_be_seen_or_is_too_large_is_refused_on_postgresql(call: str) -> None:
    for sql in (
        f"SELECT {call} FROM generate_series(1, 9) AS g(id)",
        f"SELECT 1 FROM generate_series(1, 9) AS g(id) ORDER BY length({call})",
        f"WITH w AS (SELECT {call} AS t FROM generate_series(1, 9) AS g(id)) SELECT length(t) FROM w",
    ):
        with pytest.raises(ToolProblem, match=r"`(repeat|lpad|rpad|format)`"):
            checked_sql(sql, "postgres", ())


@pytest.mark.parametrize(
    ("call", "made"),
    [
        ("repeat('#', 5)", "#####"),
        ("repeat('#', LEAST(id, 50)::int)", "#"),
        ("repeat('#', -2) || 'x'", "x"),
        ("lpad(id::text, 4, '0')", "0001"),
        (f"length(rpad('x', {MAX_LENGTH}))", str(MAX_LENGTH)),
        ("format('%s: %5s|%-3s|%%', 'a', 7, 8)", "a:     7|8  |%"),
        ("format('%1000$s' || '', 1)", ""),
        ("format('%2$s%1$s', 'a', 'b')", "ba"),
    ],
)
async def test_the_usual_ways_to_fill_up_a_text_remain(postgresql_url: str, call: str, made: str) -> None:
    sql = f"SELECT {call} AS t FROM generate_series(1, 1) AS g(id)"
    if not made:
        with pytest.raises(ToolProblem, match="first argument of `format`"):
            checked_sql(sql, "postgres", ())
        return
    database = PostgresqlDatabase(postgresql_url, ("public",), 5)
    rows = await database.query(checked_sql(sql, "postgres", ()), (), Bounds(10, 100, 1_000, 60))
    assert rows.rows == ((made,),)
    await database.aclose()


async def test_a_server_inside_a_function_is_not_waited_for(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROWTH_URL", postgresql_url)
    tool = build("shop", {"url_env": "GROWTH_URL", "tables": ["orders"], "within": "2s"}, "tools.toml")
    with pytest.raises(ToolProblem, match=r"takes longer than 2 s"):
        await tool.call({"sql": LONG_PRODUCT}, CALLER)
    looking = await asyncpg.connect(postgresql_url)
    assert await looking.fetchval(AT_WORK) == 1, "the statement was over before it was given up, so nothing is shown"
    assert (await tool.call({"sql": "SELECT count(*) AS n FROM orders"}, CALLER)).endswith("3")
    async with asyncio.timeout(120):
        while await looking.fetchval(AT_WORK):  # noqa: ASYNC110 - the server ends it at the function's end
            await asyncio.sleep(0.1)
    await looking.close()
    await tool.aclose()


async def test_sqlite_inside_a_function_is_ended_with_its_process(tmp_path: Path) -> None:
    path = sqlite_shop(tmp_path / "shop.db")
    database = SqliteDatabase(path)
    with pytest.raises(ToolProblem, match=r"takes longer than 0\.3 s"):
        await database.query(LONG_SEARCH, (), SHORT)
    assert _readers() == [], "its process is gone"
    assert (await database.query("SELECT 1 AS n", (), Bounds(10, 100, 1_000, 60))).rows == (("1",),)


async def test_a_call_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    database = SqliteDatabase(sqlite_shop(tmp_path / "shop.db"))
    asking = asyncio.ensure_future(database.query(LONG_SEARCH, (), Bounds(10, 100, 1_000, 60)))
    await _reader()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert _readers() == []


async def test_a_query_that_is_ended_from_outside_is_no_answer(tmp_path: Path) -> None:
    database = SqliteDatabase(sqlite_shop(tmp_path / "shop.db"))
    asking = asyncio.ensure_future(database.query(LONG_SEARCH, (), Bounds(10, 100, 1_000, 60)))
    reader = await _reader()
    assert os.getsid(reader) == reader, "what is typed at the worker's terminal does not reach it"
    os.kill(reader, signal.SIGTERM)
    with pytest.raises(Unavailable, match="ended from outside"):
        await asking


async def test_more_memory_than_a_query_may_take_is_refused(tmp_path: Path) -> None:
    database = SqliteDatabase(sqlite_shop(tmp_path / "shop.db"))
    sorted_values = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 4000), "
        "v(t) AS MATERIALIZED (SELECT printf('%900000d', n) FROM c) SELECT length(t) FROM v ORDER BY t DESC"
    )
    with pytest.raises(ToolProblem, match="more memory"):
        await database.query(sorted_values, (), Bounds(10, 100, 1_000, 60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.db"]  # noqa: ASYNC240


async def test_a_database_with_a_write_ahead_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = sqlite_shop(tmp_path / "shop.db")
    database = SqliteDatabase(path)
    with closing(sqlite3.connect(path)) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        writing.execute("INSERT INTO customers VALUES (9, 'Zoe', NULL)")
        writing.commit()
        tables = [schema.table for schema in await database.schema()]
        asked = await database.query("SELECT name FROM customers WHERE id = 9", tables, Bounds(10, 100, 1_000, 60))
        assert asked.rows == (("Zoe",),)
    asked = await database.query("SELECT name FROM customers WHERE id = 9", tables, Bounds(10, 100, 1_000, 60))
    assert asked.rows == (("Zoe",),), "also after the last writer has gone"


async def test_no_more_is_read_than_is_shown(tmp_path: Path) -> None:
    database = SqliteDatabase(sqlite_shop(tmp_path / "shop.db"))
    sql = "SELECT printf('%900d', id) AS t FROM orders"
    found = await database.query(sql, [s.table for s in await database.schema()], Bounds(10_000, 1_000, 1_000, 60))
    assert (len(found.rows), found.more) == (2, True)


async def _reader() -> int:
    """The process that reads, once there is one."""
    async with asyncio.timeout(60):
        while not (found := _readers()):  # noqa: ASYNC110 - a process of somebody else's making sets no event
            await asyncio.sleep(0.01)
    return found[0]


def _readers() -> list[int]:
    """The processes of this one that read SQLite files."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            own = entry.name.isdigit() and f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if own and "sql_sqlite_reader.py" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended while it was looked at
    return found
