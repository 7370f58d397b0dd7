"""Calls of tools on record: each is made once, whoever asks and however often, and what came of it is kept."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from holdfast.contracts import ToolReturned
from holdfast.errors import ContentMissing, OutcomeUnknown, ToolProblem
from holdfast.ledger import Begun, CallState, Ledger, ToolCallKey

CLAIMANT = Path(__file__).parent / "claimant.py"
KEY = ToolCallKey("acme", "req_12345678", "3.0")


async def begin(
    ledger: Ledger, key: ToolCallKey = KEY, *, arguments: str = "a" * 64, tool: str = "refund", idempotent: bool = False
) -> Begun | ToolReturned:
    return await ledger.tool_calls.begin(
        key,
        tool=tool,
        agent="desk",
        idempotency_key="k" * 32,
        arguments_sha256=arguments,
        idempotent=idempotent,
    )


def returned(key: ToolCallKey = KEY, *, ok: bool = True) -> ToolReturned:
    return ToolReturned(key=key.key, id="call_1", name="refund", ok=ok, summary="7 tokens", tokens=7, tainting="tools")


async def test_a_call_is_made_once_and_its_result_is_given_again(ledger: Ledger) -> None:
    assert await begin(ledger) == Begun(runs=1)
    kept = await ledger.tool_calls.end(KEY, returned(), "Refunded.")
    assert kept.result is not None
    assert await ledger.contents.get("acme", kept.result) == "Refunded."
    again = await begin(ledger)
    assert again == kept.model_copy(update={"repeated": True})
    assert await begin(ledger, idempotent=True) == again
    (recorded,) = await ledger.tool_calls.list("acme", KEY.request_id)
    assert (recorded.state, recorded.runs, recorded.result) == (CallState.DONE, 1, kept)
    assert (recorded.tool, recorded.agent, recorded.idempotency_key) == ("refund", "desk", "k" * 32)
    assert recorded.ended_at is not None
    assert recorded.ended_at >= recorded.begun_at


async def test_a_failure_is_a_result_too(ledger: Ledger) -> None:
    await begin(ledger)
    await ledger.tool_calls.end(KEY, returned(ok=False))
    again = await begin(ledger)
    assert isinstance(again, ToolReturned)
    assert (again.ok, again.repeated, again.result) == (False, True, None)
    (recorded,) = await ledger.tool_calls.list("acme", KEY.request_id)
    assert recorded.state is CallState.FAILED


async def test_a_call_that_a_dead_worker_began_is_not_made_again(ledger: Ledger) -> None:
    await begin(ledger)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="may or may not"):
            await begin(ledger)
    (recorded,) = await ledger.tool_calls.list("acme", KEY.request_id)
    assert (recorded.state, recorded.runs, recorded.result) == (CallState.BEGUN, 1, None)


async def test_an_idempotent_call_that_a_dead_worker_began_is_made_again(ledger: Ledger) -> None:
    assert await begin(ledger, idempotent=True) == Begun(runs=1)
    assert await begin(ledger, idempotent=True) == Begun(runs=2)
    await ledger.tool_calls.end(KEY, returned(), "Refunded.")
    (recorded,) = await ledger.tool_calls.list("acme", KEY.request_id)
    assert (recorded.state, recorded.runs) == (CallState.DONE, 2)


async def test_what_is_recorded_first_stays(ledger: Ledger) -> None:
    await begin(ledger, idempotent=True)
    await begin(ledger, idempotent=True)
    first = await ledger.tool_calls.end(KEY, returned(), "First.")
    second = await ledger.tool_calls.end(KEY, returned(ok=False), "Second, and late.")
    assert second == first.model_copy(update={"repeated": True})
    assert first.result is not None
    assert await ledger.contents.get("acme", first.result) == "First."


async def test_a_record_is_not_taken_for_a_call_with_other_arguments(ledger: Ledger) -> None:
    await begin(ledger)
    await ledger.tool_calls.end(KEY, returned(), "Refunded.")
    with pytest.raises(ToolProblem, match="other arguments"):
        await begin(ledger, arguments="b" * 64)
    with pytest.raises(ToolProblem, match="other arguments"):
        await begin(ledger, tool="wire", idempotent=True)


async def test_calls_of_another_place_request_or_tenant_are_others(ledger: Ledger) -> None:
    await begin(ledger)
    await ledger.tool_calls.end(KEY, returned(), "Refunded.")
    for other in (
        ToolCallKey("acme", "req_12345678", "3.1"),
        ToolCallKey("acme", "req_87654321", "3.0"),
        ToolCallKey("other", "req_12345678", "3.0"),
    ):
        assert await begin(ledger, other) == Begun(runs=1)
    assert [call.key.key for call in await ledger.tool_calls.list("acme", "req_12345678")] == ["3.0", "3.1"]
    (kept, _) = await ledger.tool_calls.list("acme", "req_12345678")
    assert kept.result is not None
    assert kept.result.result is not None
    with pytest.raises(ContentMissing):
        await ledger.contents.get("other", kept.result.result)


async def test_of_many_that_ask_at_once_one_may_make_the_call(ledger: Ledger) -> None:
    asked = await asyncio.gather(*(begin(ledger) for _ in range(20)), return_exceptions=True)
    assert [one for one in asked if not isinstance(one, OutcomeUnknown)] == [Begun(runs=1)]


async def claimant(url: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLAIMANT), url, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_of_two_processes_that_race_for_calls_each_call_is_made_by_one(url: str) -> None:
    processes = [await claimant(url) for _ in range(2)]
    finished = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [error.decode() for _, error in finished] == ["", ""]
    made = [line for output, _ in finished for line in output.decode().split()]
    assert sorted(made) == sorted(f"1.{position}" for position in range(50)), "each once, and none twice"
    ledger = await Ledger.open(url)
    recorded = await ledger.tool_calls.list("acme", "req_12345678")
    await ledger.aclose()
    assert {call.state for call in recorded} == {CallState.DONE}
    assert {call.runs for call in recorded} == {1}
