import io
import json
import sys

import pytest

from cli.main import execute
from holdfast.contracts import Status
from tests.cli.scripted import (
    CONTENT,
    DIGEST,
    REQUEST_ID,
    ScriptedGateway,
    approval_document,
    request_document,
    row_document,
)

REQUEST = f"/v1/requests/{REQUEST_ID}"


def test_ask_shows_the_answer_with_its_sources_cost_and_trace(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /v1/requests", (200, request_document(Status.COMPLETED)))
    assert execute(["ask", "docs", "What is lost?", "--session", "s1", "--key", "k1"]) == 0
    shown = capsys.readouterr().out
    assert CONTENT in shown
    assert "[1] docs/architecture.md, characters 120 to 480" in shown
    assert "150 tokens, $0.0012; decided by ben" in shown
    assert f"http://127.0.0.1:8233/namespaces/default/workflows/{REQUEST_ID}" in shown.rpartition("Next:")[2]
    call = gateway.calls[0]
    assert call.body == {"agent": "docs", "input": "What is lost?", "session": "s1"}
    assert call.headers["idempotency-key"] == "k1"
    assert call.headers["x-holdfast-user"] == "ann"


def test_ask_that_waits_for_approval_shows_what_for_and_the_exact_command(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /v1/requests", (202, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document()]}))
    assert execute(["ask", "docs", "What is lost?"]) == 0
    shown = capsys.readouterr().out
    assert CONTENT in shown
    assert f"decide {REQUEST_ID} approve --content {DIGEST} --url {gateway.url}\n" in shown


def test_ask_that_waits_for_others_names_them_and_does_not_show_the_answer(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /v1/requests", (202, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["ask", "docs", "What is lost?"]) == 0
    shown = capsys.readouterr().out
    assert "Waits until 2026-01-03 03:04 UTC for a decision by *." in shown
    assert CONTENT not in shown


@pytest.mark.parametrize(
    ("approvers", "voted", "said"),
    [
        (["dan", "eve"], [], f"one of them: holdfast decide {REQUEST_ID} approve --user dan"),
        (["dan", "eve"], ["dan"], f"eve: holdfast decide {REQUEST_ID} approve --user eve"),
        (["ann", "dan"], [], f"dan: holdfast decide {REQUEST_ID} approve --user dan"),
        (
            ["role:finance"],
            ["dan"],
            f"somebody else with role finance: holdfast decide {REQUEST_ID} approve --user NAME",
        ),
        (["*"], ["dan"], f"somebody else: holdfast decide {REQUEST_ID} approve --user NAME"),
    ],
)
def test_who_is_proposed_to_decide_is_nobody_who_has_voted_or_asked(
    gateway: ScriptedGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    approvers: list[str],
    voted: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("cli.client._program", lambda: "holdfast")
    waiting = request_document(Status.WAITING)
    waiting["approval"] |= {"approvers": approvers, "quorum": 2, "votes": [{"actor": name} for name in voted]}
    gateway.on(f"GET {REQUEST}", (200, waiting))
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert f"Next: {said} " in shown
    assert f"{len(voted)} of 2 agree: {', '.join(voted) or 'nobody yet'}." in shown


def test_ask_in_json_prints_the_gateways_document_and_nothing_else(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    document = request_document(Status.COMPLETED)
    gateway.on("POST /v1/requests", (200, document))
    assert execute(["ask", "docs", "What is lost?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize(
    "status", [Status.REJECTED, Status.REFUSED, Status.DENIED, Status.EXPIRED, Status.FAILED, Status.CANCELLED]
)
def test_ask_ends_with_1_and_the_reason_when_there_is_no_answer(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], status: Status
) -> None:
    gateway.on("POST /v1/requests", (200, request_document(status, reason="The budget is used up.")))
    assert execute(["ask", "docs", "What is lost?"]) == 1
    assert "The budget is used up." in capsys.readouterr().out


def test_ask_waits_in_pieces_until_the_answer_is_there(gateway: ScriptedGateway) -> None:
    gateway.on("POST /v1/requests", (202, request_document(Status.RUNNING)))
    running = (200, request_document(Status.RUNNING))
    gateway.on(f"GET {REQUEST}", running, (200, request_document(Status.COMPLETED)))
    assert execute(["ask", "docs", "What is lost?", "--wait", "50"]) == 0
    assert [call.query["wait"] for call in gateway.calls] == ["20", "20", "10"]


def test_ask_that_takes_longer_is_no_failure_and_says_how_to_come_back(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /v1/requests", (202, request_document(Status.RUNNING)))
    assert execute(["ask", "docs", "What is lost?", "--wait", "0"]) == 0
    assert len(gateway.calls) == 1
    assert f"requests show {REQUEST_ID} --wait 60" in capsys.readouterr().out


def test_a_connection_that_breaks_is_tried_once_more_under_the_same_key(gateway: ScriptedGateway) -> None:
    gateway.on("POST /v1/requests", (0, {}), (200, request_document(Status.COMPLETED)))
    assert execute(["ask", "docs", "What is lost?"]) == 0
    first, second = gateway.calls
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_a_connection_that_breaks_twice_ends_with_3(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /v1/requests", (0, {}))
    assert execute(["ask", "docs", "What is lost?"]) == 3
    assert "Nothing accepted is lost" in capsys.readouterr().err


def test_ask_reads_the_question_from_standard_input(gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.on("POST /v1/requests", (200, request_document(Status.COMPLETED)))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Was ist verlören?\n".encode())))
    assert execute(["ask", "docs", "-"]) == 0
    assert gateway.calls[0].body["input"] == "Was ist verlören?\n"


@pytest.mark.parametrize(("given", "words"), [(b"\xff\xfe", "not valid UTF-8"), (b" \n", "is empty")])
def test_a_question_that_is_no_text_is_not_sent(
    gateway: ScriptedGateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: bytes,
    words: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert execute(["ask", "docs", "-"]) == 2
    assert words in capsys.readouterr().err
    assert gateway.calls == []


def test_an_argument_that_is_not_utf_8_is_refused_in_words(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["ask", "docs", b"\xff".decode("utf-8", "surrogateescape")]) == 1
    assert "cannot be sent as UTF-8" in capsys.readouterr().err
    assert gateway.calls == []


def test_a_refusal_of_the_gateway_comes_through_with_field_and_remedy(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {
        "type": "urn:holdfast:problem:unknown-agent",
        "title": "Unknown agent",
        "status": 422,
        "detail": "Agent 'dcos' is not defined. Did you mean 'docs'?",
        "field": "agent",
        "remedy": "Name an agent.",
    }
    gateway.on("POST /v1/requests", (422, problem))
    assert execute(["ask", "dcos", "Hello?", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == problem
    assert execute(["ask", "dcos", "Hello?"]) == 1
    assert "Error: Agent 'dcos' is not defined. Did you mean 'docs'?\nNext: Name an agent." in capsys.readouterr().err


def test_something_that_is_no_gateway_is_said_to_be_none(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /v1/requests", (502, {"error": "bad gateway"}))
    assert execute(["requests", "list"]) == 1
    assert "502 without a Holdfast document" in capsys.readouterr().err


def test_a_key_stands_for_the_user(gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEY", "sesame")
    gateway.on("GET /v1/requests", (200, {"requests": [], "more": False}))
    assert execute(["requests", "list"]) == 0
    assert gateway.calls[0].headers["authorization"] == "Bearer sesame"
    assert "x-holdfast-user" not in gateway.calls[0].headers


def test_requests_are_listed_with_status_and_cost(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    listed = {"requests": [row_document(Status.WAITING)], "more": False}
    gateway.on("GET /v1/requests", (200, listed))
    assert execute(["requests", "list", "--status", "waiting", "--limit", "5"]) == 0
    shown = capsys.readouterr().out
    assert REQUEST_ID in shown
    assert "waiting" in shown
    assert "$0.0012" in shown
    assert f"requests show {REQUEST_ID}" in shown.rpartition("Next:")[2]
    assert gateway.calls[0].query == {"limit": "5", "status": "waiting"}
    assert execute(["requests", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed


def test_no_requests_says_how_to_make_one(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /v1/requests", (200, {"requests": [], "more": False}))
    assert execute(["requests", "list"]) == 0
    assert "ask docs" in capsys.readouterr().out


def test_show_tells_at_which_step_a_request_is(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    events = [{"summary": "bulk: the first choice"}, {"summary": "in a batch of bulk, sent 12:03"}]
    progress = {"step": "generate", "attempts": 2, "events": events}
    gateway.on(f"GET {REQUEST}", (200, request_document(Status.RUNNING) | {"progress": progress}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    assert "At step generate, 2 model calls so far.\nLast: in a batch of bulk, sent 12:03.\n" in capsys.readouterr().out
    assert gateway.calls[0].query == {"progress": "true"}


def test_a_request_id_cannot_name_another_address(gateway: ScriptedGateway) -> None:
    assert execute(["requests", "show", "../approvals?x=1"]) == 1
    assert gateway.calls[0].path == "/v1/requests/..%2Fapprovals%3Fx%3D1"


def test_cancel_says_what_was_asked_for(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(f"POST {REQUEST}/cancel", (202, request_document(Status.RUNNING) | {"cancel_requested": True}))
    assert execute(["requests", "cancel", REQUEST_ID]) == 0
    assert f"Cancellation of {REQUEST_ID} is asked for" in capsys.readouterr().out


def test_a_request_is_shown_with_its_question_and_who_decided_what_when_and_why(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = {"decision": "reject", "actor": "bob", "kind": "tool", "decided_at": "2026-01-02T03:04:00Z"}
    by_rule = decision | {"decision": "approve", "actor": "deadline", "kind": "output", "reason": None}
    told = {"progress": {"decisions": [decision | {"reason": "no\x1b[2J"}, by_rule]}, "asked": "Is it lost?\n\x1b[2J"}
    gateway.on(f"GET {REQUEST}", (200, request_document(Status.COMPLETED) | told))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "completed  asked by ann\n\nann asked\n    | Is it lost?\n    | \\u001b[2J\n" in shown
    assert "  bob rejected a tool call at 2026-01-02 03:04 UTC: no\\u001b[2J\n" in shown
    assert "  nobody in time, so the rule approved the answer at 2026-01-02 03:04 UTC\n" in shown


def test_whoever_decided_is_named_while_no_worker_tells_of_decisions(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = request_document(Status.REJECTED, reason="It was rejected.")
    gateway.on(f"GET {REQUEST}", (200, rejected | {"progress": None, "asked": None}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "Decided by ben." in shown
    assert "ann asked" not in shown


def test_the_question_is_shown_once_to_whoever_is_to_decide(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(f"GET {REQUEST}", (200, request_document(Status.WAITING) | {"asked": "Is it lost?"}))
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document() | {"asked": "Is it lost?"}]}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    assert capsys.readouterr().out.count("Is it lost?") == 1
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    assert capsys.readouterr().out.count("Is it lost?") == 1


@pytest.mark.parametrize("verb", [["requests", "show"], ["requests", "cancel"], ["approvals", "show"]])
def test_a_request_that_is_not_there_is_named_with_the_command_that_lists(
    gateway: ScriptedGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: list[str],
) -> None:
    monkeypatch.setattr("cli.client._program", lambda: "holdfast")
    problem = {"type": "urn:holdfast:problem:no-such-request", "status": 404, "detail": "None.", "remedy": "GET it."}
    for address in ("GET /v1/requests/req_nope", "POST /v1/requests/req_nope/cancel", "GET /v1/approvals/req_nope"):
        gateway.on(address, (404, problem))
    assert execute([*verb, "req_nope"]) == 1
    said = f"There is no request 'req_nope'.\nNext: `holdfast requests list --url {gateway.url}` lists yours."
    assert said in capsys.readouterr().err
