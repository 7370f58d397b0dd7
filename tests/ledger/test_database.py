"""One database file, several processes."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from holdfast.errors import ConfigurationError, ContentMissing, Unavailable
from holdfast.ledger import Contents, Database, Ledger
from holdfast.ledger.contents import digest_of
from holdfast.ledger.schema import SCHEMA_VERSION, contents, metadata, schema_version


async def test_the_directory_of_the_ledger_is_created(sqlite_url: str, tmp_path: Path) -> None:
    database = await Database.open(sqlite_url)
    await database.aclose()
    assert (tmp_path / "var" / "holdfast.db").is_file()


async def test_the_file_runs_in_write_ahead_logging_and_does_not_sync_each_commit(sqlite_ledger: Ledger) -> None:
    def unit(connection: Connection) -> list[object]:
        return [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]

    assert await sqlite_ledger.database.write(unit) == ["wal", 1]


async def test_opening_again_finds_what_was_stored(url: str) -> None:
    first = await Ledger.open(url)
    reference = await first.contents.put("acme", "kept")
    await first.aclose()
    second = await Ledger.open(url)
    assert await second.contents.get("acme", reference) == "kept"
    await second.aclose()


async def test_a_ledger_of_a_newer_version_is_not_opened(url: str) -> None:
    database = await Database.open(url)
    newer = update(schema_version).values(version=SCHEMA_VERSION + 1)
    await database.write(lambda connection: connection.execute(newer).close())
    await database.aclose()
    with pytest.raises(ConfigurationError, match=f"version {SCHEMA_VERSION + 1}.*[Uu]pgrade"):
        await Database.open(url)


async def test_a_file_in_the_way_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"var/holdfast.db cannot be opened.*ledger\.url"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path}/var/holdfast.db")


async def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be opened.*ledger\.url"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path}")


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("shopping list " * 100)
    with pytest.raises(ConfigurationError, match=r"notes\.txt.*not a database"):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path}/notes.txt")


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "mysql://db/x", "nonsense"])
async def test_a_url_that_cannot_serve_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite\\+aiosqlite:///"):
        await Database.open(url)


async def test_a_lock_held_for_too_long_is_reported_as_unavailable(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.ledger.sqlite.BUSY_TIMEOUT_SECONDS", 0)
    ledger = await Ledger.open(sqlite_url)
    other = sqlite3.connect(tmp_path / "var" / "holdfast.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await ledger.contents.put("acme", "text")
    other.execute("COMMIT")
    other.close()
    assert await ledger.contents.put("acme", "text")
    await ledger.aclose()


async def test_a_lock_that_another_process_gives_back_is_waited_for(sqlite_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(sqlite_url)
    other = sqlite3.connect(tmp_path / "var" / "holdfast.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.create_task(ledger.contents.put("acme", f"text {n}")) for n in range(3)]
    await asyncio.sleep(0)  # the loop is free while they wait
    assert not any(task.done() for task in waiting)
    other.execute("COMMIT")
    other.close()
    assert len(await asyncio.gather(*waiting)) == 3
    await ledger.aclose()


async def test_reading_goes_on_while_another_connection_writes(sqlite_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(sqlite_url)
    reference = await ledger.contents.put("acme", "text")
    other = sqlite3.connect(tmp_path / "var" / "holdfast.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM contents")
    assert await Contents(ledger.database).get("acme", reference) == "text"
    other.execute("ROLLBACK")
    other.close()
    await ledger.aclose()


async def test_a_read_connection_cannot_write(sqlite_ledger: Ledger) -> None:
    with pytest.raises(Unavailable, match="readonly") as raised:
        await sqlite_ledger.database.read(lambda connection: connection.execute(contents.delete()).close())
    assert isinstance(raised.value.__cause__, OperationalError)


async def test_a_transaction_that_raises_leaves_nothing(ledger: Ledger) -> None:
    def fails(connection: Connection) -> None:
        ledger.contents.add(connection, "acme", [digest_of("never")])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ledger.database.write(fails)
    with pytest.raises(ContentMissing):
        await ledger.contents.get("acme", digest_of("never").reference)


async def test_a_cancelled_write_is_whole_or_absent_and_blocks_nobody(ledger: Ledger) -> None:
    for turns in range(30):
        body = f"body {turns}"
        task = asyncio.create_task(
            ledger.submissions.claim("acme", f"key {turns}", body_sha256="a" * 64, request_id=body, texts=[body])
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = await ledger.submissions.claim("acme", f"key {turns}", body_sha256="a" * 64, request_id="new", texts=[])
        texts = await ledger.database.read(lambda reading: reading.execute(select(contents.c.text)).scalars().all())
        assert (again.request_id == body) == (body.encode() in texts)


def test_every_table_can_be_written_in_postgresql() -> None:
    dialect = make_url("postgresql://").get_dialect()()
    for table in metadata.sorted_tables:
        assert f"CREATE TABLE {table.name} " in str(CreateTable(table).compile(dialect=dialect))


async def test_closing_the_last_connection_folds_the_log_into_the_file(sqlite_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(sqlite_url)
    await ledger.contents.put("acme", "text")
    assert (tmp_path / "var" / "holdfast.db-wal").exists()
    await ledger.aclose()
    assert not (tmp_path / "var" / "holdfast.db-wal").exists()
