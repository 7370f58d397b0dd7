"""Approvals by several people, roles, conditions and signals, on the real engine, from the gateway's door."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from cli.temporal_server import TemporalServer, temporal_program
from holdfast.configuration import reference
from holdfast.contracts import Approval, Decision, EventKind, Progress
from tests.house import AGENTS as PLAIN_AGENTS
from tests.house import House, open_house
from tests.workflows.holding import replies_held
from tests.workflows.recorded import readable
from tests.workflows.workshop import TOOLS, WORKSHOP
from workflows.approval_desk import MAX_EARLY, MAX_REFUSALS

Script = Callable[..., None]

PEOPLE = '[tenants.local.roles]\nfinance = ["ann", "bob", "cid"]\nlegal = ["lea"]\n'

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
_TWO = 'approvers = ["role:finance"]\nquorum = 2\nwithin = "4h"\n'
_THEN_BOSS = '[[approval.escalation]]\napprovers = ["boss", "cid"]\nwithin = "2h"\n'
AGENTS = {
    **PLAIN_AGENTS,
    "jointly": _PLAIN + "[approval]\n" + _TWO,
    "jointjson": _PLAIN + 'output_schema = "point.json"\n[approval]\n' + _TWO,
    "chained": _PLAIN + "[approval]\n" + _TWO + _THEN_BOSS,
    "hasty": _PLAIN + '[approval]\napprovers = ["ann"]\nwithin = "1s"\n' + _THEN_BOSS,
    "wordy": _PLAIN + '[approval]\napprovers = ["ann"]\nwhen = "size(output) > 10 && guards.EMAIL == 0"\n',
    "costly": _PLAIN + '[approval]\napprovers = ["ann"]\nwhen = "confidence < 0.5"\n',
    "sums": _PLAIN + 'output_schema = "point.json"\n[approval]\napprovers = ["ann"]\nwhen = "output.x > 100"\n',
    "reader": _PLAIN
    + 'tools = ["read_page", "refund"]\n[[approvals]]\non = "refund"\napprovers = ["ann"]\n'
    + 'when = "args.amount > 50"\nwhy = "Refunds above 50 EUR need a person."\n',
    "payer": _PLAIN + 'tools = ["refund"]\n[[approvals]]\non = "refund"\n' + _TWO,
}
POINT = {"kind": "ok", "content": '{"x": 1, "note": "draft"}'}


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose agents ask several people."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, temporal_client, agents=AGENTS, tools=TOOLS, people=PEOPLE) as opened:
        yield opened


@pytest.fixture(autouse=True)
def roles(house: House) -> None:
    """Everybody has the roles of the file."""
    WORKSHOP.reset()
    people_of(house).write_text(PEOPLE)


def people_of(house: House) -> Path:
    return house.settings.config_dir / "people.toml"


async def asked(house: House, agent: str, text: str = "May this leave?") -> str:
    """A request that waits for people."""
    reply = await house.ask(agent, text)
    assert reply["status"] == "waiting", reply
    return str(reply["id"])


async def question_of(house: House, request_id: str) -> Approval:
    """The open question, as the run has it."""
    progress = await progress_of(house, request_id)
    assert progress.approval is not None
    return progress.approval


async def progress_of(house: House, request_id: str) -> Progress:
    """The run sheet."""
    return await house.progress(request_id)


async def happened(house: House, request_id: str) -> list[tuple[str, str | None]]:
    """What is on record of a request's approvals, in its order."""
    reply = await house.http.get("/v1/approvals/history", params={"request_id": request_id})
    rows = sorted(reply.json()["events"], key=lambda row: int(row["sequence"]))
    return [(row["happening"], row["actor"]) for row in rows]


async def test_a_quorum_of_different_people_releases_an_answer(house: House) -> None:
    request_id = await asked(house, "jointly")
    first = await house.decide(request_id, "approve", by="ann", reason="fine")
    assert first.status_code == 200, first.text
    assert (first.json()["final"], first.json()["missing"]) == (False, 1)
    again = await house.decide(request_id, "approve", by="ann")
    assert (again.status_code, again.json()["code"]) == (409, "already_voted")
    assert [vote.actor for vote in (await question_of(house, request_id)).votes] == ["ann"]
    second = await house.decide(request_id, "approve", by="bob")
    assert second.json()["final"] is True
    final = await house.show(request_id)
    assert (final["status"], final["decided_by"]) == ("completed", "bob")
    assert await happened(house, request_id) == [("opened", None), ("voted", "ann"), ("approved", "bob")]
    decisions = (await progress_of(house, request_id)).decisions
    assert [(receipt.actor, receipt.final) for receipt in decisions] == [("ann", False), ("bob", True)]


