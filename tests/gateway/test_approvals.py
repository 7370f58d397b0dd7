"""The inbox and the decisions."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.contracts import Approval, ContentRef, DecisionKind, Passage, Status
from holdfast.errors import DecisionRefused
from tests.gateway.recorded import Edge, problem

ANN, BOB, OLGA = ({"Authorization": f"Bearer {key}"} for key in ("ka", "kb", "ko"))
CONTENT = "Because of [2], see <EMAIL_1>."
OPENED = datetime(2026, 1, 1, 9, tzinfo=UTC)


async def held(edge: Edge) -> tuple[str, str]:
    """A request of ann that waits for bob: its id and the digest of its content."""
    request_id = (await edge.ask({"agent": "docs", "input": "Why?"}, **ANN)).json()["id"]
    [request] = edge.engine.submitted
    assert request.plan.approval is not None
    content = await edge.ledger.contents.put("acme", CONTENT)
    passages = [
        Passage(source=f"{name}.md", start=0, end=4, text=name, score=0.5).model_dump(mode="json")
        for name in ("one", "two")
    ]
    approval = Approval(
        request_id=request_id,
        content=content,
        passages=await edge.ledger.contents.put("acme", json.dumps(passages)),
        rule=request.plan.approval,
        requested_by="ann",
        opened_at=OPENED,
        deadline=OPENED + timedelta(hours=24),
    )
    edge.engine.put(replace(edge.engine.executions[request_id], status=Status.WAITING, approval=approval))
    return request_id, content.sha256


async def decide(edge: Edge, request_id: str, body: dict[str, Any], **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in (BOB | headers).items()}
    return await edge.http.post(f"/v1/approvals/{request_id}/decisions", json=body, headers=names)


async def test_the_inbox_shows_exactly_what_a_decision_is_about(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    [shown] = (await guarded.http.get("/v1/approvals", headers=BOB)).json()["approvals"]
    assert shown == {
        "request_id": request_id,
        "agent": "docs",
        "requested_by": "ann",
        "content": CONTENT,
        "content_sha256": sha256,
        "passages": [
            {"marker": 1, "cited": False, "source": "one.md", "start": 0, "end": 4, "text": "one"},
            {"marker": 2, "cited": True, "source": "two.md", "start": 0, "end": 4, "text": "two"},
        ],
        "kind": "output",
        "approvers": ["bob"],
        "requester_may_decide": False,
        "may_decide": True,
        "default": "reject",
        "opened_at": "2026-01-01T09:00:00Z",
        "deadline": "2026-01-02T09:00:00Z",
        "round": 1,
        "tokens": 0,
        "cost_usd": "0",
        "links": {
            "request": f"/v1/requests/{request_id}",
            "decide": f"/v1/approvals/{request_id}/decisions",
            "trace": f"http://127.0.0.1:8233/namespaces/default/workflows/{request_id}",
        },
    }


async def test_the_inbox_of_another_tenant_stays_empty(guarded: Edge) -> None:
    await held(guarded)
    assert (await guarded.http.get("/v1/approvals", headers=OLGA)).json() == {"approvals": []}


async def test_a_text_that_was_pruned_does_not_hide_the_rest_of_the_inbox(guarded: Edge) -> None:
    request_id, _ = await held(guarded)
    execution = guarded.engine.executions[request_id]
    assert execution.approval is not None
    gone = execution.approval.model_copy(update={"content": ContentRef(sha256="0" * 64, size=1)})
    guarded.engine.put(replace(execution, request_id="req_pruned000", approval=gone))
    shown = (await guarded.http.get("/v1/approvals", headers=BOB)).json()["approvals"]
    assert {row["request_id"]: row["content"] for row in shown} == {request_id: CONTENT, "req_pruned000": None}


async def test_a_waiting_request_tells_how_to_decide(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    response = await guarded.http.get(f"/v1/requests/{request_id}", headers=ANN)
    shown = response.json()
    assert (response.status_code, shown["status"]) == (200, "waiting")
    assert shown["approval"]["content_sha256"] == sha256
    assert shown["links"]["decide"] == f"/v1/approvals/{request_id}/decisions"


async def test_an_approval_is_handed_over_in_the_name_of_the_key(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    body = {"decision": "approve", "content_sha256": sha256, "reason": "fine"}
    response = await decide(guarded, request_id, body, X_Holdfast_User="ann")
    assert response.status_code == 200
    assert response.json()["actor"] == "bob"
    [(decided, decision, _)] = guarded.engine.decisions
    assert (decided, decision.decision, decision.actor) == (request_id, DecisionKind.APPROVE, "bob")
    assert (decision.content_sha256, decision.reason, decision.payload) == (sha256, "fine", None)


async def test_an_edit_travels_as_a_reference(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    await decide(guarded, request_id, {"decision": "edit", "content_sha256": sha256, "payload": "Better."})
    [(_, decision, _)] = guarded.engine.decisions
    assert decision.payload is not None
    assert decision.payload_text is None
    assert await guarded.ledger.contents.get("acme", decision.payload) == "Better."


async def test_a_repeated_decision_has_the_same_id_and_another_has_not(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    approve = {"decision": "approve", "content_sha256": sha256}
    await decide(guarded, request_id, approve, Idempotency_Key="k")
    await decide(guarded, request_id, approve, Idempotency_Key="k")
    await decide(guarded, request_id, approve | {"decision": "reject"}, Idempotency_Key="k")
    await decide(guarded, request_id, approve, Idempotency_Key="k", Authorization="Bearer ka")
    await decide(guarded, request_id, approve)
    ids = [update_id for _, _, update_id in guarded.engine.decisions]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"decision": "aprove"}, "decision"),
        ({"content_sha256": "abc"}, "content_sha256"),
        ({"decision": "edit"}, "payload"),
        ({"decision": "edit", "payload": ""}, "payload"),
        ({"payload": "x"}, "payload"),
        ({"reason": "x" * 2_001}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"resaon": "x"}, "resaon"),
    ],
)
async def test_a_decision_that_makes_no_sense_is_not_handed_over(
    guarded: Edge, changes: dict[str, str], field: str
) -> None:
    request_id, sha256 = await held(guarded)
    response = await decide(guarded, request_id, {"decision": "approve", "content_sha256": sha256} | changes)
    problem(response, 422, field)
    assert guarded.engine.decisions == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not_open", 409),
        ("already_decided", 409),
        ("too_late", 409),
        ("other_content", 409),
        ("not_named", 403),
        ("own_request", 403),
        ("no_payload", 422),
    ],
)
async def test_a_refused_decision_says_why(guarded: Edge, code: str, status: int) -> None:
    request_id, sha256 = await held(guarded)
    guarded.engine.refusal = DecisionRefused("Because of the rule.", code=code)
    response = await decide(guarded, request_id, {"decision": "approve", "content_sha256": sha256})
    document = problem(response, status, None)
    assert (document["code"], document["detail"]) == (code, "Because of the rule.")


async def test_another_tenants_request_cannot_be_decided(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    body = {"decision": "edit", "content_sha256": sha256, "payload": "Mine."}
    problem(await decide(guarded, request_id, body, Authorization="Bearer ko"), 404, "id")
    assert guarded.engine.decisions == []
