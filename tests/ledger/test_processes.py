"""Several processes on one file, and one of them killed."""

import asyncio
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from sqlalchemy import make_url

from holdfast.ledger import Claim, GroupBy, Ledger
from holdfast.ledger.contents import digest_of
from holdfast.spending import Period, ScopeKind

COMPETITOR = Path(__file__).parent / "competitor.py"


async def competitor(task: str, url: str, first_turn: int = 1) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(COMPETITOR), task, url, str(first_turn), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_two_processes_that_create_the_ledger_and_race_for_one_request_do_not_overspend(url: str) -> None:
    processes = [await competitor("open", url, first_turn) for first_turn in (1, 101)]
    finished = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    errors = [error.decode() for _, error in finished]
    assert errors == ["", ""]
    ordinals = sorted(ordinal for output, _ in finished for ordinal in json.loads(output))
    assert ordinals == list(range(1, 21))  # 2,000 tokens at 100 each
    ledger = await Ledger.open(url)
    totals = await ledger.attempts.totals("req_1")
    await ledger.aclose()
    assert (totals.attempts, totals.usage.total_tokens) == (20, 2_000)


async def budgets_add_up(url: str) -> dict[str, int]:
    """The tokens that each budget has counted, which must be what the calls on record count."""
    ledger = await Ledger.open(url)
    (line,) = await ledger.usage(GroupBy.TENANT)
    spent = {standing.scope: standing.spent.tokens for standing in await ledger.budgets.list("acme")}
    await ledger.aclose()
    assert set(spent.values()) == {line.usage.total_tokens}
    return spent


async def with_budgets(url: str, tokens: int) -> None:
    ledger = await Ledger.open(url)
    await ledger.budgets.set("acme", ScopeKind.TENANT, "acme", Period.TOTAL, tokens=tokens)
    await ledger.budgets.set("acme", ScopeKind.USER, "ada", Period.TOTAL, tokens=2 * tokens)
    await ledger.budgets.set("acme", ScopeKind.SESSION, "chat-7", Period.MONTH, tokens=3 * tokens)
    await ledger.aclose()


async def compete(url: str, task: str) -> list[int]:
    """A thousand calls at once by four processes.

    Returns:
        What each that was let in counts, in tokens.
    """
    processes = [await competitor(task, url, 250 * number) for number in range(4)]
    finished = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [error.decode() for _, error in finished] == [""] * 4
    return [tokens for output, _ in finished for tokens in json.loads(output)]


async def test_a_thousand_reservations_of_four_processes_at_once_fill_a_budget_to_the_last_call_and_no_further(
    url: str,
) -> None:
    await with_budgets(url, 5_099)
    assert await compete(url, "reserve") == [100] * 50
    assert (await budgets_add_up(url))["tenant acme"] == 5_000


async def test_a_thousand_calls_of_four_processes_that_also_settle_stay_below_and_add_up(url: str) -> None:
    await with_budgets(url, 5_099)
    counted = await compete(url, "spend")
    assert len(counted) >= 50
    assert sum(counted) == (await budgets_add_up(url))["tenant acme"] <= 5_099


@pytest.mark.chaos
async def test_budgets_and_calls_agree_after_a_process_was_killed_in_the_middle(url: str) -> None:
    await with_budgets(url, 10_000_000)
    for round_number in range(3):
        processes = [await competitor("churn", url, 1_000_000 * (2 * round_number + n)) for n in range(2)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        for process in processes:
            assert process.stdout is not None
            for _ in range(3 + round_number):
                assert await process.stdout.readline() == b"wave\n"
        for process in processes:
            process.kill()
        for process in processes:
            _, error = await process.communicate()
            assert error == b""
        await budgets_add_up(url)


@pytest.mark.chaos
async def test_what_a_killed_process_committed_is_there_and_the_file_is_sound(url: str) -> None:
    process = await competitor("write", url)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    committed = [(await process.stdout.readline()).decode().strip() for _ in range(150)]
    process.kill()
    rest, error = await process.communicate()
    assert error == b""
    committed += rest.decode().split("\n")[:-1]
    assert len(committed) >= 150

    ledger = await Ledger.open(url)
    for number, request_id in enumerate(committed, start=1):
        claim = await ledger.submissions.claim("acme", f"key {number}", body_sha256="a" * 64, request_id="req_new")
        assert claim == Claim(request_id, created=False)
        text = f"question {number} " * 50
        assert await ledger.contents.get("acme", digest_of(text).reference) == text
    await ledger.aclose()
    if make_url(url).get_backend_name() == "sqlite":
        file = sqlite3.connect(make_url(url).database or "")
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        file.close()