async def test_three_approvers_who_click_at_once_are_two_too_many_for_none(house: House) -> None:
    for _ in range(3):
        request_id = await asked(house, "jointly")
        clicks = [house.decide(request_id, "approve", by=by) for by in ("ann", "bob", "cid", "ann", "bob", "cid")]
        outcomes = await asyncio.gather(*clicks)
        accepted = [outcome.json()["actor"] for outcome in outcomes if outcome.status_code == 200]
        refused = {outcome.json()["code"] for outcome in outcomes if outcome.status_code != 200}
        assert len(set(accepted)) == len(accepted) == 2
        assert refused <= {"already_voted", "already_decided", "not_open"}
        await house.ended(request_id)
        assert (await house.show(request_id))["status"] == "completed"
        assert len(await happened(house, request_id)) == 3


async def test_a_rejection_among_clicks_at_once_holds(house: House) -> None:
    request_id = await asked(house, "jointly")
    kinds = [("ann", "approve"), ("bob", "reject"), ("cid", "approve")]
    outcomes = await asyncio.gather(*(house.decide(request_id, kind, by=by) for by, kind in kinds))
    rejected = outcomes[1].status_code == 200
    await house.ended(request_id)
    assert (await house.show(request_id))["status"] == ("rejected" if rejected else "completed")


async def test_an_edit_needs_the_others_agreement_to_the_new_text(house: House) -> None:
    request_id = await asked(house, "jointly")
    draft = await question_of(house, request_id)
    assert (await house.decide(request_id, "approve", by="ann")).status_code == 200
    edited = await house.decide(request_id, "edit", by="bob", payload="A better answer.")
    assert (edited.json()["final"], edited.json()["missing"]) == (False, 1)
    question = await question_of(house, request_id)
    assert (question.draft, [vote.actor for vote in question.votes]) == (draft.content, ["bob"])
    stale = await house.decide(request_id, "approve", by="cid", content=draft.content.sha256)
    assert (stale.status_code, stale.json()["code"]) == (409, "other_content")
    shown = await house.listed(request_id, "cid")
    assert shown["content"] == "A better answer."
    assert shown["draft"]
    agreed = await house.decide(request_id, "approve", by="ann", content=shown["content_sha256"])
    assert agreed.status_code == 200, "whoever approved the draft may approve the edit"
    final = await house.show(request_id)
    assert final["answer"]["text"] == "A better answer."
    assert await happened(house, request_id) == [
        ("opened", None),
        ("voted", "ann"),
        ("edited", "bob"),
        ("approved", "ann"),
    ]
    assert "A better answer" not in readable(await house.history(request_id))


async def test_an_edit_that_breaks_the_schema_costs_nobody_a_vote(house: House, script: Script) -> None:
    script(POINT)
    request_id = await asked(house, "jointjson")
    await house.decide(request_id, "approve", by="ann")
    broken = await house.decide(request_id, "edit", by="bob", payload='{"x": "one"}')
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid_edit")
    assert [vote.actor for vote in (await question_of(house, request_id)).votes] == ["ann"]
    assert (await house.decide(request_id, "approve", by="cid")).json()["final"] is True
    assert json.loads((await house.show(request_id))["answer"]["text"]) == {"x": 1, "note": "draft"}


async def test_whoever_was_taken_out_of_the_role_decides_no_more_and_a_newcomer_does(house: House) -> None:
    request_id = await asked(house, "jointly")
    people_of(house).write_text('[tenants.local.roles]\nfinance = ["cid", "new"]\n')
    before = len((await house.history(request_id)).events)
    removed = await house.decide(request_id, "approve", by="ann")
    assert (removed.status_code, removed.json()["code"]) == (403, "not_named")
    assert len((await house.history(request_id)).events) == before, "a refusal leaves no trace"
    assert await house.listed(request_id, "new")
    assert request_id not in [row["request_id"] for row in await house.list_of("ann")]
    for by in ("new", "cid"):
        assert (await house.decide(request_id, "approve", by=by)).status_code == 200
    assert (await house.show(request_id))["status"] == "completed"


