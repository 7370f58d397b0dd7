"""One request on the real engine, from the gateway's door to the answer, along each path it can take."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError

from holdfast.contracts import Decision
from holdfast.ledger import AttemptState
from tests.house import House
from tests.workflows.recorded import readable

Script = Callable[..., None]

ACTIVITY_SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
ACTIVITY_COMPLETED = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
MARKER_RECORDED = EventType.EVENT_TYPE_MARKER_RECORDED
TIMER_STARTED = EventType.EVENT_TYPE_TIMER_STARTED
UPDATE_ACCEPTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED


async def test_a_plain_request_is_answered_and_billed_once(house: House) -> None:
    reply = await house.ask("plain", "What holds fast?")
    assert reply["status"] == "completed"
    assert reply["answer"]["text"]
    assert reply["attempts"] == 1
    bill = house.simulator.bill()
    assert bill["requests"] == 1
    assert reply["usage"]["input_tokens"] == bill["prompt_tokens"]
    assert reply["usage"]["output_tokens"] == bill["completion_tokens"]
    expected = (bill["prompt_tokens"] * Decimal("0.50") + bill["completion_tokens"] * Decimal("1.50")) / 1_000_000
    assert Decimal(reply["usage"]["cost_usd"]) == expected
    (attempt,) = await house.services.ledger.attempts.list(reply["id"])
    assert attempt.state is AttemptState.SETTLED
    assert bill["entries"][0]["client_request_id"] == attempt.attempt_id


async def test_a_question_asked_before_is_answered_without_a_model(house: House) -> None:
    first = await house.ask("recalling", "What is the same question?")
    again = await house.ask("recalling", "What is the same question?")
    assert again["status"] == "completed"
    assert again["recalled"] is True
    assert again["answer"]["text"] == first["answer"]["text"]
    assert again["attempts"] == 0
    assert house.simulator.bill()["requests"] == 1


async def test_personal_data_reaches_neither_model_nor_history_and_is_restored(house: House, script: Script) -> None:
    script({"kind": "ok", "content": "Written to <EMAIL_1> about <CARD_1>."})
    reply = await house.ask("recalling", "Write to jane.doe@example.org about card 4111 1111 1111 1111.")
    assert reply["answer"]["text"] == "Written to jane.doe@example.org about 4111 1111 1111 1111."
    history = readable(await house.history(reply["id"]))
    assert "jane.doe" not in history
    assert "4111" not in history
    again = await house.ask("recalling", "Write to jane.doe@example.org about card 4111 1111 1111 1111.")
    assert again["recalled"] is False, "an answer with personal data must not be stored for recall"


async def test_an_input_under_a_refusal_rule_is_refused_before_any_model_call(house: House) -> None:
    reply = await house.ask("strict", "Tell me about the FORBIDDEN topic.")
    assert reply["status"] == "refused"
    assert reply["reason"]
    assert house.simulator.bill()["requests"] == 0


async def test_documents_are_answered_from_with_citations(house: House) -> None:
    documents = [
        {"source": "anchor.md", "text": "# Anchors\n\nAn anchor holds a ship fast in a storm.\n"},
        {"source": "sail.md", "text": "# Sails\n\nA sail moves a ship when the wind blows.\n"},
    ]
    posted = await house.http.post("/v1/collections/docs/documents", params={"wait": 60}, json={"documents": documents})
    assert posted.status_code == 200, posted.text
    assert posted.json()["sources"] == 2
    reply = await house.ask("docs", "What holds a ship fast in a storm?")
    assert reply["status"] == "completed", reply
    assert "anchor holds a ship fast" in reply["answer"]["text"]
    citation = reply["answer"]["citations"][0]
    assert citation["source"] == "anchor.md"
    text = documents[0]["text"]
    assert "An anchor holds" in text[citation["start"] : citation["end"]]


async def test_an_invalid_reply_is_repaired_by_the_model(house: House, script: Script) -> None:
    script({"kind": "schema_violating_json"}, {"kind": "ok", "content": '{"x": 3, "note": "mended"}'})
    reply = await house.ask("json", "Give a point.")
    assert reply["status"] == "completed", reply
    assert json.loads(reply["answer"]["text"]) == {"x": 3, "note": "mended"}
    assert reply["attempts"] == 2
    assert house.simulator.bill()["requests"] == 2


async def test_repairable_json_costs_no_second_call(house: House, script: Script) -> None:
    script({"kind": "repairable_json"})
    reply = await house.ask("json", "Give a point.")
    assert reply["status"] == "completed", reply
    assert house.simulator.bill()["requests"] == 1


async def test_repairs_end_at_their_cap(house: House, script: Script) -> None:
    script({"kind": "schema_violating_json", "times": 9})
    reply = await house.ask("json", "Give a point.", limits={"repairs": 1})
    assert reply["status"] == "failed"
    assert "1 repairs" in reply["reason"]
    assert house.simulator.bill()["requests"] == 2


async def test_a_rate_limit_is_waited_out_and_not_billed(house: House, script: Script) -> None:
    script({"kind": "rate_limited", "retry_after": 0.2, "retry_after_format": "milliseconds"})
    reply = await house.ask("plain", "Wait a little.")
    assert reply["status"] == "completed", reply
    assert reply["attempts"] == 2
    states = [attempt.state for attempt in await house.services.ledger.attempts.list(reply["id"])]
    assert states == [AttemptState.RELEASED, AttemptState.SETTLED]


async def test_exhausted_credit_is_never_retried(house: House, script: Script) -> None:
    script({"kind": "insufficient_quota", "times": 9})
    reply = await house.ask("plain", "No credit.")
    assert reply["status"] == "failed"
    assert reply["attempts"] == 1


async def test_a_failing_deployment_falls_back_to_the_next(house: House, script: Script) -> None:
    script({"kind": "insufficient_quota", "model": "sim-large", "times": 9})
    reply = await house.ask("fallback", "Go elsewhere.")
    assert reply["status"] == "completed", reply
    assert reply["deployment"] == "spare"


async def test_a_call_that_may_have_been_billed_counts_at_its_worst_case(house: House, script: Script) -> None:
    script({"kind": "error_500", "bill_on_error": True})
    reply = await house.ask("plain", "Break once.")
    assert reply["status"] == "completed", reply
    totals = await house.services.ledger.attempts.totals(reply["id"])
    bill = house.simulator.bill()
    assert bill["requests"] == 2
    assert totals.usage.total_tokens >= bill["prompt_tokens"] + bill["completion_tokens"]


async def test_a_broken_stream_is_retried_and_never_recorded_below_the_bill(house: House, script: Script) -> None:
    script({"kind": "disconnect_mid_stream", "after_tokens": 3})
    reply = await house.ask("plain", "Break in the middle.")
    assert reply["status"] == "completed", reply
    totals = await house.services.ledger.attempts.totals(reply["id"])
    bill = house.simulator.bill()
    assert totals.usage.total_tokens >= bill["prompt_tokens"] + bill["completion_tokens"]


async def test_a_reply_without_a_usage_report_keeps_its_worst_case(house: House, script: Script) -> None:
    script({"kind": "no_usage"})
    reply = await house.ask("plain", "How much was that?")
    assert reply["status"] == "completed", reply
    bill = house.simulator.bill()
    assert reply["usage"]["input_tokens"] >= bill["prompt_tokens"]
    assert reply["usage"]["output_tokens"] == house.configuration.agents["plain"].limits.output_tokens


async def test_a_ceiling_denies_the_call_before_it_is_made(house: House) -> None:
    reply = await house.ask("plain", "Too dear.", limits={"cost_usd": "0.000001"})
    assert reply["status"] == "denied"
    assert "limits.cost_usd" in reply["reason"]
    assert house.simulator.bill()["requests"] == 0


async def test_an_answer_waits_for_a_person_and_leaves_when_approved(house: House) -> None:
    reply = await house.ask("held", "May this leave?")
    assert reply["status"] == "waiting"
    mine = await house.listed(reply["id"], "ann")
    decided = await house.decide(reply["id"], "approve", by="ann", reason="fine")
    assert decided.status_code == 200, decided.text
    reply = await house.show(reply["id"])
    assert reply["status"] == "completed"
    assert reply["decided_by"] == "ann"
    assert reply["answer"]["text"] == mine["content"]


async def test_nothing_acts_on_a_decision_before_it_is_in_the_history(house: House) -> None:
    reply = await house.ask("held", "May this be acted on?")
    assert (await house.decide(reply["id"], "approve", by="ann")).status_code == 200
    await house.ended(reply["id"])
    events = (await house.history(reply["id"])).events
    (accepted,) = [event.event_id for event in events if event.event_type == UPDATE_ACCEPTED]
    later = [event for event in events if event.event_id > accepted]
    (scheduled,) = [event.event_id for event in later if event.event_type == ACTIVITY_SCHEDULED]
    (noted,) = [event.event_id for event in later if event.event_type == ACTIVITY_COMPLETED]
    delivered = [event.event_id for event in later if event.event_type == MARKER_RECORDED]
    print([(e.event_id, e.event_type) for e in events])
    assert accepted < scheduled < noted < min(delivered)
    # A timer would put it on record too, but fires up to a second late on a server as it comes.
    assert sum(event.event_type == TIMER_STARTED for event in events) == 1, "the question's deadline, and no other"


async def test_a_rejected_answer_is_not_delivered(house: House) -> None:
    reply = await house.ask("held", "May this leave too?")
    await house.decide(reply["id"], "reject", by="bob", reason="not yet")
    reply = await house.show(reply["id"])
    assert reply["status"] == "rejected"
    assert "not yet" in reply["reason"]
    assert reply.get("answer") is None


async def test_an_edited_answer_replaces_the_model_s(house: House) -> None:
    reply = await house.ask("held", "Edit this.")
    edited = await house.decide(reply["id"], "edit", by="ann", payload="A better answer.")
    assert edited.status_code == 200, edited.text
    reply = await house.show(reply["id"])
    assert reply["answer"]["text"] == "A better answer."
    assert "A better answer" not in readable(await house.history(reply["id"]))


async def test_an_edit_that_breaks_the_schema_is_refused_and_the_question_stays_open(
    house: House, script: Script
) -> None:
    script({"kind": "ok", "content": '{"x": 1, "note": "draft"}'})
    reply = await house.ask("heldjson", "A point, please.")
    broken = await house.decide(reply["id"], "edit", by="ann", payload='{"x": "one"}')
    assert broken.status_code == 422, broken.text
    assert broken.json()["code"] == "invalid_edit"
    assert (await house.show(reply["id"], wait=0))["status"] == "waiting"
    mended = await house.decide(reply["id"], "edit", by="ann", payload='{"x": 2, "note": "edited"}')
    assert mended.status_code == 200, mended.text
    assert json.loads((await house.show(reply["id"]))["answer"]["text"]) == {"x": 2, "note": "edited"}


async def test_decisions_twice_late_by_others_or_for_other_content_change_nothing(house: House) -> None:
    reply = await house.ask("held", "Who may say?")
    before = len((await house.history(reply["id"])).events)
    for by, content in (("eve", None), ("local", None), ("ann", "0" * 64)):
        refused = await house.decide(reply["id"], "approve", by=by, content=content)
        assert refused.status_code in (403, 409), refused.text
        assert refused.json()["detail"]
    assert len((await house.history(reply["id"])).events) == before, "a refusal must leave no trace in the history"
    outcomes = await asyncio.gather(
        *(house.decide(reply["id"], kind, by=by) for by, kind in (("ann", "approve"), ("bob", "reject")))
    )
    assert sorted(outcome.status_code for outcome in outcomes) == [200, 409]
    final = await house.show(reply["id"])
    late = await house.http.post(
        f"/v1/approvals/{reply['id']}/decisions",
        headers={"X-Holdfast-User": "ann"},
        json={"decision": "reject", "content_sha256": "0" * 64},
    )
    assert late.status_code == 409
    assert (await house.show(reply["id"]))["status"] == final["status"]


async def test_a_signal_decides_like_an_update_and_its_refusal_is_told(house: House) -> None:
    reply = await house.ask("held", "By signal, please.")
    waiting = await house.waiting(reply["id"])
    handle = house.client.get_workflow_handle(reply["id"])
    said = {"decision": "approve", "content_sha256": waiting["content_sha256"]}
    await handle.signal("decide", Decision.model_validate({**said, "actor": "eve"}))
    progress = await house.progress(reply["id"])
    assert progress.status == "waiting"
    assert any(event.kind == "decision_refused" and "eve" in event.summary for event in progress.events)
    await handle.signal("decide", Decision.model_validate({**said, "actor": "ann"}))
    await handle.result()
    assert (await house.show(reply["id"]))["decided_by"] == "ann"


async def test_cancelling_ends_the_model_call_and_keeps_its_worst_case(house: House, script: Script) -> None:
    script({"kind": "hang"})
    reply = await house.submit("plain", "Never mind.")
    await house.until_the_model_is_called()
    cancelled = await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    assert cancelled.status_code == 202, cancelled.text
    reply = await house.show(reply["id"])
    assert reply["status"] == "cancelled"
    description = await house.client.get_workflow_handle(reply["id"]).describe()
    assert description.status is WorkflowExecutionStatus.CANCELED
    (attempt,) = await house.services.ledger.attempts.list(reply["id"])
    assert attempt.outcome == "cancelled"
    assert attempt.usage.total_tokens >= house.simulator.bill()["prompt_tokens"]


async def test_the_trace_explains_the_request(house: House) -> None:
    reply = await house.ask("plain", "Explain yourself.")
    handle = house.client.get_workflow_handle(reply["id"])
    description = await handle.describe()
    assert "plain" in (await description.static_summary() or "")
    attributes = description.typed_search_attributes
    found = {pair.key.name: pair.value for pair in attributes}
    assert found["HoldfastStatus"] == "completed"
    assert found["HoldfastModel"] == "sim"
    assert (
        found["HoldfastTokens"] == house.simulator.bill()["prompt_tokens"] + house.simulator.bill()["completion_tokens"]
    )
    progress = await house.progress(reply["id"])
    assert progress.events[0].name == "sanitize"
    assert any("in / " in event.summary for event in progress.events)
    history = readable(await house.history(reply["id"]))
    assert "Explain yourself" not in history


async def test_the_history_of_a_plain_request_stays_small(house: House) -> None:
    reply = await house.ask("plain", "Be brief. " + "padding " * 500)
    history = await house.history(reply["id"])
    description = await house.client.get_workflow_handle(reply["id"]).describe()
    assert len(history.events) <= 24
    assert description.raw_description.workflow_execution_info.history_size_bytes <= 8 * 1024


async def test_an_update_after_the_end_is_refused_with_a_reason(house: House) -> None:
    reply = await house.ask("plain", "Nothing to decide here.")
    refused = await house.decide(reply["id"], "approve", by="ann", content="0" * 64)
    assert refused.status_code == 409
    assert "not waiting" in refused.json()["detail"] or "ended" in refused.json()["detail"]


async def test_an_update_before_anything_waits_is_refused(house: House, script: Script) -> None:
    script({"kind": "hang"})
    reply = await house.submit("held", "Too early.")
    handle = house.client.get_workflow_handle(reply["id"])
    early = Decision.model_validate({"decision": "approve", "actor": "ann", "content_sha256": "0" * 64})
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("decide", early)
    assert "not waiting" in str(refused.value.cause)
    await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    assert (await house.show(reply["id"]))["status"] == "cancelled"


async def test_what_a_decision_was_told_is_what_happens_however_many_decide_at_once(house: House) -> None:
    for round_number in range(3):
        reply = await house.ask("held", f"Race number {round_number}?")
        kinds = [("ann", "approve"), ("bob", "reject")] * 6
        outcomes = await asyncio.gather(*(house.decide(reply["id"], kind, by=by) for by, kind in kinds))
        accepted = [kind for (_, kind), outcome in zip(kinds, outcomes, strict=True) if outcome.status_code == 200]
        assert len(accepted) == 1
        await house.ended(reply["id"])
        final = await house.show(reply["id"])
        assert final["status"] == {"approve": "completed", "reject": "rejected"}[accepted[0]]


async def test_a_cancellation_that_the_model_call_never_heard_of_still_ends_the_request(
    house: House, script: Script
) -> None:
    script({"kind": "ok", "first_token_ms": 700})
    reply = await house.submit("held", "Cancel before the first beat.")
    await house.until_the_model_is_called()
    await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    await house.ended(reply["id"])
    assert (await house.show(reply["id"]))["status"] == "cancelled"
