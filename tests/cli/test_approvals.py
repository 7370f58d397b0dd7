import json
from pathlib import Path

import pytest
from rich.prompt import Confirm

from cli.main import execute
from cli.output import Output
from tests.cli.scripted import CONTENT, DIGEST, MORNING, REQUEST_ID, ScriptedGateway, approval_document

ONE = f"GET /v1/approvals/{REQUEST_ID}"
DECISIONS = f"POST /v1/approvals/{REQUEST_ID}/decisions"
RECEIPT = {
    "request_id": REQUEST_ID,
    "decision": "approve",
    "actor": "ann",
    "content_sha256": DIGEST,
    "decided_at": MORNING.isoformat(),
}


def test_the_list_has_one_line_for_each_question_and_none_of_its_text(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    call = {"kind": "tool", "subject": "re\x1b[2Jfund" * 20, "approvers": ["ann", "role:finance"], "may_decide": False}
    listed = [approval_document("Long. " * 400 + "[1]"), approval_document() | call | {"quorum": 2, "missing": 1}]
    gateway.on("GET /v1/approvals", (200, {"approvals": listed}))
    assert execute(["approvals", "list"]) == 0
    shown = capsys.readouterr().out
    first, second = [line.strip() for line in shown.splitlines() if line.strip().startswith(REQUEST_ID)]
    assert first.split() == [REQUEST_ID, "docs", "output", "2026-01-03", "03:04", "UTC", "*", "1", "of", "1", "$0.0012"]
    assert second.split()[:3] == [REQUEST_ID, "(*)", "docs"]
    assert "call re\\u001b[2Jfund" in second
    assert "ann, role:finance" in second
    assert "1 of 2" in second
    assert "Long." not in shown
    assert "(*) You asked it yourself, or have approved it; others decide." in shown
    assert f"approvals show {REQUEST_ID} --url {gateway.url}\n" in shown


def test_an_empty_list_says_so(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["approvals", "list"]) == 0
    assert "Nothing waits for a decision by ann." in capsys.readouterr().out


def test_an_empty_list_does_not_guess_whom_a_key_stands_for(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEY", "sesame")
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["approvals", "list"]) == 0
    assert "Nothing waits for a decision by the user of your API key." in capsys.readouterr().out


def test_a_question_is_shown_with_what_was_asked_and_by_whom(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "Is it lost?\nNext: holdfast decide\x1b[2J"
    gateway.on(ONE, (200, approval_document() | {"asked": asked}))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "ann asked\n    | Is it lost?\n    | Next: holdfast decide\\u001b[2J\n" in shown
    assert shown.index("Is it lost?") < shown.index(CONTENT)


def test_one_question_is_shown_whole_with_the_exact_commands(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(ONE, (200, approval_document("Long. " * 400 + "[1]")))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
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


def test_what_was_called_before_is_shown_as_quoted_text(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    page = {"name": "read_page", "arguments": '{"address": "a"}', "from_outside": True, "cut": True}
    order = {"name": "lookup", "arguments": "{}", "result": "", "from_outside": False, "cut": False}
    calls = [page | {"result": "Good.\nNext: holdfast decide\x1b[2J"}, order]
    gateway.on(ONE, (200, approval_document() | {"before": {"calls": calls, "left_out": 3}}))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "(3 earlier calls are left out.)" in shown
    assert (
        '  read_page {"address": "a"}\n  Read from outside; what it says is nobody\'s instruction:\n    | Good.\n'
        "    | Next: holdfast decide\\u001b[2J\n    (The rest is left out here.)\n  lookup {}\n    | (nothing)\n"
    ) in shown


def test_one_question_in_json_is_the_gateways_document(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    question = approval_document() | {"before": {"calls": [], "left_out": 0}}
    gateway.on(ONE, (200, question))
    assert execute(["approvals", "show", REQUEST_ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == question


def test_what_an_approver_reads_cannot_hide_anything(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(ONE, (200, approval_document("Pay 1 \x1b[8mmillion\x1b[0m euros.")))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
    assert "Pay 1 \\u001b[8mmillion\\u001b[0m euros." in capsys.readouterr().out


def test_one_who_may_not_decide_is_told_so(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(ONE, (200, approval_document(may_decide=False)))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "Someone else than ann" in shown
    assert "--user NAME" in shown.rpartition("Next:")[2]


def test_a_question_shows_who_agreed_what_was_edited_and_who_is_next(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    question = approval_document() | {
        "kind": "tool",
        "subject": "refund",
        "why": "`args.amount > 100` holds",
        "rule_why": "Refunds above 100 EUR need two people.",
        "draft": "The \x1b[8mdraft.",
        "quorum": 2,
        "votes": [{"actor": "bob", "at": MORNING.isoformat(), "reason": "as agreed"}],
        "stages": 2,
        "round": 3,
    }
    gateway.on(ONE, (200, question))
    assert execute(["approvals", "show", REQUEST_ID]) == 0
    shown = capsys.readouterr().out
    assert "May refund be called like this?" in shown
    assert "Refunds above 100 EUR need two people.\nAsked because `args.amount > 100` holds.\n" in shown
    assert "The \\u001b[8mdraft." in shown
    assert "2 people have to approve it; so far: bob." in shown
    assert "  bob approved it at 2026-01-02 03:04 UTC: as agreed\n" in shown
    assert "then: others are asked." in shown
    assert f"decide {REQUEST_ID} escalate --content {DIGEST} --round 3" in shown


def test_a_vote_says_how_many_more_are_needed(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(DECISIONS, (200, RECEIPT | {"final": False, "missing": 2}))
    assert execute(["decide", REQUEST_ID, "approve", "--content", DIGEST, "--round", "2"]) == 0
    assert gateway.calls[0].body == {"decision": "approve", "content_sha256": DIGEST, "round": 2}
    assert "2 more have to approve it." in capsys.readouterr().out


def test_an_escalation_is_handed_over(gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(DECISIONS, (200, RECEIPT | {"decision": "escalate", "final": False, "missing": 1}))
    assert execute(["decide", REQUEST_ID, "escalate", "--content", DIGEST, "--reason", "above my limit"]) == 0
    assert f"Escalated {REQUEST_ID} as ann" in capsys.readouterr().out


def test_the_history_is_a_table_or_the_gateways_document(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {
        "request_id": REQUEST_ID,
        "agent": "docs",
        "kind": "tool",
        "subject": "refund",
        "happening": "rejected",
        "actor": "bob",
        "reason": "no\x1b[2J",
        "at": MORNING.isoformat(),
    }
    gateway.on("GET /v1/approvals/history", (200, {"events": [event, event | {"actor": None, "reason": None}]}))
    assert execute(["approvals", "history", "--request", REQUEST_ID, "--since", "2026-01-01T00:00:00Z"]) == 0
    assert gateway.calls[0].query == {"limit": "100", "request_id": REQUEST_ID, "since": "2026-01-01T00:00:00Z"}
    shown = capsys.readouterr().out
    assert "rejected" in shown
    assert "no\\u001b[2J" in shown
    assert execute(["approvals", "history", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["events"]) == 2


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
    assert f"approvals show {REQUEST_ID}" in problem["remedy"]
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
    gateway.on(ONE, (200, approval_document()))
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


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("not_open", "`holdfast approvals list --url {url}` shows what is open"),
        ("already_decided", f"Nothing needs to be done; `holdfast requests show {REQUEST_ID} --url {{url}}` shows"),
        ("other_content", f"Read what waits now: `holdfast approvals show {REQUEST_ID} --url {{url}}`"),
        ("not_named", f"Ask dan. For example: `holdfast approvals show {REQUEST_ID} --user dan --url {{url}}`"),
        ("no_edit", "Ask dan."),
    ],
)
def test_a_refusal_is_followed_by_the_command_that_helps(
    gateway: ScriptedGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    remedy: str,
) -> None:
    monkeypatch.setattr("cli.client._program", lambda: "holdfast")
    refusal = {"status": 409, "detail": "Because.", "code": code, "remedy": "Ask dan.", "people": ["dan"]}
    gateway.on(DECISIONS, (409, refusal))
    gateway.on(ONE, (409, refusal))
    for verb in (["decide", REQUEST_ID, "reject", "--content", DIGEST], ["approvals", "show", REQUEST_ID]):
        assert execute(verb) == 1
        assert f"Because.\nNext: {remedy.format(url=gateway.url)}" in capsys.readouterr().err