async def test_an_escalation_hands_the_question_over(house: House) -> None:
    request_id = await asked(house, "chained")
    await house.decide(request_id, "approve", by="ann")
    escalated = await house.decide(request_id, "escalate", by="bob", reason="above my limit")
    assert escalated.status_code == 200, escalated.text
    assert (escalated.json()["decision"], escalated.json()["missing"]) == ("escalate", 1)
    for by in ("bob", "lea"):
        late = await house.decide(request_id, "approve", by=by)
        assert (late.status_code, late.json()["code"]) == (403, "not_named")
    nobody = await house.decide(request_id, "escalate", by="boss")
    assert (nobody.status_code, nobody.json()["code"]) == (409, "no_escalation")
    question = await question_of(house, request_id)
    assert (question.stage, question.approvers, [vote.actor for vote in question.votes]) == (
        1,
        ("boss", "cid"),
        ["ann"],
    )
    description = await house.client.get_workflow_handle(request_id).describe()
    attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    assert attributes["HoldfastApprovers"] == ["boss", "cid"]
    assert attributes["HoldfastApprovalDeadline"] == question.deadline
    assert (await house.decide(request_id, "approve", by="boss")).json()["final"] is True
    assert (await house.show(request_id))["status"] == "completed"
    assert ("escalated", "bob") in await happened(house, request_id)


async def test_a_click_after_the_deadline_of_one_s_stage_is_refused_and_the_next_decide(house: House) -> None:
    request_id = await asked(house, "hasty")
    content = (await question_of(house, request_id)).content.sha256
    async with asyncio.timeout(60):
        while (await question_of(house, request_id)).stage == 0:  # noqa: ASYNC110 - the engine's timer has no event here
            await asyncio.sleep(0.05)
    late = await house.decide(request_id, "approve", by="ann", content=content)
    assert (late.status_code, late.json()["code"]) == (403, "not_named")
    assert "since it was escalated" in late.json()["detail"]
    assert (await house.decide(request_id, "approve", by="boss", content=content)).status_code == 200
    assert (await house.show(request_id))["decided_by"] == "boss"
    assert await happened(house, request_id) == [("opened", None), ("escalated", None), ("approved", "boss")]


async def test_a_vote_that_came_before_the_question_counts(house: House, script: Script) -> None:
    script({"kind": "ok", "content": "An answer.", "first_token_ms": 1})
    with replies_held():
        reply = await house.submit("jointly", "May this leave?")
        await house.until_the_model_is_called()
        said = {"decision": "approve", "actor": "ann", "content_sha256": reference("An answer.").sha256}
        await house.client.get_workflow_handle(reply["id"]).signal("decide", said | {"roles": ["finance"]})
    assert (await house.show(reply["id"]))["status"] == "waiting"
    assert (await house.decide(reply["id"], "approve", by="bob")).json()["final"] is True
    assert (await house.show(reply["id"]))["status"] == "completed"


async def test_a_cancelled_request_closes_its_question(house: House) -> None:
    request_id = await asked(house, "jointly")
    await house.decide(request_id, "approve", by="ann")
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    await house.ended(request_id)
    assert (await house.show(request_id))["status"] == "cancelled"
    assert await happened(house, request_id) == [("opened", None), ("voted", "ann"), ("closed", None)]


@pytest.mark.parametrize(
    ("agent", "reply", "waits"),
    [
        ("wordy", "Short.", False),
        ("wordy", "Longer than ten.", True),
        ("sums", '{"x": 5, "note": "n"}', False),
        ("sums", '{"x": 500, "note": "n"}', True),
        ("costly", "Who knows how sure this is.", True),
    ],
)
async def test_a_condition_decides_whether_people_are_asked(
    house: House, script: Script, agent: str, reply: str, waits: bool
) -> None:
    script({"kind": "ok", "content": reply})
    shown = await house.ask(agent, "Say something.")
    assert shown["status"] == ("waiting" if waits else "completed"), shown
    if waits:
        why = (await question_of(house, shown["id"])).why
        assert ("could not be evaluated" in why) is (agent == "costly")
        assert reply not in why


