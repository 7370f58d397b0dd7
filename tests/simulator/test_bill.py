"""The bill: what it adds up, how it survives, how it stays bounded."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bill import Bill, BillFileError
from simulator.prices import Prompt
from simulator.server import Simulator
from tests.simulator.conftest import Ask

TOKENS = ("prompt_tokens", "completion_tokens", "input_tokens", "cache_read_tokens", "cache_write_tokens")
NOTHING = {"requests": 0, **dict.fromkeys(TOKENS, 0), "output_tokens": 0, "models": {}, "entries": []}


def restored(path: Path) -> dict[str, Any]:
    """The bill that a new server finds in a file."""
    bill = Bill(path)
    bill.close()
    return bill.as_json()


async def test_the_bill_is_served_with_and_without_entries(ask: Ask, client: httpx.AsyncClient) -> None:
    await ask({"completion_tokens": 10})
    await ask({"completion_tokens": 20})
    bill = (await client.get("/_simulator/bill")).json()
    assert (bill["requests"], bill["completion_tokens"]) == (2, 30)
    assert bill["prompt_tokens"] == sum(entry["prompt_tokens"] for entry in bill["entries"])
    totals = (await client.get("/_simulator/bill", params={"entries": "false"})).json()
    assert totals == {name: value for name, value in bill.items() if name != "entries"}


async def test_entries_carry_the_clients_request_id(client: httpx.AsyncClient, simulator: Simulator) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    await client.post("/v1/chat/completions", json=body, headers={"X-Client-Request-Id": "attempt-1"})
    assert simulator.bill()["entries"][0]["client_request_id"] == "attempt-1"


async def test_a_reset_empties_bill_and_script(ask: Ask, client: httpx.AsyncClient, simulator: Simulator) -> None:
    await ask()
    simulator.script({"kind": "error_500"})
    assert (await client.post("/_simulator/reset")).status_code == 200
    assert simulator.bill() == NOTHING
    assert (await ask()).status_code == 200


async def test_tools_and_schema_are_part_of_the_prompt(ask: Ask) -> None:
    plain = (await ask()).json()["usage"]["prompt_tokens"]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    tools = [{"type": "function", "function": {"name": "lookup"}}]
    assert (await ask(response_format=schema)).json()["usage"]["prompt_tokens"] > plain
    assert (await ask(tools=tools)).json()["usage"]["prompt_tokens"] > plain


def test_a_reset_forgets_calls_that_are_still_running(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    bill = Bill(path)
    running = bill.accept("a", "m", None, Prompt(5))
    bill.reset()
    bill.produce(running, 3)
    bill.complete(running)
    bill.close()
    assert bill.as_json()["completion_tokens"] == 0
    assert restored(path) == bill.as_json()


def test_totals_go_on_when_old_entries_are_dropped() -> None:
    bill = Bill(most_entries=2)
    for number in range(5):
        bill.produce(bill.accept(str(number), "m", None, Prompt(10)), 1)
    totals = bill.as_json(entries=False)
    assert (totals["requests"], totals["prompt_tokens"], totals["completion_tokens"]) == (5, 50, 5)
    assert [entry.id for entry in bill.entries] == ["3", "4"]


@given(st.lists(st.tuples(st.sampled_from(["accept", "produce", "complete", "reset"]), st.integers(0, 9)), max_size=30))
def test_a_bill_file_restores_the_bill_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("bill") / "bill.jsonl"
    bill = Bill(path)
    accepted = []
    for position, (action, number) in enumerate(history):
        match action:
            case "accept":
                accepted.append(bill.accept(str(position), "m", None, Prompt(number, 1, 2), batch=number > 5))
            case "produce" if accepted and not accepted[number % len(accepted)].completed:
                bill.produce(accepted[number % len(accepted)], number)
            case "complete" if accepted and not accepted[number % len(accepted)].completed:
                bill.complete(accepted[number % len(accepted)])
            case "reset":
                bill.reset()
    bill.close()
    assert restored(path) == bill.as_json()


def test_a_half_written_last_line_is_cut_off_and_the_bill_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    bill = Bill(path)
    bill.accept("a", "m", "c", Prompt(5))
    bill.close()
    with path.open("a") as file:
        file.write('{"event":"prod')
    bill = Bill(path)
    bill.accept("b", "m", None, Prompt(7))
    bill.close()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert restored(path)["prompt_tokens"] == 12


def test_a_file_that_is_no_bill_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    path.write_text('{"event":"reset"}\n{"event":"other"}\n')
    with pytest.raises(BillFileError, match=r"bill\.jsonl', line 2"):
        Bill(path)


def test_a_bill_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(BillFileError, match="cannot be opened"):
        Bill(tmp_path / "no" / "bill.jsonl")
