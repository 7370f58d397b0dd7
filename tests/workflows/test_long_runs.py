"""A request whose history grows long starts over with a short one and forgets nothing.

The server suggests it at 20 events instead of thousands.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from holdfast.configuration import reference
from holdfast.contracts import Answer, Decision, EventKind, Progress
from tests.house import AGENTS, PATIENCE_SECONDS, House, open_house
from tests.workflows.workshop import TOOLS, WORKSHOP

Script = Callable[..., None]

INVALID = {"kind": "ok", "content": '{"x": "one", "note": "draft"}'}
VALID = {"kind": "ok", "content": '{"x": 1, "note": "at last"}'}

_JSON = 'deployments = ["sim"]\nprompt = "plain.md"\noutput_schema = "point.json"\nrecall = false\n'
_APPROVAL = '[approval]\napprovers = ["ann", "bob"]\nwithin = "%s"\n'
_PATIENT = '[limits]\nattempts = 12\nrepairs = 10\ndeadline = "30d"\n'
LONG_AGENTS = {
    **AGENTS,
    "patient": _JSON + _PATIENT,
    "heldlong": _JSON + _APPROVAL % "4h" + _PATIENT,
    "brief": _JSON + _APPROVAL % "10s" + _PATIENT,
    "joint": _JSON
    + '[approval]\napprovers = ["ann", "bob"]\nwithin = "4h"\nquorum = 2\n'
    + '[[approval.escalation]]\napprovers = ["boss", "ann"]\nwithin = "2h"\n'
    + _PATIENT,
    "paying": 'deployments = ["sim"]\nprompt = "plain.md"\ntools = ["refund"]\n[[approvals]]\non = "refund"\n'
    + 'approvers = ["ann", "bob"]\nquorum = 2\n'
    + _PATIENT,
}


@pytest.fixture(scope="module")
async def shared_house(short_history: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house on a server that calls 20 events a long history."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, short_history, agents=LONG_AGENTS, tools=TOOLS) as opened:
        yield opened


def run(house: House, request_id: str, run_id: str | None = None) -> WorkflowHandle[object, Answer]:
    """One run of a request, by default the last."""
    return house.client.get_workflow_handle(request_id, run_id=run_id, result_type=Answer)


async def runs(house: House, request_id: str) -> list[str]:
    """The ids of a request's runs, in order."""
    found: list[str] = []
    earlier: str | None = (await run(house, request_id).describe()).run_id
    while earlier:
        found.insert(0, earlier)
        (started, *_) = (await run(house, request_id, earlier).fetch_history()).events
        earlier = started.workflow_execution_started_event_attributes.continued_execution_run_id
    return found


async def ended(house: House, request_id: str) -> Answer:
    """The answer of the last run; a question that should have been settled must not hang the test for hours."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await run(house, request_id).result()


async def progress(house: House, request_id: str) -> Progress:
    """The run sheet of the last run."""
    return await house.progress(request_id)


async def refused(house: House, request_id: str, times: int) -> None:
    """Have people who may not decide send signals."""
    content = (await house.waiting(request_id))["content_sha256"]
    for number in range(times):
        await meddle(house, request_id, content, f"eve{number}")


async def refused_until_ended(house: House, request_id: str, content: str, times: int) -> None:
    """Have people who may not decide send signals for as long as the engine takes signals for the request."""
    for number in range(times):
        try:
            await meddle(house, request_id, content, f"mallory{number}")
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return
            raise


async def meddle(house: House, request_id: str, content: str, actor: str) -> None:
    """Have one person who may not decide send an approval by signal."""
    said = {"decision": "approve", "actor": actor, "content_sha256": content}
    await run(house, request_id).signal("decide", Decision.model_validate(said))


async def started_over(house: House, request_id: str, times: int) -> None:
    """Wait until a request is in a later run."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(await runs(house, request_id)) <= times:  # noqa: ASYNC110 - the engine does not tell it
            await asyncio.sleep(0.1)


