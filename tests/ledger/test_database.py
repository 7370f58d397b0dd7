"""One database file, several processes."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from holdfast.errors import ConfigurationError, ContentMissing, Unavailable
from holdfast.ledger import Database, Ledger
from holdfast.ledger.contents import digest_of
from holdfast.ledger.schema import SCHEMA_VERSION, contents, metadata


async def test_the_directory_of_the_ledger_is_created(url: str, tmp_path: Path) -> None:
    database = await Database.open(url)
    await database.aclose()
    assert (tmp_path / "var" / "holdfast.db").is_file()


async def test_the_file_runs_in_write_ahead_logging_and_does_not_sync_each_commit(ledger: Ledger) -> None:
    async with ledger.database.write() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar_one() == 1
        assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar_one() == 10_000


async def test_opening_again_finds_what_was_stored(url: str) -> None:
    first = await Ledger.open(url)
    reference = await first.contents.put("acme", "kept")
    await first.aclose()
    second = await Ledger.open(url)
    assert await second.contents.get("acme", reference) == "kept"
    await second.aclose()


async def test_a_ledger_of_a_newer_version_is_not_opened(url: str, tmp_path: Path) -> None:
    await (await Database.open(url)).aclose()
    file = sqlite3.connect(tmp_path / "var" / "holdfast.db")
    file.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION + 1,))
    file.commit()
    file.close()
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
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.ledger.sqlite.BUSY_TIMEOUT_SECONDS", 0)
    ledger = await Ledger.open(url)
    other = sqlite3.connect(tmp_path / "var" / "holdfast.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await ledger.contents.put("acme", "text")
    other.execute("COMMIT")
    other.close()
    assert await ledger.contents.put("acme", "text")
    await ledger.aclose()


async def test_reading_goes_on_while_another_connection_writes(ledger: Ledger, tmp_path: Path) -> None:
    reference = await ledger.contents.put("acme", "text")
    async with ledger.database.write() as connection:
        await connection.execute(contents.delete())
        async with ledger.database.read() as reading:
            assert (await reading.execute(select(contents.c.sha256))).scalars().all() == [reference.sha256]


async def test_a_read_connection_cannot_write(ledger: Ledger) -> None:
    with pytest.raises(Unavailable, match="readonly") as raised:
        async with ledger.database.read() as connection:
            await connection.execute(contents.delete())
    assert isinstance(raised.value.__cause__, OperationalError)


async def test_a_transaction_that_raises_leaves_nothing(ledger: Ledger) -> None:
    async def fails() -> None:
        async with ledger.database.write() as connection:
            await ledger.contents.put("acme", "never", connection=connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    with pytest.raises(ContentMissing):
        await ledger.contents.get("acme", digest_of("never").reference)


async def test_a_write_inside_a_write_is_refused_instead_of_waiting_for_itself(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="connection"):
        async with ledger.database.write():
            await ledger.contents.put("acme", "text")
    assert await ledger.contents.put("acme", "text")


async def test_a_cancelled_write_is_whole_or_absent_and_blocks_nobody(ledger: Ledger) -> None:
    for turns in range(60):
        body = f"body {turns}"
        task = asyncio.create_task(
            ledger.submissions.claim("acme", f"key {turns}", body_sha256="a" * 64, request_id=body, texts=[body])
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = await ledger.submissions.claim("acme", f"key {turns}", body_sha256="a" * 64, request_id="new", texts=[])
        async with ledger.database.read() as connection:
            texts = (await connection.execute(select(contents.c.text))).scalars().all()
        assert (again.request_id == body) == (body.encode() in texts)


def test_every_table_can_be_written_in_postgresql() -> None:
    dialect = make_url("postgresql://").get_dialect()()
    for table in metadata.sorted_tables:
        assert f"CREATE TABLE {table.name} " in str(CreateTable(table).compile(dialect=dialect))


async def test_closing_the_last_connection_folds_the_log_into_the_file(url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(url)
    await ledger.contents.put("acme", "text")
    assert (tmp_path / "var" / "holdfast.db-wal").exists()
    await ledger.aclose()
    assert not (tmp_path / "var" / "holdfast.db-wal").exists()
