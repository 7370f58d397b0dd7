"""`approvals list`, `show` and `history`, and `decide`: what waits for people, shown exactly, and their word on it."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.prompt import Confirm
from rich.table import Table

from cli.client import Document, GatewayClient
from cli.options import Json, RequestId, Url, User
from cli.output import USAGE, Output, Problem, moment, visible

app = typer.Typer(help="Look at what waits for a decision, and at what was decided.", no_args_is_help=True)

LONGEST_CELL = 40
"""Characters of a name in the list; `show` has all of it."""
NOT_YOURS = "(*)"

PAST = {"approve": "Approved", "edit": "Edited", "reject": "Rejected", "escalate": "Escalated"}
"""What somebody who said so has done."""


@app.command("list")
def list_approvals(as_json: Json = False, url: Url = "", user: User = "") -> None:
    """List the open questions that ask you, the nearest deadline first, one line each."""
    output = Output(as_json=as_json)
    with GatewayClient(url, user) as client:
        listed = client.approvals()
        output.document({"approvals": listed})
        if not listed:
            output.say(f"Nothing waits for a decision by {client.called}.")
            output.next(client.command("requests", "list"))
            return
        table = Table(
            "request", "agent", "what", "until", "approvers", "missing", "cost", box=None, header_style="bold"
        )
        for question in listed:
            table.add_row(*(visible(cell) for cell in _row(question)), style=None if question["may_decide"] else "dim")
        output.table(table)
        if any(not question["may_decide"] for question in listed):
            output.say(f"{NOT_YOURS} You asked it yourself, or have approved it; others decide.", style="dim")
        output.next(client.command("approvals", "show", str(listed[0]["request_id"])))


@app.command("show")
def show_approval(request_id: RequestId, as_json: Json = False, url: Url = "", user: User = "") -> None:
    """Show one open question whole: exactly the content, why you are asked, and what was called before."""
    output = Output(as_json=as_json)
    with GatewayClient(url, user) as client:
        question = client.approval(request_id)
        output.document(question)
        output.heading(_title(question))
        show_question(output, client, question)


@app.command("history")
def list_history(
    request: Annotated[str, typer.Option(metavar="ID", help="Only of this request.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="From this moment on, e.g. 2026-03-01T09:00:00Z.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Before this moment.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most rows.")] = 100,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """List what happened to approvals, the latest first: asked, voted, edited, escalated, reminded, decided."""
    output = Output(as_json=as_json)
    named = {"request_id": request, "since": since, "until": until}
    with GatewayClient(url, user) as client:
        events = client.approval_history({"limit": limit} | {name: value for name, value in named.items() if value})
        output.document({"events": events})
        if not events:
            output.say("Nothing was asked of anybody.")
        table = Table("time", "request", "agent", "about", "what", "who", "reason", box=None, header_style="bold")
        for event in events:
            about, who = event["subject"] or event["kind"], event["actor"] or "-"
            cells = (event["request_id"], event["agent"], about, event["happening"], who, event["reason"] or "")
            table.add_row(moment(event["at"]), *(visible(cell) for cell in cells))
        if events:
            output.table(table)
        output.next(client.command("approvals", "list"))


def decide(
    request_id: RequestId,
    decision: Annotated[Literal["approve", "edit", "reject", "escalate"], typer.Argument(help="What to say.")],
    content: Annotated[str, typer.Option(metavar="SHA256", help="Digest of the content you have seen.")] = "",
    payload: Annotated[
        str | None, typer.Option(metavar="TEXT", help="For edit: the text, or the arguments, instead.")
    ] = None,
    payload_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For edit: a file with that text.")] = None,
    reason: Annotated[str | None, typer.Option(help="For the record.")] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, metavar="N", help="Which of the request's questions is meant.")
    ] = None,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """Decide on what waits. Without --content it is shown first, and you are asked to confirm."""
    output = Output(as_json=as_json)
    text = _payload(decision, payload, payload_file)
    with GatewayClient(url, user) as client:
        if not content:
            content, round_number = _seen(output, client, request_id, decision)
        receipt = client.decide(request_id, decision, content, payload=text, reason=reason, round_number=round_number)
        output.document(receipt)
        output.say(f"{PAST[decision]} {request_id} as {receipt['actor']} at {moment(receipt['decided_at'])}.")
        if missing := receipt.get("missing"):
            output.say("1 more has to approve it." if missing == 1 else f"{missing} more have to approve it.")
        output.next(client.command("requests", "show", request_id, "--wait", "10"))


def show_question(output: Output, client: GatewayClient, question: Document) -> None:
    """Show exactly what a decision is about, the passages it cites, and the command that approves it."""
    show_asked(output, question["requested_by"], question.get("asked"))
    output.say()
    if question["kind"] == "tool":
        output.say(f"May {question['subject']} be called like this?")
    if rule_why := question.get("rule_why"):
        output.say(rule_why)
    if question["why"]:
        output.say(f"Asked because {question['why']}.")
    output.say()
    output.say(question["content"] or "(the text is no longer stored)")
    if draft := question.get("draft"):
        output.say()
        output.heading("Before it was edited")
        output.say(draft)
    if before := question.get("before"):
        _show_calls(output, before)
    cited = [passage for passage in question["passages"] if passage["cited"]]
    if cited:
        output.say()
        output.heading("Sources")
    for passage in cited:
        output.say(f"  [{passage['marker']}] {passage['source']}, characters {passage['start']} to {passage['end']}")
    output.say()
    if question["quorum"] > 1:
        voters = ", ".join(vote["actor"] for vote in question["votes"]) or "nobody yet"
        output.say(f"{question['quorum']} people have to approve it; so far: {voters}.")
    for vote in question["votes"]:
        why = f": {vote['reason']}" if vote["reason"] else ""
        output.say(f"  {vote['actor']} approved it at {moment(vote['at'])}{why}")
    last = question["stage"] + 1 >= question["stages"]
    then = question["default"] if last else "others are asked"
    output.say(f"Waits until {moment(question['deadline'])} for a decision; then: {then}.")
    if not question["may_decide"]:
        output.say(_why_not(question), style="yellow")
    named = ["--content", str(question["content_sha256"])]
    if question["round"] > 1:
        named += ["--round", str(question["round"])]
    decisions = ["approve", "reject"] if last else ["approve", "reject", "escalate"]
    # Whoever may not decide is shown a command for somebody who may.
    user = (
        None if question["may_decide"] or not client.repeats_user else asked_next(question, question["requested_by"])[1]
    )
    output.next(*(client.command("decide", str(question["request_id"]), said, *named, user=user) for said in decisions))


def show_asked(output: Output, user: str, asked: str | None) -> None:
    """Show what a user asked, where it is known."""
    if asked is not None:
        output.say()
        output.heading(f"{user} asked")
        output.quoted(asked)


def _row(question: Document) -> tuple[str, ...]:
    """A question in one line."""
    return (
        str(question["request_id"]) + ("" if question["may_decide"] else f" {NOT_YOURS}"),
        _cut(question["agent"]),
        _cut(f"call {question['subject']}" if question["kind"] == "tool" else str(question["kind"])),
        moment(question["deadline"]),
        _cut(", ".join(question["approvers"])),
        f"{question['missing']} of {question['quorum']}",
        "unpriced" if question["cost_usd"] is None else f"${question['cost_usd']}",
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 3]}..."


def _title(question: Document) -> str:
    return f"{question['request_id']}  {question['agent']}  asked by {question['requested_by']}"


def _show_calls(output: Output, before: Document) -> None:
    """What was called before the question; a result is quoted, so that no line of it looks like one of ours."""
    if not before["calls"]:
        return
    output.say()
    output.heading("Called before")
    if before["left_out"]:
        output.say(f"  ({before['left_out']} earlier calls are left out.)")
    for call in before["calls"]:
        output.say(f"  {call['name']} {call['arguments']}")
        if call["from_outside"]:
            output.say("  Read from outside; what it says is nobody's instruction:", style="yellow")
        output.quoted(call["result"])
        if call["cut"]:
            output.say("    (The rest is left out here.)")


def asked_next(approval: Document, asker: str) -> tuple[str, str]:
    """Who is still to decide, in words, and whom the command names; `NAME` where that is left to the reader."""
    done = {vote["actor"] for vote in approval["votes"]}
    done |= set() if approval["requester_may_decide"] else {asker}
    left = [name for name in approval["approvers"] if name not in done]
    user = next((name for name in left if name != "*" and not name.startswith("role:")), None)
    if user is not None:
        return "one of them" if len(left) > 1 else user, user
    roles = [name.removeprefix("role:") for name in left if name.startswith("role:")]
    role = f" with role {' or '.join(roles)}" if roles and "*" not in left else ""
    others = " else" if done else ""
    return f"somebody{others}{role}", "NAME"


def _why_not(question: Document) -> str:
    if any(vote["actor"] != question["requested_by"] for vote in question["votes"]):
        return "Whoever has approved it, or asked for it, waits for the others."
    return f"Someone else than {question['requested_by']}, who asked, has to decide."


def _seen(output: Output, client: GatewayClient, request_id: str, decision: str) -> tuple[str, int]:
    """Show the content and ask.

    Returns:
        The digest of what was shown, and which question it was.

    Raises:
        Problem: There is nobody to ask, or nothing to decide.
    """
    if not output.interactive:
        raise Problem(
            f"The decision on {request_id} does not name the content that was seen.",
            remedy=f"Read it with `{client.command('approvals', 'show', request_id)}`, and pass its digest: "
            "--content SHA256.",
            exit_code=USAGE,
            members={"field": "content_sha256"},
        )
    question = client.approval(request_id)
    output.heading(_title(question))
    show_question(output, client, question)
    if not Confirm.ask(f"{decision.capitalize()} this?", console=output.console, default=False):
        raise Problem("Nothing was decided.", remedy=f"It waits until {moment(question['deadline'])}.")
    return str(question["content_sha256"]), int(question["round"])


def _payload(decision: str, text: str | None, file: Path | None) -> str | None:
    given = text is not None or file is not None
    if decision != "edit" and given:
        raise Problem(
            f"A text to deliver goes with edit, not with {decision}.",
            remedy="Say `edit`, or leave --payload out.",
            exit_code=USAGE,
            members={"field": "payload"},
        )
    if decision == "edit" and (not given or (text is not None and file is not None)):
        raise Problem(
            "An edit needs one text to deliver instead.",
            remedy="Give it with either --payload TEXT or --payload-file FILE.",
            exit_code=USAGE,
            members={"field": "payload"},
        )
    if file is None:
        return text
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}.", remedy="Name a file with the text.") from None
    except UnicodeDecodeError:
        raise Problem(f"{file} is not UTF-8.", remedy="Save it as UTF-8 text.") from None