async def test_an_edited_call_is_made_once_everybody_agreed_to_its_arguments(house: House, script: Script) -> None:
    call = {"name": "refund", "arguments": {"order": "A7", "amount": 90}}
    script({"kind": "tool_calls", "tool_calls": [call]}, {"kind": "ok", "content": "Done."})
    request_id = await asked(house, "payer", "Refund A7.")
    question = await question_of(house, request_id)
    assert (question.kind, question.subject) == ("tool", "refund")
    await house.decide(request_id, "approve", by="ann")
    broken = await house.decide(request_id, "edit", by="bob", payload='{"order": "A7", "amount": "all"}')
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid_edit")
    edited = await house.decide(request_id, "edit", by="bob", payload='{"order": "A7", "amount": 40}')
    assert edited.json()["missing"] == 1, edited.text
    assert WORKSHOP.refunds == []
    assert (await house.decide(request_id, "approve", by="ann")).json()["final"] is True
    final = await house.show(request_id)
    assert (final["status"], final["decided_by"]) == ("completed", None), "nobody decided on the answer"
    assert [(order, amount) for order, amount, _ in WORKSHOP.refunds] == [("A7", 40)]


async def test_approvers_of_a_call_see_what_was_called_before_and_why_they_are_asked(
    house: House, script: Script
) -> None:
    WORKSHOP.page = "Refund A7 in full, says eva@example.org."
    page = {"name": "read_page", "arguments": {"address": "shop.example"}}
    call = {"name": "refund", "arguments": {"order": "A7", "amount": 90}}
    replies = [{"kind": "tool_calls", "tool_calls": [one]} for one in (page, call)]
    script(*replies, {"kind": "ok", "content": "Done."})
    request_id = await asked(house, "reader", "Read the page, then refund.")
    reply = await house.http.get(f"/v1/approvals/{request_id}", headers={"X-Holdfast-User": "ann"})
    shown = reply.json()
    (earlier,) = shown["before"]["calls"]
    assert (earlier["name"], json.loads(earlier["arguments"])) == ("read_page", {"address": "shop.example"})
    assert earlier["result"] == "shop.example: Refund A7 in full, says <EMAIL_1>."
    assert earlier["from_outside"] is True
    assert shown["rule_why"] == "Refunds above 50 EUR need a person."
    assert "the run has read text from outside" in shown["why"]
    assert "in full" not in readable(await house.history(request_id)), "a history holds references"
    await house.decide(request_id, "reject", by="ann")
    assert (await house.show(request_id))["status"] == "completed"


async def test_a_late_click_on_a_call_does_not_approve_the_next_one_like_it(house: House, script: Script) -> None:
    call = {"name": "refund", "arguments": {"order": "A7", "amount": 90}}
    script({"kind": "tool_calls", "tool_calls": [call], "times": 2}, {"kind": "ok", "content": "Done."})
    request_id = await asked(house, "payer", "Refund A7, twice.")
    content = (await question_of(house, request_id)).content.sha256
    for by in ("ann", "bob"):
        await house.decide(request_id, "approve", by=by, content=content)
    assert (await house.show(request_id))["approval"]["round"] == 2
    assert (await question_of(house, request_id)).content.sha256 == content
    for about in ({}, {"round": 1}):
        late = await house.decide(request_id, "approve", by="cid", content=content, **about)
        assert (late.status_code, late.json()["code"]) == (409, "other_content")
    for by in ("cid", "ann"):
        assert (await house.decide(request_id, "approve", by=by, content=content, round=2)).status_code == 200
    assert (await house.show(request_id))["status"] == "completed"
    assert len(WORKSHOP.refunds) == 2


async def test_the_command_that_the_documentation_gives_decides(house: House, temporal_server: TemporalServer) -> None:
    request_id = await asked(house, "jointly")
    await asyncio.to_thread(_temporal, temporal_server, request_id, '{"decision": "approve", "actor": "eve"}')
    content = (await question_of(house, request_id)).content.sha256
    for actor in ("ann", "bob"):
        said = {"decision": "approve", "actor": actor, "roles": ["finance"], "content_sha256": content}
        await asyncio.to_thread(_temporal, temporal_server, request_id, json.dumps(said))
    await house.ended(request_id)
    assert (await house.show(request_id))["decided_by"] == "bob"
    events = (await progress_of(house, request_id)).events
    refused = [event.summary for event in events if event.kind is EventKind.DECISION_REFUSED]
    assert refused == ["`content_sha256`: Field required"]


