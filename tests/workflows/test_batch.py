"""Requests through the providers' batch APIs: gathered, sent together, answered once, and billed as recorded."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from holdfast.contracts import EventKind
from holdfast.errors import Outcome
from holdfast.ledger import AttemptState
from simulator.program import Profile
from simulator.server import Simulator
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.holding import batches_held

Script = Callable[..., None]

_PRICE = {"price": {"input": 2, "output": 6}}
PRICED = Profile.read({"default": {"batch_ms": 50}, "models": {"sim-bulk": _PRICE, "sim-bulkclaude": _PRICE}})

AGENTS = pytest.mark.parametrize("agent", ["nightly", "nightlyclaude"])


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose simulator has the prices that its deployments are configured with."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, temporal_client, simulator=Simulator(profile=PRICED)) as opened:
        yield opened


async def submit(house: House, agent: str, text: str = "What is due?", **body: Any) -> str:
    return str((await house.submit(agent, text, batch=True, **body))["id"])


async def ends(house: House, request_id: str) -> dict[str, Any]:
    return await house.show(request_id)


async def sheet(house: House, request_id: str) -> list[str]:
    return [f"{event.name}: {event.summary}" for event in (await house.progress(request_id)).events]


async def recorded(house: House, *request_ids: str) -> Decimal:
    totals = [await house.services.ledger.attempts.totals(request_id) for request_id in request_ids]
    return sum((total.usage.cost_usd or Decimal(0) for total in totals), Decimal(0))


def billed(house: House) -> Decimal:
    return Decimal(str(house.simulator.bill()["cost_usd"]))


async def attempts(house: House, request_id: str) -> list[tuple[str, AttemptState, Outcome | None]]:
    rows = await house.services.ledger.attempts.list(request_id)
    return [(row.deployment, row.state, row.outcome) for row in rows]


async def until_sent(house: House, request_id: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any("in a batch of" in line for line in await sheet(house, request_id)):  # noqa: ASYNC110 - a query
            await asyncio.sleep(0.02)


async def quiet(house: House, deployment: str) -> None:
    """Wait until the run of the deployment's batches is over."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await house.client.get_workflow_handle(f"batch.{house.settings.engine.task_queue}.{deployment}").result()


@AGENTS
async def test_requests_are_answered_together_and_the_bill_is_the_ledger(house: House, agent: str) -> None:
    numbers = range(12)
    asked = await asyncio.gather(*(submit(house, agent, f"What is due on day {number}?") for number in numbers))
    replies = [await ends(house, request_id) for request_id in asked]
    assert {reply["status"] for reply in replies} == {"completed"}
    assert {reply["attempts"] for reply in replies} == {1}
    assert len({reply["answer"]["text"] for reply in replies}) > 1
    bill = house.simulator.bill()["entries"]
    assert len(bill) == 12
    assert all(entry["batch"] for entry in bill)
    assert await recorded(house, *asked) == billed(house) > 0
    assert sum(Decimal(reply["usage"]["cost_usd"]) for reply in replies) == billed(house)
    await quiet(house, replies[0]["deployment"])
    assert await house.services.ledger.batch_lines.count(replies[0]["deployment"]) == (0, 0)


async def test_the_run_sheet_says_that_a_request_is_in_a_batch(house: House) -> None:
    request_id = await submit(house, "nightly")
    await until_sent(house, request_id)
    lines = await sheet(house, request_id)
    assert "generate: bulk, turn 1, in line for a batch" in lines
    assert any(line.startswith("generate: in a batch of bulk, sent ") for line in lines)
    assert (await ends(house, request_id))["status"] == "completed"


async def test_a_line_that_failed_goes_into_the_next_batch(house: House, script: Script) -> None:
    script({"kind": "error_500", "batch_ms": 20})
    request_id = await submit(house, "nightly")
    assert (await ends(house, request_id))["status"] == "completed"
    assert await attempts(house, request_id) == [
        ("bulk", AttemptState.UNKNOWN, Outcome.UNKNOWN),
        ("bulk", AttemptState.SETTLED, Outcome.OK),
    ]
    assert await recorded(house, request_id) > billed(house)


@AGENTS
async def test_a_line_that_expired_or_was_cut_goes_into_the_next_batch_and_is_never_below_the_bill(
    house: House, script: Script, agent: str
) -> None:
    script({"kind": "hang"}, {"kind": "malformed_json"})
    asked = await asyncio.gather(*(submit(house, agent, f"What is due on day {number}?") for number in range(2)))
    assert {(await ends(house, request_id))["status"] for request_id in asked} == {"completed"}
    outcomes = {(await attempts(house, request_id))[0][2] for request_id in asked}
    assert outcomes == {Outcome.NOT_SENT, Outcome.UNKNOWN}
    assert await recorded(house, *asked) > billed(house)


async def test_a_deployment_that_keeps_failing_is_given_up_for_another(house: House, script: Script) -> None:
    script({"kind": "insufficient_quota", "model": "sim-bulk"})
    request_id = await submit(house, "nightlyspare")
    reply = await ends(house, request_id)
    assert (reply["status"], reply["deployment"]) == ("completed", "spare")
    (entry,) = house.simulator.bill()["entries"]
    assert not entry["batch"], "the other deployment has no batch API"


