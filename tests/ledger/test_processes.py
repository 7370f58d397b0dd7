"""Several processes on one file, and one of them killed."""

import asyncio
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from holdfast.ledger import Claim, Ledger
from holdfast.ledger.contents import digest_of

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


@pytest.mark.chaos
async def test_what_a_killed_process_committed_is_there_and_the_file_is_sound(url: str, tmp_path: Path) -> None:
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
    file = sqlite3.connect(tmp_path / "var" / "holdfast.db")
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()
