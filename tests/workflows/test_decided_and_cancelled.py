"""A decision and a cancellation in one moment: the request ends as one of them, and a receipt is never taken back."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from unittest.mock import patch

import httpx
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus

from holdfast.configuration import reference
from holdfast.ledger import ApprovalEvent, Delivery
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.test_approvals import AGENTS, PEOPLE, Script, asked, question_of
from tests.workflows.workshop import TOOLS, WORKSHOP

REFUND = {"name": "refund", "arguments": {"order": "A7", "amount": 90}}
ANOTHER = {"name": "refund", "arguments": {"order": "B8", "amount": 10}}
NOT_MADE = "bob had approved the call of 'refund', but it was not made."


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose agents ask several people."""
    directory = tmp_path_factory.mktemp("house")
    # A run whose record is held hears of anything else only when its task is four fifths over.
    short = {"workflow_task_timeout": timedelta(seconds=5)}
    async with open_house(
        directory, temporal_client, agents=AGENTS, tools=TOOLS, people=PEOPLE, engine=short
    ) as opened:
        yield opened


@pytest.fixture(autouse=True)
def empty_workshop() -> None:
    """Nothing was refunded yet."""
    WORKSHOP.reset()


@dataclass
class Hold:
    """A record that is not made before the test lets it."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


@contextmanager
def holding(house: House, request_id: str, happening: str) -> Iterator[Hold]:
    """Hold the record of what happens to one request, so that the run stands between a decision and its effect."""
    hold, events = Hold(), house.services.ledger.approval_events
    record = events.record

    async def held(event: ApprovalEvent, deliveries: Sequence[Delivery] = ()) -> tuple[str, ...]:
        if (event.request_id, event.happening) == (request_id, happening):
            hold.begun.set()
            await hold.released.wait()
        return await record(event, deliveries)

    with patch.object(events, "record", held):
        try:
            yield hold
        finally:
            hold.released.set()


async def cancel(house: House, request_id: str) -> httpx.Response:
    """Ask the request to stop."""
    return await house.http.post(f"/v1/requests/{request_id}/cancel")


async def heard_of_it(house: House, request_id: str) -> None:
    """Wait until the run has worked on the cancellation."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            kinds = [event.event_type for event in (await house.history(request_id)).events]
            if EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED in kinds:
                after = kinds[kinds.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED) :]
                if EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in after:
                    return
            await asyncio.sleep(0.05)


async def engine_says(house: House, request_id: str) -> WorkflowExecutionStatus | None:
    """How the run ended for the engine."""
    return (await house.client.get_workflow_handle(request_id).describe()).status


async def rows(house: House, request_id: str) -> list[tuple[int, str, str | None]]:
    """Round, happening and reason of what is on record, in its order."""
    reply = await house.http.get("/v1/approvals/history", params={"request_id": request_id})
    found = sorted(reply.json()["events"], key=lambda row: int(row["sequence"]))
    return [(row["round"], row["happening"], row["reason"]) for row in found]


@pytest.mark.parametrize(("last", "ends"), [("approve", "completed"), ("reject", "rejected")])
async def test_a_cancellation_after_the_last_decision_on_the_answer_comes_too_late(
    house: House, last: str, ends: str
) -> None:
    request_id = await asked(house, "jointly")
    assert (await house.decide(request_id, "approve", by="ann")).status_code == 200
    with holding(house, request_id, "approved" if last == "approve" else "rejected") as hold:
        receipt = await house.decide(request_id, last, by="bob", reason="decided")
        assert (receipt.status_code, receipt.json()["final"]) == (200, True)
        await hold.begun.wait()
        assert (await cancel(house, request_id)).status_code == 202
        await heard_of_it(house, request_id)
    await house.ended(request_id)
    final = await house.show(request_id)
    assert (final["status"], final["decided_by"]) == (ends, "bob")
    assert (final["answer"] is not None) is (ends == "completed")
    assert await engine_says(house, request_id) is WorkflowExecutionStatus.COMPLETED
    happened = [happening for _, happening, _ in await rows(house, request_id)]
    assert happened == ["opened", "voted", "approved" if last == "approve" else "rejected"]


async def test_a_decision_after_the_cancellation_is_refused(house: House) -> None:
    request_id = await asked(house, "jointly")
    assert (await house.decide(request_id, "approve", by="ann")).status_code == 200
    with holding(house, request_id, "closed") as hold:
        await cancel(house, request_id)
        await hold.begun.wait()
        late = await house.decide(request_id, "approve", by="bob")
        assert (late.status_code, late.json()["code"]) == (409, "not_open")
    await house.ended(request_id)
    final = await house.show(request_id)
    assert (final["status"], final["decided_by"], final["reason"]) == ("cancelled", None, "Cancelled by the caller.")
    assert [happening for _, happening, _ in await rows(house, request_id)] == ["opened", "voted", "closed"]


