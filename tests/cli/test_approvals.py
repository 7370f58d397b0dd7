import json
from pathlib import Path

import pytest
from rich.prompt import Confirm

from cli.main import execute
from cli.output import Output
from tests.cli.scripted import CONTENT, DIGEST, MORNING, REQUEST_ID, ScriptedGateway, approval_document

DECISIONS = f"POST /v1/approvals/{REQUEST_ID}/decisions"
RECEIPT = {
    "request_id": REQUEST_ID,
    "decision": "approve",
    "actor": "ann",
    "content_sha256": DIGEST,
    "decided_at": MORNING.isoformat(),
}


def test_the_list_shows_whole_contents_and_the_exact_commands(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document("Long. " * 400 + "[1]")]}))
    assert execute(["approvals", "list"]) == 0
    shown = capsys.readouterr().out
    assert "Long. " * 400 + "[1]\n" in shown
    assert "[1] docs/architecture.md, characters 120 to 480" in shown
    assert "then: reject." in shown
    assert f"decide {REQUEST_ID} approve --content {DIGEST} --url {gateway.url}\n" in shown


def test_the_list_in_json_is_the_gateways_document(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {"approvals": [approval_document()]}
    gateway.on("GET /v1/approvals", (200, listed))
    assert execute(["approvals", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed


def test_what_an_approver_reads_cannot_hide_anything(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document("Pay 1 \x1b[8mmillion\x1b[0m euros.")]}))
    assert execute(["approvals", "list"]) == 0
    assert "Pay 1 \\u001b[8mmillion\\u001b[0m euros." in capsys.readouterr().out


def test_one_who_may_not_decide_is_told_so(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document(may_decide=False)]}))
    assert execute(["approvals", "list"]) == 0
    assert "Someone else than ann" in capsys.readouterr().out


def test_a_decision_names_the_content_that_was_seen(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(DECISIONS, (200, RECEIPT))
    assert execute(["decide", REQUEST_ID, "approve", "--content", DIGEST, "--reason", "fine", "--user", "ben"]) == 0
    assert gateway.calls[0].body == {"decision": "approve", "content_sha256": DIGEST, "reason": "fine"}
    assert gateway.calls[0].headers["x-holdfast-user"] == "ben"
    shown = capsys.readouterr().out
    assert f"Approved {REQUEST_ID} as ann" in shown
    assert f"requests show {REQUEST_ID}" in shown


def test_a_decision_without_content_is_refused_where_nobody_can_be_shown_it(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["decide", REQUEST_ID, "approve", "--json"]) == 2
    problem = json.loads(capsys.readouterr().out)
    assert problem["field"] == "content_sha256"
    assert "approvals list" in problem["remedy"]
    assert gateway.calls == []


@pytest.mark.parametrize("agrees", [True, False])
def test_at_a_terminal_the_content_is_shown_and_confirmed_first(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], agrees: bool
) -> None:
    shown_before_asking = ""

    def confirm(*_: object, **__: object) -> bool:
        nonlocal shown_before_asking
        shown_before_asking = capsys.readouterr().out
        return agrees

    monkeypatch.setattr(Output, "interactive", True)
    monkeypatch.setattr(Confirm, "ask", confirm)
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document()]}))
    gateway.on(DECISIONS, (200, RECEIPT))
    assert execute(["decide", REQUEST_ID, "approve"]) == (0 if agrees else 1)
    assert CONTENT in shown_before_asking
    decided = [call.body["content_sha256"] for call in gateway.calls if call.method == "POST"]
    assert decided == ([DIGEST] if agrees else [])


def test_an_edit_delivers_the_text_of_a_file(gateway: ScriptedGateway, tmp_path: Path) -> None:
    gateway.on(DECISIONS, (200, RECEIPT | {"decision": "edit"}))
    file = tmp_path / "better.txt"
    file.write_text("Bésser.", encoding="utf-8")
    assert execute(["decide", REQUEST_ID, "edit", "--content", DIGEST, "--payload-file", str(file)]) == 0
    assert gateway.calls[0].body["payload"] == "Bésser."


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit"],
        ["edit", "--payload", "x", "--payload-file", "y"],
        ["approve", "--payload", "x"],
        ["reject", "--payload-file", "y"],
        ["perhaps"],
    ],
)
def test_a_text_goes_with_an_edit_and_with_nothing_else(gateway: ScriptedGateway, arguments: list[str]) -> None:
    assert execute(["decide", REQUEST_ID, *arguments, "--content", DIGEST]) == 2
    assert gateway.calls == []


def test_a_payload_file_that_cannot_be_read_is_named(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    for name, words in (("binary", "is not UTF-8"), ("missing", "cannot be read")):
        edit = ["decide", REQUEST_ID, "edit", "--content", DIGEST, "--payload-file", str(tmp_path / name)]
        assert execute(edit) == 1
        assert f"{name} {words}" in capsys.readouterr().err
    assert gateway.calls == []


def test_a_refused_decision_ends_with_1_and_the_reason(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"title": "Decision refused", "status": 409, "detail": "It is about other content.", "code": "x"}
    gateway.on(DECISIONS, (409, refusal))
    assert execute(["decide", REQUEST_ID, "reject", "--content", DIGEST]) == 1
    assert "It is about other content." in capsys.readouterr().err
