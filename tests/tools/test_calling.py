"""A call is made once, within its time, and whatever comes of it is something that the model can be told."""

import asyncio
import hashlib
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest

from holdfast.contracts import PlannedCall, ToolReturned
from holdfast.errors import OutcomeUnknown, ToolProblem, Unavailable
from holdfast.guards import Sanitizer
from holdfast.ledger import CallState, ToolCalls
from holdfast.tools import Toolset, calling
from holdfast.tools.equipment import Equipment
from tests.tools.desk import REQUEST, TENANT, Desk, Said
from tests.tools.shop import SECRET, directory, effects


async def state(desk: Desk) -> CallState:
    (call,) = await desk.ledger.tool_calls.list(TENANT, REQUEST)
    return call.state


async def one(desk: Desk, name: str, arguments: str) -> PlannedCall:
    await desk.equip(name)
    (call,) = (await desk.vet((name, arguments))).calls
    assert call.problem == ""
    return call


async def test_a_call_returns_its_result_and_a_line_without_its_text(desk: Desk) -> None:
    await desk.equip("refund")
    returned = await desk.use("refund", order="7", amount=9.5)
    assert (returned.ok, returned.key, returned.id, returned.name) == (True, "1.0", "call_0", "refund")
    assert await desk.text(returned.result) == "Refunded 9.5 for order 7."
    assert returned.summary == f"{returned.tokens} tokens"
    assert (returned.tainting, returned.repeated, returned.problem) == ("tools", False, "")
    assert await state(desk) is CallState.DONE


async def test_the_tool_is_handed_who_asked_and_a_key_of_request_and_call(desk: Desk) -> None:
    await desk.equip("refund")
    await desk.use("refund", turn=3, order="7", amount=1)
    key = hashlib.sha256(f"{REQUEST}\x003.0".encode()).hexdigest()[:32]
    assert effects() == [{"effect": "refund", "order": "7", "amount": "1", "key": key, "user": "ada"}]


async def test_a_call_on_record_is_not_made_again(desk: Desk) -> None:
    call = await one(desk, "refund", '{"order": "7", "amount": 9.5}')
    first = await desk.call(call)
    again = await desk.call(call, attempt=2)
    assert again == first.model_copy(update={"repeated": True})
    assert len(effects()) == 1


async def begun_by_a_dead_worker(desk: Desk, call: PlannedCall) -> None:
    """Begin a call and stop in the middle of it, as a process does that is killed."""
    working = asyncio.create_task(desk.call(call))
    while not (directory() / f"knock.{call.key}").exists():
        assert not working.done(), "the tool never knocked"
        await asyncio.sleep(0.01)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_a_call_that_a_dead_worker_began_is_not_repeated_and_the_model_is_told(desk: Desk, shop: Path) -> None:
    call = await one(desk, "wire", '{"order": "7"}')
    await begun_by_a_dead_worker(desk, call)
    (shop / "open").touch()
    returned = await desk.call(call, attempt=2)
    assert (returned.ok, returned.result) == (False, None)
    assert "may or may not have taken effect" in returned.problem
    assert returned.summary == "outcome unknown, not repeated"
    assert len(effects()) == 1
    assert await state(desk) is CallState.BEGUN


async def test_an_idempotent_call_that_a_dead_worker_began_is_repeated_with_the_same_key(
    desk: Desk, shop: Path
) -> None:
    call = await one(desk, "reprint", '{"order": "7"}')
    await begun_by_a_dead_worker(desk, call)
    (shop / "open").touch()
    returned = await desk.call(call, attempt=2)
    assert (returned.ok, await desk.text(returned.result)) == (True, "Printed.")
    assert len(effects()) == 2
    assert len({effect["key"] for effect in effects()}) == 1


