"""The inbox and the decisions."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

from gateway.earlier_calls import MOST_CALLS
from gateway.execution import Execution
from holdfast.configuration import Configuration
from holdfast.contracts import (
    Answer,
    Approval,
    ApprovalHappening,
    ApprovalRule,
    ContentRef,
    DecisionKind,
    DecisionReceipt,
    EscalationStage,
    Passage,
    Status,
    ToolCall,
    Turn,
    Vote,
)
from holdfast.errors import DecisionRefused
from holdfast.ledger import ApprovalEvent, Ledger
from holdfast.preparation import TRANSCRIPT
from holdfast.tools.results import shown_result
from tests.gateway.recorded import Edge, opened, problem, text_of

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
        "subject": "",
        "why": "",
        "rule_why": "",
        "asked": None,
        "draft": None,
        "approvers": ["bob"],
        "stage": 0,
        "stages": 1,
        "quorum": 1,
        "missing": 1,
        "votes": [],
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


async def test_the_inbox_shows_how_a_question_stands(guarded: Edge) -> None:
    request_id, _ = await held(guarded)
    execution = guarded.engine.executions[request_id]
    assert execution.approval is not None
    draft, asked = [await guarded.ledger.contents.put("acme", text) for text in ("A draft.", "Why?")]
    rule = execution.approval.rule.model_copy(
        update={
            "why": "Long answers are read first.",
            "quorum": 3,
            "escalation": (EscalationStage(approvers=("*",), within=timedelta(hours=1)),),
        }
    )
    vote = Vote(actor="cid", content_sha256=execution.approval.content.sha256, at=OPENED, reason="fine")
    changes = {"rule": rule, "draft": draft, "asked": asked, "stage": 1, "votes": (vote,), "why": "it is long"}
    guarded.engine.put(replace(execution, approval=execution.approval.model_copy(update=changes)))
    [shown] = (await guarded.http.get("/v1/approvals", headers=BOB)).json()["approvals"]
    assert (shown["draft"], shown["asked"]) == ("A draft.", "Why?")
    assert (shown["why"], shown["rule_why"]) == ("it is long", "Long answers are read first.")
    assert (shown["approvers"], shown["stage"], shown["stages"]) == (["*"], 1, 2)
    assert (shown["quorum"], shown["missing"]) == (3, 2)
    assert shown["votes"] == [{"actor": "cid", "at": "2026-01-01T09:00:00Z", "reason": "fine"}]
    assert shown["may_decide"] is True


async def test_one_question_shows_what_was_called_before_it(guarded: Edge) -> None:
    request_id, _ = await held(guarded)
    execution = guarded.engine.executions[request_id]
    assert execution.approval is not None
    calls = tuple(ToolCall(id=str(number), name="read_page", arguments="{}") for number in range(MOST_CALLS + 1))
    results = [
        Turn(role="tool", tool_call_id=call.id, content=shown_result("A page.", request_id, call.id, "web"))
        for call in calls
    ]
    turns = TRANSCRIPT.dump_json((Turn(role="assistant", tool_calls=calls), *results)).decode()
    told = execution.approval.model_copy(update={"transcript": await guarded.ledger.contents.put("acme", turns)})
    guarded.engine.put(replace(execution, approval=told))
    shown = (await guarded.http.get(f"/v1/approvals/{request_id}", headers=BOB)).json()
    [listed] = (await guarded.http.get("/v1/approvals", headers=BOB)).json()["approvals"]
    before = shown.pop("before")
    assert shown == listed
    assert before["left_out"] == 1
    assert before["calls"] == MOST_CALLS * [
        {"name": "read_page", "arguments": "{}", "result": "A page.", "from_outside": True, "cut": False}
    ]


async def test_one_question_is_shown_only_to_those_who_are_asked_and_while_it_is_open(guarded: Edge) -> None:
    request_id, _ = await held(guarded)
    address = f"/v1/approvals/{request_id}"
    assert (await guarded.http.get(address, headers=BOB)).json()["before"] == {"calls": [], "left_out": 0}
    assert problem(await guarded.http.get(address, headers=ANN), 403, None)["code"] == "not_named"
    problem(await guarded.http.get(address, headers=OLGA), 404, "id")
    execution = guarded.engine.executions[request_id]
    guarded.engine.put(replace(execution, status=Status.RUNNING, approval=None))
    assert problem(await guarded.http.get(address, headers=BOB), 409, None)["code"] == "not_open"


@pytest.mark.parametrize("voter", ["bob", "cid"])
async def test_whoever_has_voted_or_asked_is_told_that_others_decide(guarded: Edge, voter: str) -> None:
    request_id, sha256 = await held(guarded)
    execution = guarded.engine.executions[request_id]
    assert execution.approval is not None
    vote = Vote(actor=voter, content_sha256=sha256, at=OPENED)
    guarded.engine.put(replace(execution, approval=execution.approval.model_copy(update={"votes": (vote,)})))
    may = {}
    for name, headers in (("bob", BOB), ("ann", ANN)):
        [shown] = (await guarded.http.get("/v1/approvals", headers=headers)).json()["approvals"]
        may[name] = shown["may_decide"]
    assert may == {"bob": voter != "bob", "ann": False}


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


async def test_a_decision_states_the_roles_of_its_moment(
    configuration: Configuration, ledger: Ledger, tmp_path: Path
) -> None:
    people = tmp_path / "people.toml"
    people.write_text('[tenants.acme.roles]\nfinance = ["bob"]\nlegal = ["bob", "ann"]\n')
    keys = "ka=acme/ann,kb=acme/bob,ko=other/olga"
    async with opened(configuration, ledger, api_keys=keys, config_dir=tmp_path) as edge:
        request_id, sha256 = await held(edge)
        said = {"decision": "escalate", "content_sha256": sha256, "round": 1, "reason": "not mine"}
        await decide(edge, request_id, said)
        people.write_text('[tenants.acme.roles]\nlegal = ["bob", "ann"]\n')
        await decide(edge, request_id, said)
    [(_, before, _), (_, after, _)] = edge.engine.decisions
    assert (before.decision, before.round, before.reason) == (DecisionKind.ESCALATE, 1, "not mine")
    assert (before.roles, after.roles) == (("finance", "legal"), ("legal",))


async def test_the_list_is_asked_for_by_every_name_of_the_caller(
    configuration: Configuration, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "people.toml").write_text('[tenants.acme.roles]\nfinance = ["bob"]\n')
    async with opened(configuration, ledger, api_keys="kb=acme/bob", config_dir=tmp_path) as edge:
        asked: list[Sequence[str]] = []

        async def approvals(tenant: str, names: Sequence[str], limit: int, offset: int = 0) -> list[Execution]:
            asked.append(names)
            return []

        with patch.object(edge.engine, "approvals", approvals):
            await edge.http.get("/v1/approvals", headers=BOB)
    assert asked == [("bob", "*", "role:finance")]


async def test_the_history_of_approvals_is_the_tenant_s_own(guarded: Edge) -> None:
    for number, (tenant, happening) in enumerate([("acme", "opened"), ("acme", "approved"), ("other", "opened")], 1):
        await guarded.ledger.approval_events.record(
            ApprovalEvent(
                tenant=tenant,
                request_id=f"req_0000000{tenant[0]}",
                sequence=number,
                agent="docs",
                round=1,
                kind="output",
                subject="",
                happening=cast(ApprovalHappening, happening),
                actor="bob" if happening == "approved" else None,
                reason=None,
                content_sha256="c" * 64,
                stage=0,
                approvers=("bob",),
                deadline=OPENED + timedelta(hours=24),
                at=OPENED + timedelta(hours=number),
            )
        )
    listed = (await guarded.http.get("/v1/approvals/history", headers=BOB)).json()["events"]
    assert [(row["happening"], row["actor"], row["at"]) for row in listed] == [
        ("approved", "bob", "2026-01-01T11:00:00Z"),
        ("opened", None, "2026-01-01T10:00:00Z"),
    ]
    assert listed[0]["links"]["request"] == "/v1/requests/req_0000000a"
    since = await guarded.http.get("/v1/approvals/history?since=2026-01-01T10:30:00Z", headers=BOB)
    assert [row["happening"] for row in since.json()["events"]] == ["approved"]
    without_zone = await guarded.http.get("/v1/approvals/history?since=2026-01-01T10:30:00", headers=BOB)
    problem(without_zone, 400, "since")


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
        ({"decision": "escalate", "payload": "x"}, "payload"),
        ({"round": 0}, "round"),
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
        ("already_voted", 409),
        ("no_escalation", 409),
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


def happened(
    request_id: str, happening: ApprovalHappening, actor: str | None, hour: int, **changes: Any
) -> ApprovalEvent:
    """A row of a request's record."""
    row = ApprovalEvent(
        tenant="acme",
        request_id=request_id,
        sequence=hour,
        agent="docs",
        round=1,
        kind="output",
        subject="",
        happening=happening,
        actor=actor,
        reason="a secret of ours",
        content_sha256="c" * 64,
        stage=0,
        approvers=("bob",),
        deadline=OPENED + timedelta(hours=24),
        at=OPENED + timedelta(hours=hour),
    )
    return replace(row, **changes)


