"""`budget` and `usage` on a ledger of their own."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli.main import execute
from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened

JUST_SET = "Budget of user ada: 1000 tokens and 12.5 USD per month; at the limit: queue."


@pytest.fixture(autouse=True)
def ledger_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger that the verbs find through their settings."""
    url = f"sqlite+aiosqlite:///{tmp_path}/books.db"
    monkeypatch.setenv("HOLDFAST_LEDGER__URL", url)
    return url


def spend(url: str, *, request: str = "req_1", outcome: Outcome = Outcome.OK, user: str = "ada") -> None:
    """One call of 400 tokens and 0.40 USD at worst, 150 and 0.15 in fact."""

    async def call() -> None:
        ledger = await Ledger.open(url)
        opened = await ledger.attempts.open(
            AttemptKey("acme", request, 1),
            deployment="large",
            model="gpt",
            hold=Usage(input_tokens=100, output_tokens=300, cost_usd=Decimal("0.40")),
            limits=Limits(),
            scopes=SpendScopes(tenant="acme", user=user),
            agent="docs",
        )
        assert isinstance(opened, Opened)
        good: dict[str, Any] = {}
        if outcome is Outcome.OK:
            actual = Usage(input_tokens=80, cache_read_tokens=10, output_tokens=60, cost_usd=Decimal("0.15"))
            good = {"usage": actual, "output": "a", "finish_reason": FinishReason.STOP, "model": "gpt"}
        await ledger.attempts.settle(opened.attempt_id, outcome, **good)
        await ledger.aclose()

    asyncio.run(call())


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert execute(list(words)) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(capsys, *words, "--json"))


def test_a_budget_is_set_shown_changed_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--tenant", "acme", "--user", "ada", "--period", "month")
    output = said(capsys, "budget", "set", *place, "--tokens", "1000", "--usd", "12.50", "--at-limit", "queue")
    assert JUST_SET in output
    assert "Next: holdfast budget show --tenant acme" in output
    document(capsys, "budget", "set", *place, "--tokens", "2000")
    (row,) = document(capsys, "budget", "show", "--tenant", "acme")["budgets"]
    assert (row["scope"], row["tokens"], row["tokens_left"], row["usd"]) == ("user ada", 2000, 2000, "12.5")
    assert row["at_limit"] == "queue"
    assert document(capsys, "budget", "show", "--tenant", "globex")["budgets"] == []
    said(capsys, "budget", "remove", *place)
    assert execute(["budget", "remove", *place]) == 1
    assert "There is no budget of user ada" in capsys.readouterr().err


def test_what_was_spent_is_taken_from_what_is_left(ledger_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "budget", "set", "--tenant", "acme", "--period", "total", "--tokens", "500", "--usd", "1")
    spend(ledger_url)
    (row,) = document(capsys, "budget", "show")["budgets"]
    assert (row["tokens_spent"], row["tokens_left"], row["usd_spent"], row["usd_left"]) == (150, 350, "0.15", "0.85")
    table = said(capsys, "budget", "show")
    assert "tenant acme" in table
    assert "350" in table
    with pytest.raises(BudgetExceeded):
        spend(ledger_url, request="req_2")


def test_credit_is_granted_once_for_a_payment(ledger_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        granted = document(capsys, "budget", "grant", "--tenant", "acme", "--usd", "0.50", "--id", "invoice-1")
    assert (granted["id"], granted["usd_left"]) == ("invoice-1", "0.5")
    assert execute(["budget", "grant", "--tenant", "acme", "--usd", "1", "--id", "invoice-1"]) == 1
    assert "granted before with 0.5 USD" in capsys.readouterr().err
    spend(ledger_url)
    assert document(capsys, "budget", "grant", "--tenant", "acme", "--usd", "1")["usd_left"] == "1.35"


def test_usage_tells_classes_of_tokens_cost_and_worst_case_apart(
    ledger_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(ledger_url)
    spend(ledger_url, request="req_2", outcome=Outcome.UNKNOWN, user="grace")
    rows = document(capsys, "usage", "--by", "user")["usage"]
    assert rows[0] == {
        "user": "ada",
        "calls": 1,
        "input_tokens": 80,
        "cache_read_tokens": 10,
        "cache_write_tokens": 0,
        "output_tokens": 60,
        "cost_usd": "0.15",
        "unpriced_calls": 0,
        "worst_case_calls": 0,
        "worst_case_tokens": 0,
        "worst_case_cost_usd": "0",
    }
    assert (rows[1]["user"], rows[1]["worst_case_tokens"], rows[1]["worst_case_cost_usd"]) == ("grace", 400, "0.40")
    assert "grace" in said(capsys, "usage", "--by", "user")


def test_usage_is_cut_by_day_and_printed_as_csv(ledger_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC).date().isoformat()
    spend(ledger_url)
    printed = said(capsys, "usage", "--by", "day", "--since", before, "--until", "today", "--csv")
    after = datetime.now(UTC).date().isoformat()
    (row,) = csv.DictReader(io.StringIO(printed))
    assert row["day"] in (before, after), "another day only if it has just begun"
    assert (row["calls"], row["cost_usd"]) == ("1", "0.15")
    assert document(capsys, "usage", "--until", "2020-01-01")["usage"] == []
    assert "Nothing was spent." in said(capsys, "usage", "--until", "2020-01-01")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["budget", "set", "--tenant", "acme", "--period", "month"], "--tokens"),
        (["budget", "set", "--tenant", "acme", "--period", "week", "--tokens", "1"], "week"),
        (["budget", "set", "--tenant", "acme", "--period", "day", "--usd", "ten"], "12.50"),
        (
            ["budget", "set", "--tenant", "a", "--period", "day", "--tokens", "1", "--user", "u", "--session", "s"],
            "both",
        ),
        (["budget", "grant", "--tenant", "acme", "--usd", "-1"], "dollars"),
        (["usage", "--since", "yesterday"], "2026-11-21"),
        (["usage", "--csv", "--json"], "CSV or JSON"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_how(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words) == 2
    captured = capsys.readouterr()
    assert named in captured.err + captured.out