async def test_an_error_of_the_tool_is_told_by_its_kind_and_its_words_reach_nobody(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.equip("explode")
    with caplog.at_level(logging.DEBUG):
        returned = await desk.use("explode", order="7")
    assert (returned.ok, returned.result) == (False, None)
    assert "RuntimeError" in returned.problem
    assert "may have taken effect" in returned.problem
    assert SECRET not in returned.model_dump_json() + caplog.text
    assert returned.summary.rpartition(" ")[2] in caplog.text, "the reference leads to the place in the log"
    assert len(effects()) == 1
    assert await state(desk) is CallState.FAILED


async def test_a_tool_that_wants_to_end_the_process_has_failed_like_any_other(desk: Desk) -> None:
    await desk.equip("leave")
    returned = await desk.use("leave")
    assert (returned.ok, returned.problem) == (
        False,
        "The tool failed (SystemExit). It may have taken effect, wholly or in part.",
    )
    assert await state(desk) is CallState.FAILED


async def test_a_tool_that_is_not_idempotent_is_not_tried_again_after_an_error(desk: Desk) -> None:
    call = await one(desk, "explode", '{"order": "7"}')
    await desk.call(call)
    assert (await desk.call(call, attempt=2)).repeated
    assert len(effects()) == 1


async def test_an_idempotent_tool_is_tried_again_a_bounded_number_of_times(desk: Desk) -> None:
    call = await one(desk, "flaky", '{"order": "7", "times": 99}')
    for attempt in (1, 2):
        with pytest.raises(Unavailable, match="'flaky' failed") as caught:
            await desk.call(call, attempt=attempt)
        assert SECRET not in str(caught.value)
    returned = await desk.call(call, attempt=3)
    assert (returned.ok, len(effects())) == (False, 3)
    assert "taken effect" not in returned.problem


async def test_the_engines_last_attempt_ends_in_words_for_the_model(desk: Desk) -> None:
    call = await one(desk, "flaky", '{"order": "7", "times": 99}')
    assert not (await desk.call(call, attempt=1, most=1)).ok


async def test_an_idempotent_tool_that_recovers_returns_its_result(desk: Desk) -> None:
    call = await one(desk, "flaky", '{"order": "7", "times": 1}')
    with pytest.raises(Unavailable):
        await desk.call(call, attempt=1)
    assert (await desk.call(call, attempt=2)).ok


async def test_a_ledger_that_is_away_when_a_call_ends_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, tries = ToolCalls.end, itertools.count(1)

    async def away_at_first(calls: ToolCalls, *given: Any) -> ToolReturned:
        if next(tries) < 3:
            raise Unavailable("The ledger does not answer.")
        return await end(calls, *given)

    monkeypatch.setattr(ToolCalls, "end", away_at_first)
    monkeypatch.setattr(calling, "KEEP_TRYING_SECONDS", (0.0,) * 3)
    call = await one(desk, "refund", '{"order": "7", "amount": 5}')
    assert (await desk.call(call)).ok
    assert (await desk.call(call)).repeated
    assert len(effects()) == 1


async def test_what_a_tool_has_to_say_against_a_call_is_its_result(desk: Desk) -> None:
    await desk.equip("lookup_order")
    returned = await desk.use("lookup_order", order="404")
    assert (returned.ok, returned.problem) == (False, "The tool reported a problem.")
    assert await desk.text(returned.result) == "There is no order of this number."
    assert returned.tainting == "tools"


async def test_a_tool_that_takes_too_long_is_given_up_and_the_doubt_is_told(desk: Desk) -> None:
    await desk.equip("sleep_on")
    returned = await desk.use("sleep_on")
    assert returned.problem == "The tool did not answer within 0.1 s. It may or may not have taken effect."
    assert await state(desk) is CallState.FAILED


async def test_calls_of_one_reply_run_beside_each_other(desk: Desk, shop: Path) -> None:
    await desk.equip("wire")
    vetted = await desk.vet(*[("wire", '{"order": "7"}')] * 4)
    working = [asyncio.create_task(desk.call(call)) for call in vetted.calls]
    while not all((shop / f"knock.{call.key}").exists() for call in vetted.calls):
        assert not any(task.done() for task in working), "a tool never knocked"
        await asyncio.sleep(0.01)
    (shop / "open").touch()
    assert all(returned.ok for returned in await asyncio.gather(*working))


async def test_a_long_result_is_cut_to_its_tokens_and_says_so(desk: Desk) -> None:
    await desk.equip("read_page")
    returned = await desk.use("read_page", page="long")
    text = await desk.text(returned.result)
    assert returned.ok
    assert returned.tokens <= 2_000 + 60
    assert text.endswith("of 200000 characters are shown. Ask for less, or for the rest.)")


async def test_masked_values_are_restored_for_tools_that_may_have_them_and_for_no_others(desk: Desk) -> None:
    await desk.ledger.vault.save(TENANT, REQUEST, {"<EMAIL_1>": 'ada"@example.org'})
    await desk.equip("write_mail", "read_page")
    await desk.use("write_mail", to="<EMAIL_1>", text="To <EMAIL_1>.")
    (mail,) = effects()
    assert (mail["to"], mail["text"]) == ('ada"@example.org', 'To ada"@example.org.')
    returned = await desk.use("read_page", turn=2, page="<EMAIL_1>")
    assert "<EMAIL_1>" in await desk.text(returned.result)


async def test_the_model_is_told_what_a_person_made_of_its_arguments(desk: Desk) -> None:
    call = await one(desk, "refund", '{"order": "7", "amount": 500}')
    edited = await desk.vet_edit(call, '{"order": "7", "amount": 50}')
    returned = await desk.call(edited)
    assert await desk.text(returned.result) == (
        '(A person changed the arguments to {"amount":50,"order":"7"} before the call.)\nRefunded 50 for order 7.'
    )


async def test_a_tool_that_is_gone_or_has_changed_is_not_called_with_what_does_not_fit(
    desk: Desk, sanitizer: Sanitizer
) -> None:
    call = await one(desk, "refund", '{"order": "7", "amount": 5}')
    desk.equipment = Equipment(Toolset({}), desk.shelf, desk.ledger, sanitizer)
    returned = await desk.call(call)
    assert "not there any more" in await desk.text(returned.result)
    narrower = desk.toolset.tools["lookup_order"]
    desk.equipment = Equipment(Toolset({"refund": narrower}), desk.shelf, desk.ledger, sanitizer)
    returned = await desk.call(call.model_copy(update={"key": "2.0"}))
    assert "not a parameter" in await desk.text(returned.result)
    assert effects() == []


async def test_a_servers_tool_is_called_as_it_was_when_the_run_began(desk: Desk) -> None:
    await desk.equip("files.read_*")
    returned = await desk.use("files__read_file", path="a.txt")
    assert (returned.ok, await desk.text(returned.result), returned.tainting) == (True, "from the shelf", "mcp")
    (call,) = desk.shelf.calls
    assert (call["server"], call["tool"], call["digest"]) == ("files", "read_file", "0123456789abcdef")
    assert call["key"] == hashlib.sha256(f"{REQUEST}\x001.0".encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        (Said("No such file.", ok=False), "the tool reported a problem"),
        (ToolProblem("No such file."), "the tool reported a problem"),
        (OutcomeUnknown("No such file."), "outcome unknown"),
    ],
)
async def test_what_a_server_says_against_a_call_is_its_result(
    desk: Desk, answer: Said | Exception, summary: str
) -> None:
    await desk.equip("files.read_*")
    desk.shelf.answer = answer
    returned = await desk.use("files__read_file", path="a.txt")
    assert (returned.ok, await desk.text(returned.result), returned.summary) == (False, "No such file.", summary)


async def test_a_server_that_is_away_is_told_without_its_address(desk: Desk) -> None:
    await desk.equip("files.read_*")
    desk.shelf.answer = Unavailable("https://files.internal does not answer")
    returned = await desk.use("files__read_file", path="a.txt")
    assert returned.problem == "The tool is not available now."


async def test_a_result_with_half_characters_and_invisible_ones_can_be_kept(desk: Desk, sanitizer: Sanitizer) -> None:
    await desk.equip("files.read_*")
    desk.shelf.answer = Said("a\ud800b\u200bc\U000e0041\r\nd")
    returned = await desk.use("files__read_file", path="a.txt")
    assert await desk.text(returned.result) == "a\ufffdbc\nd"