async def late(edge: Edge, rows: Sequence[ApprovalEvent], answer: Answer, sha256: str, **more: Any) -> Any:
    """What bob is told whose decision comes after the end of the only request, by its record and its answer."""
    for row in rows:
        await edge.ledger.approval_events.record(row)
    [execution] = edge.engine.executions.values()
    edge.engine.put(replace(execution, status=answer.status, approval=None, answer=answer))
    edge.engine.refusal = DecisionRefused("It has ended.", code="not_open")
    refused = await decide(edge, execution.request_id, {"decision": "reject", "content_sha256": sha256} | more)
    document = problem(refused, 409, None)
    assert "secret" not in text_of(refused)
    return document


async def test_a_decision_after_the_end_is_told_who_decided_what_and_when(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    rows = [
        happened(request_id, "opened", None, 1, content_sha256=sha256),
        happened(request_id, "edited", "cid", 2),
        happened(request_id, "opened", None, 3, round=2, content_sha256="d" * 64),
        happened(request_id, "rejected", None, 4, round=2, content_sha256="d" * 64),
    ]
    answer = Answer(request_id=request_id, status=Status.COMPLETED)
    document = await late(guarded, rows, answer, sha256)
    assert (document["code"], document["detail"]) == (
        "already_decided",
        "'cid' already decided 'edit' at 2026-01-01 11:00:00 UTC; a decision is final. The request has ended as "
        "'completed'.",
    )
    by_default = await late(guarded, (), answer, "e" * 64, round=2)
    assert "Nobody decided in time, so the agent's rule decided 'reject' at 2026-01-01 13:00" in by_default["detail"]
    shown = await guarded.http.get(f"/v1/approvals/{request_id}", headers=BOB)
    assert problem(shown, 409, None)["code"] == "already_decided"


async def test_a_decision_that_is_not_yet_on_record_is_told_from_the_run(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    receipt = DecisionReceipt(
        request_id=request_id, decision=DecisionKind.REJECT, actor="cid", content_sha256=sha256, decided_at=OPENED
    )
    of_delegate = receipt.model_copy(update={"request_id": "req_delegate", "actor": "eve"})
    answer = Answer(request_id=request_id, status=Status.REJECTED, decisions=(receipt, of_delegate))
    document = await late(guarded, (), answer, sha256)
    assert document["detail"].startswith("'cid' already decided 'reject' at 2026-01-01 09:00:00 UTC")
    forgotten = await late(guarded, (), answer.model_copy(update={"decisions": (), "decided_by": "cid"}), sha256)
    assert (forgotten["code"], "'cid' decided on it" in forgotten["detail"]) == ("already_decided", True)


async def test_a_decision_on_what_ended_undecided_is_told_how_it_ended(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    rows = [
        happened(request_id, "approved", "cid", 1, kind="tool", subject="refund"),
        happened(request_id, "opened", None, 2, content_sha256=sha256),
        happened(request_id, "closed", None, 3, content_sha256=sha256),
    ]
    earlier = DecisionReceipt(
        request_id=request_id, decision=DecisionKind.APPROVE, actor="cid", content_sha256="c" * 64, decided_at=OPENED
    )
    answer = Answer(request_id=request_id, status=Status.CANCELLED, decided_by="cid", decisions=(earlier,))
    document = await late(guarded, rows, answer, sha256)
    assert (document["code"], document["detail"]) == (
        "not_open",
        f"Request {request_id!r} has ended as 'cancelled' before anybody decided; there is nothing left to decide.",
    )
    assert "`holdfast approvals list`" in document["remedy"]


async def test_whoever_may_not_decide_is_told_who_may(
    configuration: Configuration, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "people.toml").write_text(
        '[tenants.local.roles]\nfinance = ["dan", "ann", "bob"]\n[tenants.acme.roles]\nfinance = ["dan"]\n'
    )
    refusal = DecisionRefused("'mallory' is not among the approvers: role:finance, eve.", code="not_named")
    for keys, headers, words in (
        ("", {"X-Holdfast-User": "mallory"}, "by dan, bob or eve. Who one is says `--user` on the command line"),
        ("ka=acme/ann,kb=acme/bob", BOB, "by eve or somebody with the role finance. Who one is says the API key."),
    ):
        async with opened(configuration, ledger, api_keys=keys, config_dir=tmp_path) as edge:
            await edge.ask({"agent": "docs", "input": "Why?"}, **(ANN if keys else {"X-Holdfast-User": "ann"}))
            [execution] = edge.engine.executions.values()
            rule = ApprovalRule(approvers=("role:finance", "eve"))
            content = ContentRef(sha256="c" * 64, size=1)
            asked = Approval(
                request_id=execution.request_id,
                content=content,
                rule=rule,
                requested_by="ann",
                opened_at=OPENED,
                deadline=OPENED + timedelta(hours=24),
            )
            edge.engine.put(replace(execution, status=Status.WAITING, approval=asked))
            edge.engine.refusal = refusal
            address = f"/v1/approvals/{execution.request_id}"
            for response in (
                await edge.http.get(address, headers=headers),
                await edge.http.post(
                    f"{address}/decisions",
                    json={"decision": "approve", "content_sha256": content.sha256},
                    headers=headers,
                ),
            ):
                document = problem(response, 403, None)
                assert words in document["remedy"]
                assert document.get("people") == (None if keys else ["dan", "bob", "eve"])


async def test_another_tenants_request_cannot_be_decided(guarded: Edge) -> None:
    request_id, sha256 = await held(guarded)
    body = {"decision": "edit", "content_sha256": sha256, "payload": "Mine."}
    problem(await decide(guarded, request_id, body, Authorization="Bearer ko"), 404, "id")
    assert guarded.engine.decisions == []
