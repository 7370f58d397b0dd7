"""`ask` and `requests list|show|cancel`: a person's own requests over HTTP."""

import sys
from decimal import Decimal
from typing import Annotated

import typer
from rich.table import Table

from cli.approvals import PAST, asked_next, show_asked, show_question
from cli.client import Document, GatewayClient
from cli.missing_tools import show_missing_tools
from cli.options import Json, RequestId, Url, User
from cli.output import DONE, FAILED, USAGE, Output, Problem, moment, visible

app = typer.Typer(help="Look at requests and cancel them.", no_args_is_help=True)

ENDED_BADLY = frozenset({"rejected", "refused", "denied", "expired", "failed", "cancelled"})
"""Ends of a request without an answer."""


def ask(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Which agent; a file of config/agents without .toml.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask; - reads standard input.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer.")] = 60,
    session: Annotated[str, typer.Option(help="Conversation that the question belongs to.")] = "",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key and question are one request.")] = "",
    batch: Annotated[
        bool, typer.Option("--batch", help="May take hours; goes last, and by the provider's batch.")
    ] = False,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """Ask an agent; shows the answer, or what it waits for."""
    output = Output(as_json=as_json)
    text = _question(question)
    with GatewayClient(url, user) as client:
        with output.working(f"Asking {agent}"):
            document = client.submit(agent, text, key=key, session=session, wait=wait, batch=batch)
        show_request(output, client, document)
    raise typer.Exit(exit_code(document))


@app.command("list")
def list_requests(
    status: Annotated[str, typer.Option(help="Only this status, such as waiting or failed.")] = "",
    agent: Annotated[str, typer.Option(help="Only this agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 20,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """List requests, the latest first."""
    output = Output(as_json=as_json)
    query: dict[str, str | int] = {"limit": limit}
    query |= {name: value for name, value in (("status", status), ("agent", agent)) if value}
    with GatewayClient(url, user) as client:
        listed = client.requests(query)
        output.document(listed)
        if as_json:
            return
        rows = listed["requests"]
        if not rows:
            output.say("No requests.")
            output.next(client.command("ask", "docs", "What does Holdfast do?"))
            return
        output.table(_table(rows))
        output.next(client.command("requests", "show", rows[0]["id"]))


@app.command("show")
def show(
    request_id: RequestId,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer.")] = 0,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """Show one request: its answer, or where it stands."""
    output = Output(as_json=as_json)
    with GatewayClient(url, user) as client:
        show_request(output, client, client.request(request_id, wait=wait, progress=True))


@app.command("cancel")
def cancel(request_id: RequestId, as_json: Json = False, url: Url = "", user: User = "") -> None:
    """Ask a request to stop; a model call under way is broken off."""
    output = Output(as_json=as_json)
    with GatewayClient(url, user) as client:
        document = client.cancel(request_id)
        output.document(document)
        output.say(f"Cancellation of {request_id} is asked for; it is {document['status']}.")
        output.next(client.command("requests", "show", request_id))


def exit_code(document: Document) -> int:
    """What `ask` ends with: 1 when the request ended without an answer; still under way or waiting is no failure."""
    return FAILED if document["status"] in ENDED_BADLY else DONE


def show_request(output: Output, client: GatewayClient, document: Document) -> None:
    """Show a request and what to do next with it."""
    output.document(document)
    if output.as_json:
        return
    status, request_id = str(document["status"]), str(document["id"])
    output.heading(f"{request_id}  {document['agent']}  {status}  asked by {document['user']}")
    waits_for_reader = None
    if status == "waiting":
        waits_for_reader = next((row for row in client.approvals() if row["request_id"] == request_id), None)
    if waits_for_reader is None:
        show_asked(output, str(document["user"]), document.get("asked"))
    _show_decisions(output, document)
    show_missing_tools(output, document)
    if status == "completed":
        show_answer(output, document)
        output.next(f"see how it came about: {trace(document)}", client.command("requests", "list"))
    elif status == "waiting":
        _show_waiting(output, client, document, waits_for_reader)
    elif status == "running":
        if progress := document.get("progress"):
            output.say(f"At step {progress['step']}, {progress['attempts']} model calls so far.")
            if events := progress.get("events"):
                output.say(f"Last: {events[-1]['summary']}.")
        output.next(
            client.command("requests", "show", request_id, "--wait", "60"),
            client.command("requests", "cancel", request_id),
        )
    else:
        output.say(str(document.get("reason") or "No reason was given."))
        output.next(f"see where it ended: {trace(document)}")


def show_answer(output: Output, document: Document) -> None:
    """Show the text of a completed request, its sources and what it cost."""
    answer = document["answer"] or {"text": "(The text is no longer stored.)", "citations": []}
    output.say()
    output.say(answer["text"])
    if answer["citations"]:
        output.say()
        output.heading("Sources")
    for citation in answer["citations"]:
        output.say(
            f"  [{citation['marker']}] {citation['source']}, characters {citation['start']} to {citation['end']}"
        )
    usage = document["usage"]
    decided = f"; decided by {document['decided_by']}" if document.get("decided_by") else ""
    origin = "recalled from an earlier answer" if document["recalled"] else f"by {document['deployment']}"
    output.say()
    calls = "" if document["attempts"] < 2 else f"{document['attempts']} model calls, "
    output.say(f"{origin}; {calls}{usage['total_tokens']} tokens, {money(usage['cost_usd'])}{decided}", style="dim")


def trace(document: Document) -> str:
    """Where the run can be seen; a gateway that does not know the Web UI's address gives the path below it."""
    address = str(document["links"].get("trace", "none: it was answered without a run, or its run is forgotten"))
    return f"the Temporal Web UI at {address}" if address.startswith("/") else address


def money(amount: str | None) -> str:
    """US dollars as the gateway gave them; a missing price is not zero."""
    if amount is None:
        return "unpriced"
    dollars = Decimal(amount)
    return "$0" if not dollars else f"${dollars:.4f}" if dollars >= Decimal("0.0001") else f"${dollars.normalize():f}"


def _show_decisions(output: Output, document: Document) -> None:
    """Who decided what and when; while no worker tells it, who decided last."""
    taken = (document.get("progress") or {}).get("decisions") or []
    if taken:
        output.say()
        output.heading("Decisions")
    for one in taken:
        actor = "nobody in time, so the rule" if one["actor"] == "deadline" else one["actor"]
        about = {"output": "the answer", "tool": "a tool call", "budget": "going past the budget"}[one["kind"]]
        why = f": {one['reason']}" if one["reason"] else ""
        output.say(f"  {actor} {PAST[one['decision']].lower()} {about} at {moment(one['decided_at'])}{why}")
    if not taken and document.get("decided_by") and document["status"] != "completed":
        output.say(f"Decided by {document['decided_by']}.")


def _show_waiting(output: Output, client: GatewayClient, document: Document, question: Document | None) -> None:
    if question is not None:
        show_question(output, client, question)
        return
    approval = document["approval"]
    output.say(f"Waits until {moment(approval['deadline'])} for a decision by {', '.join(approval['approvers'])}.")
    if approval["quorum"] > 1:
        agree = ", ".join(vote["actor"] for vote in approval["votes"]) or "nobody yet"
        output.say(f"{len(approval['votes'])} of {approval['quorum']} agree: {agree}.")
    who, user = asked_next(approval, str(document.get("user", "")))
    output.next(
        f"{who}: {client.command('decide', str(document['id']), 'approve', user=user)}",
        client.command("requests", "show", str(document["id"])),
    )


def _table(rows: list[Document]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("request", "agent", "status", "submitted"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "agent")
    table.add_column("cost", justify="right", no_wrap=True)
    for row in rows:
        cells = (row["id"], row["agent"], row["status"], moment(row["submitted_at"]).removesuffix(" UTC"))
        table.add_row(*(visible(str(cell)) for cell in cells), money(row["cost_usd"]) if row["cost_usd"] else "")
    return table


def _question(argument: str) -> str:
    """The question in words, or standard input for `-`.

    Raises:
        Problem: It is not UTF-8, or empty.
    """
    if argument == "-" and sys.stdin.isatty():
        print("Type the question, then Ctrl-D.", file=sys.stderr)
    try:
        text = sys.stdin.buffer.read().decode() if argument == "-" else argument
    except UnicodeDecodeError:
        raise Problem(
            "The question is not valid UTF-8.",
            remedy="Convert it, e.g. with `iconv -t UTF-8`.",
            exit_code=USAGE,
            members={"field": "input"},
        ) from None
    if not text.strip():
        raise Problem("The question is empty.", remedy="Write something to ask.", exit_code=USAGE)
    return text