async def test_a_deployment_is_tried_three_times_before_another(house: House, script: Script) -> None:
    script({"kind": "overloaded_503", "model": "sim-bulk", "times": 9})
    request_id = await submit(house, "nightlyspare")
    assert (await ends(house, request_id))["deployment"] == "spare"
    assert [deployment for deployment, _, _ in await attempts(house, request_id)] == ["bulk"] * 3 + ["spare"]


async def test_an_invalid_reply_is_repaired_in_the_next_batch(house: House, script: Script) -> None:
    script(
        {"kind": "ok", "content": '{"x": "one", "note": ""}'}, {"kind": "ok", "content": '{"x": 1, "note": "mended"}'}
    )
    request_id = await submit(house, "nightlyjson")
    reply = await ends(house, request_id)
    assert (reply["status"], reply["attempts"]) == ("completed", 2)
    assert json.loads(reply["answer"]["text"]) == {"x": 1, "note": "mended"}


async def test_what_a_batch_answered_waits_for_people_like_anything_else(house: House) -> None:
    request_id = await submit(house, "nightlyheld")
    assert (await ends(house, request_id))["status"] == "waiting"
    assert (await house.decide(request_id, "approve", by="ann")).status_code == 200
    assert (await ends(house, request_id))["status"] == "completed"


async def test_a_request_that_is_cancelled_while_it_is_in_a_batch_pays_for_the_answer(house: House) -> None:
    with batches_held():
        request_id = await submit(house, "nightly")
        await until_sent(house, request_id)
        await house.http.post(f"/v1/requests/{request_id}/cancel")
        reply = await ends(house, request_id)
        assert (reply["status"], reply["answer"]) == ("cancelled", None)
    await quiet(house, "bulk")
    assert await attempts(house, request_id) == [("bulk", AttemptState.SETTLED, Outcome.OK)]
    reply = await house.show(request_id)
    assert (reply["status"], reply["answer"]) == ("cancelled", None)
    assert Decimal(reply["usage"]["cost_usd"]) == await recorded(house, request_id) == billed(house) > 0


async def test_a_request_whose_deadline_passes_in_a_batch_expires_and_is_settled_later(
    house: House,
) -> None:
    with batches_held():
        request_id = await submit(house, "nightly", limits={"deadline": "10s"})
        reply = await ends(house, request_id)
        assert reply["status"] == "expired"
        assert await attempts(house, request_id) == [("bulk", AttemptState.HELD, None)]
        assert await recorded(house, request_id) > 0
    await quiet(house, "bulk")
    assert await attempts(house, request_id) == [("bulk", AttemptState.SETTLED, Outcome.OK)]
    assert await recorded(house, request_id) == billed(house)


async def test_a_budget_that_has_no_room_keeps_the_call_out_of_the_batch(house: House) -> None:
    request_id = await submit(house, "nightly", limits={"cost_usd": "0.000001"})
    assert (await ends(house, request_id))["status"] == "denied"
    assert await attempts(house, request_id) == []


async def test_only_what_is_marked_batch_goes_through_a_batch(house: House) -> None:
    reply = await house.ask("nightly", "What is due at once?")
    assert reply["status"] == "completed"
    spare = await submit(house, "fallback")
    assert (await ends(house, spare))["status"] == "completed"
    assert [entry["batch"] for entry in house.simulator.bill()["entries"]] == [False, False]


async def test_a_run_of_batches_that_is_gone_is_started_by_whoever_asks_next(house: House) -> None:
    with batches_held():
        first = await submit(house, "nightly")
        await until_sent(house, first)
        await house.client.get_workflow_handle(f"batch.{house.settings.engine.task_queue}.bulk").terminate()
        second = await submit(house, "nightly", "What is due then?")
        await until_sent(house, second)
    assert [(await ends(house, request_id))["status"] for request_id in (first, second)] == ["completed"] * 2
    assert len(house.simulator.bill()["entries"]) == 2


async def test_the_run_of_batches_starts_over_when_its_history_grows_long(
    short_history: Client, tmp_path: Path
) -> None:
    often = {"collect": "50ms", "poll": "100ms", "lost_after": "1m"}
    async with open_house(tmp_path, short_history, simulator=Simulator(profile=PRICED), batch=often) as house:
        batches = house.client.get_workflow_handle(f"batch.{house.settings.engine.task_queue}.bulk")
        with batches_held():
            asked = [await submit(house, "nightly", f"What is due on day {number}?") for number in range(2)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await is_continued(batches):  # noqa: ASYNC110 - the engine does not tell it
                    await asyncio.sleep(0.1)
        assert {(await ends(house, request_id))["status"] for request_id in asked} == {"completed"}
        assert {(await house.services.ledger.attempts.totals(request_id)).attempts for request_id in asked} == {1}
        assert EventKind.STEP_FAILED not in {
            event.kind for request_id in asked for event in (await house.progress(request_id)).events
        }


async def is_continued(handle: WorkflowHandle[object, object]) -> bool:
    """Whether a workflow's last run has a run before it."""
    try:
        (started, *_) = (await handle.fetch_history()).events
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return bool(started.workflow_execution_started_event_attributes.continued_execution_run_id)