async def test_repairs_over_several_runs_count_as_in_one(house: House, script: Script) -> None:
    script({**INVALID, "times": 7}, VALID)
    reply = await house.ask("patient", "Give a point.")
    assert reply["status"] == "completed", reply
    assert json.loads(reply["answer"]["text"]) == {"x": 1, "note": "at last"}
    assert reply["attempts"] == 8
    bill = house.simulator.bill()
    assert bill["requests"] == 8, "no call is repeated because a run starts over"
    assert reply["usage"]["total_tokens"] == bill["prompt_tokens"] + bill["completion_tokens"]
    assert len(await runs(house, reply["id"])) >= 3


async def test_caps_are_not_renewed_when_a_run_starts_over(house: House, script: Script) -> None:
    script({**INVALID, "times": 20})
    reply = await house.ask("patient", "Give a point.", limits={"repairs": 6})
    assert reply["status"] == "failed"
    assert "after 6 repairs" in reply["reason"]
    assert house.simulator.bill()["requests"] == 7
    assert len(await runs(house, reply["id"])) >= 2
    house.simulator.reset()
    script({**INVALID, "times": 20})
    reply = await house.ask("patient", "Give a point.", limits={"attempts": 5})
    assert reply["status"] == "denied"
    assert "limits.attempts" in reply["reason"]
    assert house.simulator.bill()["requests"] == 5


async def test_the_run_sheet_goes_on_where_it_was(house: House, script: Script) -> None:
    script({**INVALID, "times": 5}, VALID)
    reply = await house.ask("patient", "Give a point.")
    sheets = [await house.progress(reply["id"], run_id) for run_id in await runs(house, reply["id"])]
    assert len(sheets) >= 2
    numbers = [event.sequence for sheet in sheets for event in sheet.events]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sheets[-1].attempts == 6


async def test_a_question_stays_open_however_many_signals_are_refused(house: House, script: Script) -> None:
    script(VALID)
    reply = await house.ask("heldlong", "May this leave?")
    before = reply["approval"]
    await refused(house, reply["id"], 45)
    await started_over(house, reply["id"], 1)
    now = await progress(house, reply["id"])
    assert now.status == "waiting"
    assert now.approval is not None
    shown = await house.show(reply["id"])
    assert shown["approval"] == before, "neither the content nor the deadline may change"
    assert await house.listed(reply["id"], "ann")
    decided = await house.decide(reply["id"], "approve", by="ann")
    assert decided.status_code == 200, decided.text
    final = await house.show(reply["id"])
    assert (final["status"], final["decided_by"]) == ("completed", "ann")
    assert house.simulator.bill()["requests"] == 1


async def test_the_deadline_of_a_question_is_not_renewed_when_a_run_starts_over(house: House, script: Script) -> None:
    script(VALID)
    reply = await house.ask("brief", "May this leave?")
    question = await house.waiting(reply["id"])
    opened, content = question["deadline"], question["content_sha256"]
    # At the same time, because the deadline does not wait for them.
    await asyncio.gather(*(meddle(house, reply["id"], content, f"eve{number}") for number in range(25)))
    answer = await ended(house, reply["id"])
    assert len(await runs(house, reply["id"])) >= 2
    assert (answer.status, answer.decided_by) == ("rejected", "deadline")
    assert (await house.waiting(reply["id"]))["deadline"] == opened


async def test_early_decisions_survive_a_run_that_starts_over(house: House, script: Script) -> None:
    script({**INVALID, "first_token_ms": 300}, {**INVALID, "times": 5}, VALID)
    reply = await house.submit("heldlong", "May this leave?")
    await house.until_the_model_is_called()
    shown = reference(VALID["content"]).sha256
    for actor in ("eve", "ann"):
        said = {"decision": "approve", "actor": actor, "content_sha256": shown}
        await run(house, reply["id"]).signal("decide", Decision.model_validate(said))
    answer = await ended(house, reply["id"])
    assert (answer.status, answer.decided_by) == ("completed", "ann")
    assert len(await runs(house, reply["id"])) >= 2
    told = [event for event in (await progress(house, reply["id"])).events if event.name == "approve"]
    refusals = [event.summary for event in told if event.kind is EventKind.DECISION_REFUSED]
    assert len(refusals) == 1
    assert "eve" in refusals[0]


