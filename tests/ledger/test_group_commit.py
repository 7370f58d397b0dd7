"""What is written at the same time is committed together, durable on return, and one failure is nobody else's."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text, update

from holdfast.contracts import FinishReason, Limits, Usage
from holdfast.errors import IdempotencyConflict, Outcome, Unavailable
from holdfast.ledger import AttemptKey, Contents, Ledger, Opened
from holdfast.ledger.committer import LARGEST_BATCH
from holdfast.ledger.schema import vault

HOLD = Usage(input_tokens=100)


async def opened(ledger: Ledger, number: int) -> Opened:
    result = await ledger.attempts.open(
        AttemptKey("acme", f"req_{number}", 1), deployment="d", model="m", hold=HOLD, limits=Limits()
    )
    assert isinstance(result, Opened)
    return result


async def settled(ledger: Ledger, number: int) -> None:
    await ledger.attempts.settle(
        f"req_{number}.1", Outcome.OK, usage=HOLD, output=f"{number}", finish_reason=FinishReason.STOP, model="m"
    )


async def test_calls_opened_and_settled_at_the_same_time_share_transactions(ledger: Ledger) -> None:
    before = ledger.database.transactions
    await asyncio.gather(*(opened(ledger, number) for number in range(60)))
    assert ledger.database.transactions - before <= 3
    before = ledger.database.transactions
    await asyncio.gather(*(settled(ledger, number) for number in range(60)))
    assert ledger.database.transactions - before <= 3


async def test_a_batch_is_bounded(ledger: Ledger) -> None:
    before = ledger.database.transactions
    await asyncio.gather(*(opened(ledger, number) for number in range(3 * LARGEST_BATCH)))
    assert 3 <= ledger.database.transactions - before <= 5


async def test_one_writer_alone_is_served_at_once(ledger: Ledger) -> None:
    for number in range(5):
        before = ledger.database.transactions
        await opened(ledger, number)
        assert ledger.database.transactions == before + 1


async def test_whoever_returns_finds_it_durable_in_another_process(url: str) -> None:
    first, second = await Ledger.open(url), await Ledger.open(url)

    async def settles(number: int) -> bool:
        await opened(first, number)
        await settled(first, number)
        (attempt,) = await second.attempts.list(f"req_{number}")
        return attempt.output is not None and await second.contents.get("acme", attempt.output) == f"{number}"

    assert all(await asyncio.gather(*(settles(number) for number in range(40))))
    await first.aclose()
    await second.aclose()


async def test_a_unit_that_fails_is_undone_and_the_others_of_its_batch_are_not(ledger: Ledger) -> None:
    def insert_then_fail(connection: Connection) -> None:
        connection.execute(text("INSERT INTO vault VALUES ('acme', 'undone', '{}')"))
        raise ZeroDivisionError

    def violates(connection: Connection) -> None:
        connection.execute(text("INSERT INTO vault VALUES ('acme', 'twice', '{}')"))
        connection.execute(text("INSERT INTO vault VALUES ('acme', 'twice', '{}')"))

    before = ledger.database.transactions
    results = await asyncio.gather(
        ledger.vault.save("acme", "first", {}),
        ledger.vault.save("acme", "second", {}),
        ledger.database.write(insert_then_fail),
        ledger.database.write(violates),
        ledger.vault.save("acme", "third", {}),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == [
        "NoneType",
        "NoneType",
        "ZeroDivisionError",
        "IntegrityError",
        "NoneType",
    ]
    assert ledger.database.transactions - before <= 2
    rows = await ledger.database.read(
        lambda reading: reading.execute(text("SELECT request_id FROM vault ORDER BY request_id")).scalars().all()
    )
    assert rows == ["first", "second", "third"]


async def test_a_conflict_in_a_batch_reaches_its_caller_only(ledger: Ledger) -> None:
    await ledger.submissions.claim("acme", "k", body_sha256="a" * 64, request_id="req_1")
    results = await asyncio.gather(
        *(
            ledger.submissions.claim("acme", "k", body_sha256=digest * 64, request_id="req_2", texts=[f"text {n}"])
            for n, digest in enumerate("abab")
        ),
        ledger.submissions.claim("acme", "new", body_sha256="a" * 64, request_id="req_3", texts=["text of req_3"]),
        return_exceptions=True,
    )
    assert [isinstance(result, IdempotencyConflict) for result in results] == [False, True, False, True, False]
    stored = await Contents(ledger.database).put("acme", "text of req_3")
    assert await Contents(ledger.database).get("acme", stored) == "text of req_3"


async def test_a_cancelled_caller_takes_nobody_along(ledger: Ledger) -> None:
    tasks = [asyncio.create_task(opened(ledger, number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Opened) for result in results[1::2])
    for number in range(20):
        assert len(await ledger.attempts.list(f"req_{number}")) in ((1,) if number % 2 else (0, 1))


async def test_a_full_disk_is_reported_to_all_and_stores_nothing_of_the_batch(sqlite_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(sqlite_url)
    await ledger.database.write(lambda connection: connection.execute(text("PRAGMA max_page_count=1")).close())
    results = await asyncio.gather(
        *(ledger.contents.put("acme", f"{number}" * 500_000) for number in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [Unavailable] * 3
    assert all("full" in str(result) or "undone" in str(result) for result in results)
    await ledger.database.write(lambda connection: connection.execute(text("PRAGMA max_page_count=100000")).close())
    assert await ledger.contents.put("acme", "small")
    await ledger.aclose()


@pytest.mark.parametrize("company", [0, 3])
async def test_processes_that_wait_for_each_other_in_a_circle_both_get_through(postgresql: str, company: int) -> None:
    first, second = await Ledger.open(postgresql), await Ledger.open(postgresql)
    for request in ("one", "two"):
        await first.vault.save("acme", request, {})

    def touches(*requests: str) -> Callable[[Connection], None]:
        def unit(connection: Connection) -> None:
            for request in requests:
                connection.execute(update(vault).where(vault.c.request_id == request).values(mapping={"touched": ""}))
                connection.execute(text("SELECT pg_sleep(0.2)"))

        return unit

    await asyncio.gather(
        first.database.write(touches("one", "two")),
        second.database.write(touches("two", "one")),
        # In the same batches, if there are any.
        *(
            side.vault.save("acme", f"beside {side is first} {n}", {})
            for n in range(company)
            for side in (first, second)
        ),
    )
    for request in ("one", "two"):
        assert await first.vault.load("acme", request) == {"touched": ""}
    count = text("SELECT count(*) FROM vault WHERE request_id LIKE 'beside%'")
    assert await first.database.read(lambda reading: reading.execute(count).scalar_one()) == 2 * company
    await first.aclose()
    await second.aclose()


async def test_closing_waits_for_what_was_submitted(url: str) -> None:
    ledger = await Ledger.open(url)
    tasks = [asyncio.create_task(opened(ledger, number)) for number in range(10)]
    await asyncio.sleep(0)
    await ledger.aclose()
    assert all(isinstance(result, Opened) for result in await asyncio.gather(*tasks))