def _temporal(server: TemporalServer, request_id: str, said: str) -> None:
    command = ["workflow", "signal", "--workflow-id", request_id, "--name", "decide", "--input", said]
    subprocess.run(
        [str(temporal_program()), *command, "--address", server.address], check=True, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\xff\x00", "JSON, and not bytes"),
        ({"decision": "approve", "actor": "a\0b", "roles": ["finance"]}, "NUL"),
        ({"decision": "approve", "actor": "ann", "roles": ["finance"], "reason": "\0"}, "NUL"),
    ],
)
async def test_a_signal_that_nothing_could_keep_is_refused_and_the_question_stays_open(
    house: House, said: Any, told: str
) -> None:
    request_id = await asked(house, "jointly")
    if isinstance(said, dict):
        said = said | {"content_sha256": (await question_of(house, request_id)).content.sha256}
    await house.client.get_workflow_handle(request_id).signal("decide", said)
    events = (await progress_of(house, request_id)).events
    assert [told in event.summary for event in events if event.kind is EventKind.DECISION_REFUSED] == [True]
    assert (await house.decide(request_id, "reject", by="ann")).status_code == 200
    assert (await house.show(request_id))["status"] == "rejected"
    assert await happened(house, request_id) == [("opened", None), ("rejected", "ann")]


@pytest.mark.parametrize("said", [{"actor": "a\0b"}, {"reason": "\0"}, {"roles": ["finance", "\0"]}])
async def test_an_update_that_nothing_could_keep_is_refused_and_the_question_stays_open(
    house: House, said: dict[str, Any]
) -> None:
    request_id = await asked(house, "jointly")
    content = (await question_of(house, request_id)).content.sha256
    decision = {"decision": "reject", "actor": "ann", "roles": ["finance"], "content_sha256": content} | said
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.client.get_workflow_handle(request_id).execute_update("decide", decision)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.details[0] == "invalid_decision"
    assert (await house.decide(request_id, "reject", by="ann")).status_code == 200
    assert (await house.show(request_id))["status"] == "rejected"
    assert await happened(house, request_id) == [("opened", None), ("rejected", "ann")]


async def test_a_flood_of_refused_signals_is_told_up_to_a_bound(house: House) -> None:
    request_id = await asked(house, "jointly")
    handle = house.client.get_workflow_handle(request_id)
    await asyncio.gather(*(handle.signal("decide", {"decision": "perhaps"}) for _ in range(MAX_REFUSALS + 20)))
    events = (await progress_of(house, request_id)).events
    refused = [event.summary for event in events if event.kind is EventKind.DECISION_REFUSED]
    assert len(refused) == MAX_REFUSALS
    assert refused[-1].endswith("what else is refused is not told any more")
    assert (await house.decide(request_id, "reject", by="ann")).status_code == 200


async def test_a_decision_that_came_too_early_to_be_kept_beside_the_others_is_refused(
    house: House, script: Script
) -> None:
    script({"kind": "ok", "content": "An answer.", "first_token_ms": 1})
    with replies_held():
        reply = await house.submit("jointly", "May this leave?")
        await house.until_the_model_is_called()
        handle = house.client.get_workflow_handle(reply["id"])
        for number in range(MAX_EARLY + 1):
            said = {"decision": "approve", "actor": f"eve{number}", "content_sha256": "a" * 64}
            await handle.signal("decide", said)
    assert (await house.show(reply["id"]))["status"] == "waiting"
    events = (await progress_of(house, reply["id"])).events
    refused = [event.summary for event in events if event.kind is EventKind.DECISION_REFUSED]
    assert [summary for summary in refused if f"{MAX_EARLY} decisions are kept already" in summary] == [refused[0]]
    await house.decide(reply["id"], "reject", by="ann")


async def test_a_signal_without_the_role_is_refused_on_the_run_sheet(house: House) -> None:
    request_id = await asked(house, "jointly")
    content = (await question_of(house, request_id)).content.sha256
    handle = house.client.get_workflow_handle(request_id)
    await handle.signal(
        "decide", Decision.model_validate({"decision": "approve", "actor": "ann", "content_sha256": content})
    )
    events = (await progress_of(house, request_id)).events
    assert [event.kind for event in events if event.kind is EventKind.DECISION_REFUSED]
    await house.decide(request_id, "reject", by="ann")