async def test_the_approvals_inbox_shows_a_request_throughout(house: House, script: Script) -> None:
    script({**INVALID, "times": 5}, VALID)
    reply = await house.ask("heldlong", "May this leave?")
    assert reply["status"] == "waiting"
    assert reply["approval"]["approvers"] == ["ann", "bob"]
    first, *_ = await runs(house, reply["id"])
    for run_id in await runs(house, reply["id"]):
        (started, *_) = (await run(house, reply["id"], run_id).fetch_history()).events
        memo = started.workflow_execution_started_event_attributes.memo.fields
        assert "held" in memo, "the gateway would not know that the request can wait for people"
        assert ("approval" in memo) <= (run_id != first)
    await house.decide(reply["id"], "reject", by="bob")
    assert (await house.show(reply["id"]))["status"] == "rejected"


async def test_votes_and_escalations_survive_a_run_that_starts_over(house: House, script: Script) -> None:
    script(VALID)
    reply = await house.ask("joint", "May this leave?")
    assert (await house.decide(reply["id"], "approve", by="ann")).json()["missing"] == 1
    await refused(house, reply["id"], 25)
    await started_over(house, reply["id"], 1)
    assert (await house.decide(reply["id"], "escalate", by="bob")).status_code == 200
    before = (await progress(house, reply["id"])).approval
    await refused(house, reply["id"], 25)
    await started_over(house, reply["id"], 2)
    after = await progress(house, reply["id"])
    assert after.approval == before, "stage, deadline and votes are what they were"
    said = [(receipt.actor, receipt.decision) for receipt in after.decisions]
    assert said == [("ann", "approve"), ("bob", "escalate")]
    again = await house.decide(reply["id"], "approve", by="ann")
    assert (again.status_code, again.json()["code"]) == (409, "already_voted")
    assert (await house.decide(reply["id"], "approve", by="boss")).json()["final"] is True
    answer = await ended(house, reply["id"])
    assert (answer.status, answer.decided_by) == ("completed", "boss")
    events = await house.services.ledger.approval_events.list("local", request_id=reply["id"])
    told = [event.happening for event in sorted(events, key=lambda event: event.sequence)]
    assert told == ["opened", "voted", "escalated", "approved"], "nothing is noted twice"


async def test_an_edited_call_survives_a_run_that_starts_over(house: House, script: Script) -> None:
    WORKSHOP.reset()
    call = {"name": "refund", "arguments": {"order": "A7", "amount": 90}}
    script({"kind": "tool_calls", "tool_calls": [call]}, {"kind": "ok", "content": "Done."})
    reply = await house.ask("paying", "Refund A7.")
    edited = await house.decide(reply["id"], "edit", by="ann", payload='{"order": "A7", "amount": 40}')
    assert edited.json()["missing"] == 1, edited.text
    await refused(house, reply["id"], 25)
    await started_over(house, reply["id"], 1)
    assert (await house.decide(reply["id"], "approve", by="bob")).json()["final"] is True
    assert (await ended(house, reply["id"])).status == "completed"
    assert [(order, amount) for order, amount, _ in WORKSHOP.refunds] == [("A7", 40)]


async def test_decisions_that_come_while_a_run_starts_over_all_count(house: House, script: Script) -> None:
    for _ in range(3):
        script(VALID)
        reply = await house.ask("joint", "May this leave?")
        await refused(house, reply["id"], 8)
        content = (await house.waiting(reply["id"]))["content_sha256"]
        signals = asyncio.create_task(refused_until_ended(house, reply["id"], content, 6))
        clicks = [house.decide(reply["id"], "approve", by=by) for by in ("ann", "bob")]
        outcomes = await asyncio.gather(*clicks)
        await signals
        assert [outcome.status_code for outcome in outcomes] == [200, 200], [outcome.text for outcome in outcomes]
        answer = await ended(house, reply["id"])
        assert answer.status == "completed"
        events = await house.services.ledger.approval_events.list("local", request_id=reply["id"])
        told = [event.happening for event in sorted(events, key=lambda event: event.sequence)]
        assert told == ["opened", "voted", "approved"]
