"""Ledgers of earlier versions open as ledgers of this one, with everything that is in them.

`data/version_1.*.sql` is what the first version wrote: one finished request, and one whose call is still open.
"""

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

import holdfast.ledger.migrations
from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import Outcome
from holdfast.ledger import AttemptKey, AttemptState, Database, GroupBy, Ledger, Opened, Recorded
from holdfast.ledger.contents import digest_of
from holdfast.ledger.schema import SCHEMA_VERSION, metadata, schema_version
from holdfast.spending import Period, ScopeKind
from tests.ledger.conftest import Emptied

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["sqlite", "postgresql"])
async def first_version(request: pytest.FixtureRequest, tmp_path: Path, emptied: Emptied) -> str:
    """A ledger as the first version left it."""
    written = (DATA / f"version_1.{request.param}.sql").read_text()
    if request.param == "sqlite":
        file = sqlite3.connect(tmp_path / "old.db")
        file.executescript(written)
        file.close()
        return f"sqlite+aiosqlite:///{tmp_path}/old.db"
    url = await emptied()
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for statement in written.split(";\n"):
            if statement.strip():
                await connection.exec_driver_sql(statement)
    await engine.dispose()
    return url


async def test_a_ledger_of_the_first_version_is_upgraded_in_place_and_keeps_everything(first_version: str) -> None:
    ledger = await Ledger.open(first_version)
    finished = await ledger.requests.get("acme", "req_old")
    assert finished is not None
    assert (finished.user, finished.answer.usage.cost_usd, finished.input) == ("ada", Decimal("0.15"), None)
    assert finished.answer.document is not None
    assert "A part." in await ledger.contents.get("acme", finished.answer.document)
    assert await ledger.contents.get("acme", digest_of("What is a widget?").reference) == "What is a widget?"
    assert await ledger.vault.load("acme", "req_held") == {"<EMAIL_1>": "ada@example.org"}
    recalled = await ledger.answers.recall("acme", "v1", "b" * 64, now=datetime(2026, 11, 20, 13, tzinfo=UTC))
    assert recalled is not None
    assert recalled.document is None
    (old,) = await ledger.attempts.list("req_old")
    assert (old.user, old.session, old.agent, old.usage.total_tokens) == ("ada", "chat-7", "docs", 150)
    await ledger.aclose()


async def test_an_upgraded_ledger_goes_on_where_the_old_one_stopped(first_version: str) -> None:
    ledger = await Ledger.open(first_version)
    again = await ledger.attempts.open(
        AttemptKey("acme", "req_old", 1), deployment="large", model="m", hold=Usage(), limits=Limits()
    )
    assert isinstance(again, Recorded)
    usage = Usage(input_tokens=10, output_tokens=5, cost_usd=Decimal("0.02"))
    settled = await ledger.attempts.settle(
        "req_held.1", Outcome.OK, usage=usage, output="late", finish_reason=FinishReason.STOP, model="m"
    )
    assert (settled.state, settled.usage) == (AttemptState.SETTLED, usage)
    await ledger.budgets.set("acme", ScopeKind.TENANT, "acme", Period.TOTAL, tokens=1_000)
    opened = await ledger.attempts.open(
        AttemptKey("acme", "req_new", 1),
        deployment="large",
        model="m",
        hold=Usage(input_tokens=5),
        limits=Limits(),
        scopes=SpendScopes(tenant="acme", user="ada"),
    )
    assert isinstance(opened, Opened)
    lines = await ledger.usage(GroupBy.DAY, until=date(2026, 11, 20))
    assert [(line.key, line.usage.cost_usd) for line in lines] == [("2026-11-20", Decimal("0.17"))]
    await ledger.aclose()


async def test_an_upgraded_ledger_is_stamped_and_opening_it_again_changes_nothing(first_version: str) -> None:
    def versions(connection: Connection) -> tuple[object, object]:
        stamped = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        return stamped, connection.execute(select(func.max(schema_version.c.version))).scalar_one()

    for _ in range(2):
        database = await Database.open(first_version)
        assert await database.read(versions) == (f"{SCHEMA_VERSION:04}", SCHEMA_VERSION)
        await database.aclose()


async def is_as_the_models_say(address: str) -> None:
    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    def keys(connection: Connection) -> dict[str, list[str]]:
        found = inspect(connection)
        return {name: found.get_pk_constraint(name)["constrained_columns"] for name in metadata.tables}

    database = await Database.open(address)
    assert await database.write(differences) == []
    expected = {name: list(table.primary_key.columns.keys()) for name, table in metadata.tables.items()}
    assert await database.read(keys) == expected
    await database.aclose()


async def test_an_upgraded_ledger_has_the_tables_of_the_models(first_version: str) -> None:
    await is_as_the_models_say(first_version)


async def test_a_new_ledger_has_the_tables_of_the_models(url: str) -> None:
    await is_as_the_models_say(url)


def test_the_last_migration_has_the_number_of_the_schema() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(holdfast.ledger.migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [f"{SCHEMA_VERSION:04}"]
    assert len(list(scripts.walk_revisions())) == SCHEMA_VERSION


async def test_processes_that_upgrade_it_at_the_same_moment_all_find_it_whole(first_version: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from holdfast.ledger import Ledger\n"
        "async def main():\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    ledger = await Ledger.open(sys.argv[1])\n"
        "    await ledger.budgets.list(); await ledger.aclose()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, first_version, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    finished = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [error.decode() for _, error in finished] == [""] * 3


async def test_a_migration_that_fails_leaves_the_ledger_as_it_was(first_version: str) -> None:
    if make_url(first_version).get_backend_name() == "sqlite":
        broken = sqlite3.connect(make_url(first_version).database or "")
        broken.execute("CREATE TABLE credit_entries (tenant TEXT)")  # in the way of the last thing that is created
        broken.close()
    else:
        engine = create_async_engine(first_version)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE credit_entries (tenant TEXT)")
        await engine.dispose()
    with pytest.raises(Exception, match="credit_entries"):
        await Database.open(first_version)
    engine = create_async_engine(first_version)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
        columns = await connection.run_sync(lambda sync: {one["name"] for one in inspect(sync).get_columns("attempts")})
        version = (await connection.execute(select(func.max(schema_version.c.version)))).scalar_one()
    await engine.dispose()
    assert "budgets" not in names
    assert "alembic_version" not in names
    assert "held_in" not in columns
    assert version == 1
