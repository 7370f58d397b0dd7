"""Submitting, reading, listing and cancelling requests."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from gateway.submission import digest, keyed_id, new_id
from holdfast.configuration import Configuration
from holdfast.contracts import CURRENT_WALK, Answer, AnswerDocument, Citation, ContentRef, Status, Usage
from holdfast.ledger import FinishedRequest, Ledger
from holdfast.settings import GatewaySettings
from tests.gateway.recorded import Edge, opened, problem

GOOD = {"agent": "writer", "input": "Why?"}
ANN, BOB, OLGA = ({"Authorization": f"Bearer {key}"} for key in ("ka", "kb", "ko"))
USAGE = Usage(input_tokens=431, output_tokens=96, cost_usd=Decimal("0.0012"))
DOCUMENT = AnswerDocument(
    text="Because [1].", citations=(Citation(marker=1, source="README.md", start=0, end=9, quote="Because."),)
)


def answer(request_id: str = "", status: Status = Status.COMPLETED, **changes: Any) -> Answer:
    return Answer(request_id=request_id, status=status, usage=USAGE, attempts=1, **changes)


async def stored(ledger: Ledger, tenant: str = "local") -> ContentRef:
    return await ledger.contents.put(tenant, DOCUMENT.model_dump_json())


async def test_a_request_is_accepted_with_everything_pinned_and_stored(edge: Edge) -> None:
    response = await edge.ask(GOOD | {"session": "s1", "limits": {"tokens": 500, "deadline": "30m"}})
    assert response.status_code == 202
    [request] = edge.engine.submitted
    assert re.fullmatch(r"req_[0-9a-z]{26}", request.id)
    assert (request.tenant, request.user, request.tier, request.session) == ("local", "local", "standard", "s1")
    assert request.plan == edge.configuration.agents["writer"].plan
    assert (request.limits.tokens, request.limits.deadline) == (500, timedelta(minutes=30))
    assert request.limits.cost_usd == Decimal("0.50")
    assert await edge.ledger.contents.get("local", request.input) == "Why?"
    assert await edge.ledger.contents.get("local", request.plan.instructions) == "Answer briefly."
    assert response.headers["location"] == f"/v1/requests/{request.id}"
    assert response.json() == {
        "id": request.id,
        "status": "running",
        "agent": "writer",
        "user": "local",
        "session": "s1",
        "submitted_at": request.submitted_at.isoformat().replace("+00:00", "Z"),
        "links": {
            "self": f"/v1/requests/{request.id}",
            "trace": f"http://127.0.0.1:8233/namespaces/default/workflows/{request.id}",
            "events": f"/v1/requests/{request.id}/events",
            "cancel": f"/v1/requests/{request.id}/cancel",
        },
    }


async def test_every_limit_is_pinned_so_that_a_changed_default_cannot_change_a_running_request(edge: Edge) -> None:
    await edge.ask(GOOD | {"limits": {"tokens": 5}})
    [request] = edge.engine.submitted
    assert request.limits.model_fields_set == set(type(request.limits).model_fields)


async def test_a_request_that_ends_in_time_is_answered_at_once(edge: Edge) -> None:
    document = await stored(edge.ledger)
    edge.becomes(status=Status.COMPLETED, answer=answer(document=document, deployment="extractive"))
    response = await edge.http.post("/v1/requests", params={"wait": "2.5"}, json=GOOD)
    assert response.status_code == 200
    assert edge.engine.waits == [timedelta(seconds=2.5)]
    shown = response.json()
    assert shown["status"] == "completed"
    assert shown["answer"] == DOCUMENT.model_dump(mode="json")
    assert shown["usage"] == {
        "input_tokens": 431,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 96,
        "total_tokens": 527,
        "cost_usd": "0.0012",
    }
    assert (shown["attempts"], shown["deployment"], shown["recalled"]) == (1, "extractive", False)
    assert "cancel" not in shown["links"]


async def test_a_request_that_has_not_ended_in_time_is_accepted(edge: Edge) -> None:
    response = await edge.http.post("/v1/requests", params={"wait": "1"}, json=GOOD)
    assert (response.status_code, response.json()["status"]) == (202, "running")


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", "61"])
async def test_an_impossible_wait_is_refused_and_starts_nothing(edge: Edge, wait: str) -> None:
    response = await edge.http.post("/v1/requests", params={"wait": wait}, json=GOOD)
    problem(response, 400, "wait")
    assert edge.engine.submitted == []


async def test_the_same_key_and_body_give_the_same_request(edge: Edge) -> None:
    first = await edge.ask(GOOD, Idempotency_Key="k-1")
    again = await edge.ask({"input": "Why?", "agent": "writer"}, Idempotency_Key="k-1")
    assert first.json() == again.json()
    assert first.json()["id"] == keyed_id("req_", "local", "k-1")
    assert len(edge.engine.submitted) == 1
    other = await edge.ask(GOOD, Idempotency_Key="k-2")
    assert other.json()["id"] != first.json()["id"]


async def test_a_key_whose_request_has_ended_gives_its_answer(edge: Edge) -> None:
    await edge.ask(GOOD, Idempotency_Key="k-1")
    [execution] = edge.engine.executions.values()
    document = await stored(edge.ledger)
    edge.engine.put(replace(execution, status=Status.COMPLETED, answer=answer(document=document)))
    again = await edge.ask(GOOD, Idempotency_Key="k-1")
    assert again.status_code == 200
    assert again.json()["answer"]["text"] == DOCUMENT.text


async def test_an_unknown_agent_may_be_one_whose_file_is_newer_than_the_start(edge: Edge) -> None:
    document = problem(await edge.ask({"agent": "buyer", "input": "Why?"}), 422, "agent")
    assert "The files are read at start" in document["remedy"]
    assert "restart gateway and workers" in document["remedy"]


async def test_the_same_key_with_another_body_is_a_conflict(edge: Edge) -> None:
    first = await edge.ask(GOOD, Idempotency_Key="k-1")
    response = await edge.ask(GOOD | {"input": "What?"}, Idempotency_Key="k-1")
    document = problem(response, 409, None)
    assert first.json()["id"] in document["detail"]
    assert len(edge.engine.submitted) == 1


async def test_the_same_key_of_another_tenant_is_another_request(guarded: Edge) -> None:
    ids = {(await guarded.ask(GOOD, Idempotency_Key="k-1", **caller)).json()["id"] for caller in (ANN, OLGA)}
    assert len(ids) == 2


async def test_a_key_claimed_by_a_gateway_that_died_starts_its_request_when_it_comes_again(edge: Edge) -> None:
    request_id = keyed_id("req_", "local", "k-1")
    await edge.ledger.submissions.claim("local", "k-1", body_sha256=digest(GOOD), request_id=request_id)
    assert (await edge.ask(GOOD, Idempotency_Key="k-1")).status_code == 202
    [request] = edge.engine.submitted
    assert request.id == request_id
    # The claim may have stored the texts of an older version of the agent.
    assert await edge.ledger.contents.get("local", request.plan.instructions) == "Answer briefly."


async def test_a_key_outlives_the_engines_retention(edge: Edge) -> None:
    request_id = (await edge.ask(GOOD, Idempotency_Key="k-1")).json()["id"]
    edge.engine.executions.clear()
    await edge.ledger.finish(finished(request_id), document=DOCUMENT.model_dump_json())
    again = await edge.ask(GOOD, Idempotency_Key="k-1")
    assert (again.status_code, again.json()["answer"]["text"]) == (200, DOCUMENT.text)
    assert len(edge.engine.submitted) == 1


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "tab\there", " leads"])
async def test_an_unusable_key_is_refused(edge: Edge, key: str) -> None:
    problem(await edge.ask(GOOD, Idempotency_Key=key), 400, "Idempotency-Key")
    assert edge.engine.submitted == []


async def test_a_finished_request_is_read_from_the_ledger_after_the_engine_forgot_it(edge: Edge) -> None:
    request_id = new_id("req_")
    await edge.ledger.finish(finished(request_id), document=DOCUMENT.model_dump_json())
    response = await edge.http.get(f"/v1/requests/{request_id}")
    assert response.status_code == 200
    assert response.json()["answer"] == DOCUMENT.model_dump(mode="json")


async def test_a_failed_request_tells_what_the_ledger_knows(edge: Edge) -> None:
    request_id = (await edge.ask(GOOD)).json()["id"]
    bare = Answer(request_id=request_id, status=Status.FAILED, reason="The run failed; its trace says where.")
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.FAILED, answer=bare))
    await edge.ledger.finish(finished(request_id, Status.FAILED, reason="No deployment could answer."))
    shown = (await edge.http.get(f"/v1/requests/{request_id}")).json()
    assert (shown["status"], shown["reason"]) == ("failed", "No deployment could answer.")


async def test_an_answer_whose_text_was_pruned_is_shown_without_it(edge: Edge) -> None:
    request_id = (await edge.ask(GOOD)).json()["id"]
    gone = answer(request_id, document=ContentRef(sha256="0" * 64, size=1))
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.COMPLETED, answer=gone))
    response = await edge.http.get(f"/v1/requests/{request_id}")
    assert (response.status_code, response.json()["answer"]) == (200, None)


async def test_reading_waits_only_for_what_still_runs(edge: Edge) -> None:
    request_id = (await edge.ask(GOOD)).json()["id"]
    await edge.http.get(f"/v1/requests/{request_id}", params={"wait": "3"})
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.DENIED, answer=answer(request_id)))
    await edge.http.get(f"/v1/requests/{request_id}", params={"wait": "4"})
    assert edge.engine.waits == [timedelta(seconds=3)]


async def test_whoever_waits_is_answered_when_the_server_stops(configuration: Configuration, ledger: Ledger) -> None:
    gateway = opened(configuration, ledger)
    async with gateway as edge:
        edge.engine.holds = waiting = asyncio.Event()
        asked = asyncio.ensure_future(edge.http.post("/v1/requests", params={"wait": "60"}, json=GOOD))
        await waiting.wait()
        gateway.app.state.gateway.draining.set()
        assert (await asked).status_code == 202


async def test_another_tenants_request_is_answered_like_an_unknown_one(guarded: Edge) -> None:
    request_id = (await guarded.ask(GOOD, **ANN)).json()["id"]
    assert (await guarded.http.get(f"/v1/requests/{request_id}", headers=BOB)).status_code == 200
    for method, suffix in (("GET", ""), ("POST", "/cancel")):
        answers = []
        for known in (request_id, "req_unknown00000", "ing_notarequest"):
            response = await guarded.http.request(method, f"/v1/requests/{known}{suffix}", headers=OLGA)
            document = dict(problem(response, 404, "id"))
            del document["instance"], document["reference"]
            answers.append(document)
        assert answers[0] == answers[1] == answers[2]
    assert guarded.engine.cancelled == []


async def test_a_running_request_is_cancelled_and_an_ended_one_is_not(edge: Edge) -> None:
    request_id = (await edge.ask(GOOD)).json()["id"]
    response = await edge.http.post(f"/v1/requests/{request_id}/cancel")
    assert (response.status_code, response.json()["cancel_requested"]) == (202, True)
    assert edge.engine.cancelled == [request_id]
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.CANCELLED))
    problem(await edge.http.post(f"/v1/requests/{request_id}/cancel"), 409, "id")
    assert edge.engine.cancelled == [request_id]


async def test_a_request_has_the_place_in_the_queues_that_its_tier_has(guarded: Edge) -> None:
    for caller, expected in ((OLGA, (2, 2.0)), (ANN, (3, 1.0))):
        await guarded.ask(GOOD, **caller)
        request = guarded.engine.submitted[-1]
        assert (request.priority, request.weight, request.walk) == (*expected, CURRENT_WALK)
        assert "batch" not in request.model_fields_set


async def test_a_batch_request_goes_last_and_not_before_its_moment(guarded: Edge) -> None:
    opens = datetime.now(UTC) + timedelta(hours=3)
    written = opens.astimezone(timezone(timedelta(hours=2))).isoformat()
    assert (await guarded.ask(GOOD | {"batch": True, "not_before": written}, **OLGA)).status_code == 202
    [request] = guarded.engine.submitted
    assert (request.batch, request.priority, request.not_before) == (True, 5, opens)


@pytest.mark.parametrize(
    "moment",
    ["tomorrow", 1_800_000_000, True, "2999-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-14:00"],
)
async def test_a_moment_that_is_none_or_comes_too_late_is_refused(edge: Edge, moment: object) -> None:
    problem(await edge.ask(GOOD | {"not_before": moment}), 422, "not_before")
    assert edge.engine.submitted == []


async def test_a_moment_without_its_offset_is_refused(edge: Edge) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None).isoformat()
    refused = problem(await edge.ask(GOOD | {"not_before": soon}), 422, "not_before")
    assert "offset" in refused["detail"]


async def test_requests_are_listed_with_filters_and_a_mark_when_there_are_more(guarded: Edge) -> None:
    for _ in range(3):
        await guarded.ask(GOOD, **ANN)
    query = {"status": "running", "agent": "writer", "limit": "2"}
    listed = (await guarded.http.get("/v1/requests", params=query, headers=ANN)).json()
    assert guarded.engine.queries == [("acme", Status.RUNNING, "writer", 3)]
    assert (len(listed["requests"]), listed["more"]) == (2, True)
    others = (await guarded.http.get("/v1/requests", headers=OLGA)).json()
    assert others == {"requests": [], "more": False}


@pytest.mark.parametrize(
    ("query", "field"), [({"status": "done"}, "status"), ({"limit": "0"}, "limit"), ({"agent": "a'b\\"}, "agent")]
)
async def test_an_unusable_filter_is_refused(edge: Edge, query: dict[str, str], field: str) -> None:
    problem(await edge.http.get("/v1/requests", params=query), 400, field)


def finished(request_id: str, status: Status = Status.COMPLETED, **changes: Any) -> FinishedRequest:
    return FinishedRequest(
        tenant="local",
        user="local",
        agent="writer",
        plan_version="0123456789abcdef",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        finished_at=datetime(2026, 1, 2, tzinfo=UTC),
        answer=answer(request_id, status, **changes),
    )


def test_new_ids_sort_by_time_and_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for milliseconds in (1, 2, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1):
        monkeypatch.setattr("gateway.submission.time.time_ns", lambda now=milliseconds: now * 1_000_000)
        ids.append(new_id("req_"))
    assert ids == sorted(ids)
    assert len({new_id("req_") for _ in range(100)}) == 100


def test_settings_bound_the_wait() -> None:
    assert GatewaySettings().max_wait == timedelta(seconds=60)
