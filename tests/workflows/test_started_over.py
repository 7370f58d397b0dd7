"""What a run does that has just started over, before it has asked again what its predecessor asked."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.client import Client

from cli.temporal_server import TemporalServer
from holdfast.contracts import Answer, AtLimit, Decision, DecisionKind, Progress, Run
from holdfast.spending import Period, ScopeKind
from tests.house import AGENTS, House, open_house
from tests.workflows.record_histories import SHORT_HISTORY
from tests.workflows.test_long_runs import ended, progress, refused, run, started_over
from tests.workflows.workshop import TOOLS, WORKSHOP
from workflows import attributes
from workflows.connection import DATA_CONVERTER

Script = Callable[..., None]

_SIM = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
STARTING_OVER = {
    **AGENTS,
    "refunding": _SIM + 'tools = ["refund"]\n[[approvals]]\non = "refund"\napprovers = ["boss"]\nwithin = "4h"\n',
    "frugal": _SIM + '[budget_approval]\napprovers = ["boss"]\n',
    "thrifty": _SIM + '[budget_approval]\napprovers = ["boss"]\n[approval]\napprovers = ["ann"]\nwithin = "4h"\n',
}


@pytest.fixture(scope="module")
async def shared_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house on a server that calls 20 events a long history."""
    async with TemporalServer(port=0, ui=False, dynamic_config=SHORT_HISTORY) as server:
        client = await Client.connect(server.address, namespace=server.namespace, data_converter=DATA_CONVERTER)
        async with open_house(tmp_path_factory.mktemp("house"), client, agents=STARTING_OVER, tools=TOOLS) as opened:
            yield opened


async def asked(house: House, request_id: str, kind: str) -> Progress:
    """Wait until a request asks a question of a kind."""
    async with asyncio.timeout(60):
        while True:
            sheet = await progress(house, request_id)
            if sheet.approval is not None and sheet.approval.kind == kind:
                return sheet
            await asyncio.sleep(0.1)


async def begun_again(house: House, request_id: str, kind: DecisionKind, text: str | None = None) -> Answer:
    """Begin the last run of a request once more, with a decision in its very first task, and wait for its end.

    So comes a decision that is sent while no worker runs.
    """
    handle = run(house, request_id)
    queue = (await handle.describe()).task_queue
    (started, *_) = (await handle.fetch_history()).events
    payloads = list(started.workflow_execution_started_event_attributes.input.payloads)
    (given,) = await house.client.data_converter.decode(payloads, [Run])
    assert given.carried is not None
    asked_about = given.carried.approval
    assert asked_about is not None
    await handle.terminate()
    decision = Decision(
        decision=kind,
        actor="boss",
        content_sha256=asked_about.content.sha256,
        payload_text=text,
        round=asked_about.round,
    )
    again = await house.client.start_workflow(
        "RequestWorkflow",
        given,
        id=request_id,
        task_queue=queue,
        result_type=Answer,
        start_signal="decide",
        start_signal_args=[decision],
        search_attributes=attributes.found_by(given.request),
    )
    async with asyncio.timeout(60):
        answer: Answer = await again.result()
    return answer


async def test_an_edit_in_the_first_task_of_a_run_is_checked_and_carried_out(house: House, script: Script) -> None:
    WORKSHOP.reset()
    call = {"name": "refund", "arguments": {"order": "A7", "amount": 5000}}
    script({"kind": "tool_calls", "tool_calls": [call]}, {"kind": "ok", "content": "Done."})
    reply = await house.ask("refunding", "Refund A7.")
    await refused(house, reply["id"], 25)
    await started_over(house, reply["id"], 1)
    answer = await begun_again(house, reply["id"], DecisionKind.EDIT, '{"order": "A7", "amount": 50}')
    assert answer.status == "completed", answer.reason
    assert [(order, amount) for order, amount, _ in WORKSHOP.refunds] == [("A7", 50)]


async def test_a_question_about_a_budget_that_has_room_again_answers_no_other_question(
    house: House, script: Script
) -> None:
    budgets = house.services.ledger.budgets
    await budgets.set("local", ScopeKind.USER, "asker", Period.DAY, tokens=10, at_limit=AtLimit.ASK)
    script({"kind": "ok", "content": "Something that ann must see."})
    asked_by = {"X-Holdfast-User": "asker"}
    body = {"agent": "thrifty", "input": "May this cost so much?"}
    reply = (await house.http.post("/v1/requests", json=body, headers=asked_by)).json()
    await asked(house, reply["id"], "budget")
    content = (await house.waiting(reply["id"]))["content_sha256"]
    await budgets.set("local", ScopeKind.USER, "asker", Period.DAY, tokens=1_000_000, at_limit=AtLimit.ASK)
    await refused(house, reply["id"], 25)
    sheet = await asked(house, reply["id"], "output")
    assert sheet.approval is not None
    assert sheet.approval.rule.approvers == ("ann",)
    outdated = await house.decide(reply["id"], "approve", by="boss", content_sha256=content)
    assert outdated.status_code in (403, 409), outdated.text
    assert (await house.decide(reply["id"], "approve", by="ann")).status_code == 200
    answer = await ended(house, reply["id"])
    assert answer.status == "completed"
    assert (await house.show(reply["id"]))["answer"]["text"] == "Something that ann must see."
    events = await house.services.ledger.approval_events.list("local", request_id=reply["id"])
    told = [(event.kind, event.happening) for event in sorted(events, key=lambda event: event.sequence)]
    assert told == [("budget", "opened"), ("budget", "closed"), ("output", "opened"), ("output", "approved")]


@pytest.mark.parametrize(("kind", "status"), [(DecisionKind.APPROVE, "completed"), (DecisionKind.REJECT, "denied")])
async def test_a_decision_on_a_budget_in_the_first_task_of_a_run_is_carried_out(
    house: House, script: Script, kind: DecisionKind, status: str
) -> None:
    budgets, asker = house.services.ledger.budgets, f"asker-{kind.value}"
    await budgets.set("local", ScopeKind.USER, asker, Period.DAY, tokens=10, at_limit=AtLimit.ASK)
    script({"kind": "ok", "content": "Dear."})
    body = {"agent": "frugal", "input": f"May this cost so much? {kind.value}"}
    reply = (await house.http.post("/v1/requests", json=body, headers={"X-Holdfast-User": asker})).json()
    await asked(house, reply["id"], "budget")
    await refused(house, reply["id"], 25)
    await started_over(house, reply["id"], 1)
    answer = await begun_again(house, reply["id"], kind)
    assert answer.status == status, answer.reason