async def test_whichever_comes_first_of_both_at_once_the_receipt_agrees_with_the_ending(house: House) -> None:
    for number in range(6):
        request_id = await asked(house, "held")
        both = [house.decide(request_id, "approve", by="ann"), cancel(house, request_id)]
        outcomes = await asyncio.gather(*(both if number % 2 else reversed(both)))
        decided = outcomes[0 if number % 2 else 1]
        await house.ended(request_id)
        final = await house.show(request_id)
        assert (final["status"], decided.status_code) in [("completed", 200), ("cancelled", 409)], decided.text
        assert (final["decided_by"] == "ann") is (decided.status_code == 200)
        happened = [happening for _, happening, _ in await rows(house, request_id)]
        assert happened == ["opened", "approved" if decided.status_code == 200 else "closed"]


async def test_a_decision_and_a_cancellation_that_reach_the_run_in_one_task_do_not_both_count(
    house: House, script: Script
) -> None:
    script({"kind": "ok", "content": "An answer.", "first_token_ms": 500})
    request_id = (await house.submit("held", "May this leave?"))["id"]
    with holding(house, request_id, "opened") as hold:
        # While the first record is made the run's task is under way, so that both wait for the next one.
        await hold.begun.wait()
        assert (await cancel(house, request_id)).status_code == 202
        said = {"decision": "approve", "by": "ann", "content": reference("An answer.").sha256}
        decided = await house.decide(request_id, **said)
    await house.ended(request_id)
    final = await house.show(request_id)
    assert (final["status"], decided.status_code) in [("completed", 200), ("cancelled", 409)], decided.text
    happened = [happening for _, happening, _ in await rows(house, request_id)]
    assert happened == ["opened", "approved" if decided.status_code == 200 else "closed"]


async def test_an_approved_call_that_a_cancellation_overtakes_is_not_made_and_told_so(
    house: House, script: Script
) -> None:
    script({"kind": "tool_calls", "tool_calls": [REFUND]}, {"kind": "ok", "content": "Done."})
    request_id = await asked(house, "payer", "Refund A7.")
    await house.decide(request_id, "approve", by="ann")
    with holding(house, request_id, "approved") as hold:
        assert (await house.decide(request_id, "approve", by="bob")).json()["final"] is True
        await hold.begun.wait()
        await cancel(house, request_id)
        await heard_of_it(house, request_id)
    await house.ended(request_id)
    final = await house.show(request_id)
    assert (final["status"], final["reason"]) == ("cancelled", f"Cancelled by the caller. {NOT_MADE}")
    assert WORKSHOP.refunds == []
    told = await rows(house, request_id)
    assert [happening for _, happening, _ in told] == ["opened", "voted", "approved", "closed"]
    assert told[-1][2] == f"The request ended first. {NOT_MADE}"


async def test_a_call_approved_before_another_question_that_is_cancelled_is_told_too(
    house: House, script: Script
) -> None:
    script({"kind": "tool_calls", "tool_calls": [REFUND, ANOTHER]}, {"kind": "ok", "content": "Done."})
    request_id = await asked(house, "payer", "Refund A7 and B8.")
    for by in ("ann", "bob"):
        await house.decide(request_id, "approve", by=by, content=(await question_of(house, request_id)).content.sha256)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await house.show(request_id))["approval"]["round"] != 2:  # noqa: ASYNC110 - the question has no event
            await asyncio.sleep(0.05)
    await cancel(house, request_id)
    await house.ended(request_id)
    assert (await house.show(request_id))["reason"] == f"Cancelled by the caller. {NOT_MADE}"
    assert WORKSHOP.refunds == []
    told = [(number, happening) for number, happening, _ in await rows(house, request_id)]
    assert told[-3:] == [(2, "opened"), (2, "closed"), (1, "closed")]


async def test_what_is_done_is_not_told_as_left_undone(house: House, script: Script) -> None:
    script({"kind": "tool_calls", "tool_calls": [REFUND]}, {"kind": "unauthorized", "times": 9})
    request_id = await asked(house, "payer", "Refund A7.")
    for by in ("ann", "bob"):
        await house.decide(request_id, "approve", by=by)
    await house.ended(request_id)
    final = await house.show(request_id)
    assert final["status"] == "failed"
    assert "approved" not in final["reason"]
    assert len(WORKSHOP.refunds) == 1
    assert [happening for _, happening, _ in await rows(house, request_id)] == ["opened", "voted", "approved"]
