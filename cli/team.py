"""`demo team`: a team of agents answers one question about the sample shop, and a person releases the answer."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Document, GatewayClient
from cli.options import Json
from cli.output import Output, Problem
from cli.requests import money, show_answer, trace

app = typer.Typer(help="Demonstrations with sample data.", no_args_is_help=True)

AGENT = "team"
PAGE = "/trail-lamp.html"
"""A page of `samples/pages`."""
QUESTION = "Which product came back most in October 2026, why, and what should support do? The shop says: {page}"
ASKER = "demo"
APPROVER = "reviewer"
ANSWER_SECONDS = 180.0


@app.callback()
def demo() -> None:
    """Demonstrations with sample data."""


@app.command("team")
def team(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the gateway.")] = None,
    temporal_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the Temporal server.")] = None,
    ui_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the Temporal Web UI.")] = None,
    simulator_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the demo model.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Where everything is kept; else var/.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the answer to you, and go on serving.")] = False,
    as_json: Json = False,
) -> None:
    """Start everything, and let a router agent ask a SQL agent and a web-reading agent and then one that writes.

    The delegates are requests of their own with a part of the budget; their spending comes together in the answer,
    which a person releases. Ends when it is delivered.
    """
    # As for `dev`: the whole house takes 2 s to load.
    from cli import supervision

    options = supervision.Options(
        once=not keep, port=port, temporal_port=temporal_port, ui_port=ui_port, simulator_port=simulator_port, data=data
    )
    raise typer.Exit(supervision.run(options, Output(as_json=as_json), as_team=True))


def converse(
    asker: GatewayClient, approver: GatewayClient, output: Output, pages_url: str, *, release: bool
) -> Document:
    """Ask the team, show who did what, and release the answer.

    Args:
        asker: Acts as who asks.
        approver: Acts as who decides.
        output: Where it is shown.
        pages_url: Base address of the shop's pages.
        release: Whether the demo itself approves.

    Raises:
        Problem: The team did not answer.
    """
    question = QUESTION.format(page=pages_url + PAGE)
    output.say()
    output.say(f"{ASKER} asks {AGENT}: {question}", style="bold")
    with output.working("The team is at work"):
        request = asker.submit(AGENT, question, wait=ANSWER_SECONDS)
    if request["status"] not in ("waiting", "completed"):
        raise Problem(
            f"The team's request {request['id']} is {request['status']}: {request.get('reason') or 'no reason'}",
            remedy=f"See where it stands: {trace(request)}",
        )
    delegates = _delegates(asker, asker.request(str(request["id"]), progress=True))
    _show(output, request, delegates)
    if request["status"] == "waiting" and release:
        digest = str(request["approval"]["content_sha256"])
        receipt = approver.decide(str(request["id"]), "approve", digest, reason="demo")
        output.say()
        output.say(f"{receipt['actor']} approves. Delivered:", style="bold")
        request = asker.request(str(request["id"]), wait=ANSWER_SECONDS)
    if request["status"] == "completed":
        show_answer(output, request)
    elif not release:
        output.say("It waits for you: open the inbox, or `holdfast approvals list`.")
    return {"question": question, "request": request, "delegates": delegates}


def _delegates(client: GatewayClient, request: Document) -> list[Document]:
    """The requests that worked for this one, and those that worked for them."""
    found: list[Document] = []
    listed: list[Any] = (request.get("progress") or {}).get("delegates") or request.get("delegates") or []
    for delegate in listed:
        request_id = delegate["request_id"] if isinstance(delegate, dict) else str(delegate)
        shown = client.request(request_id, progress=True)
        found.append(shown)
        found += _delegates(client, shown)
    return found


def _show(output: Output, request: Document, delegates: list[Document]) -> None:
    output.say()
    output.heading(f"{request['id']}  {request['agent']}  {request['status']}")
    for delegate in delegates:
        usage = delegate.get("usage") or {}
        spent = f"{usage.get('total_tokens', 0)} tokens, {money(usage.get('cost_usd'))}"
        output.say(f"  {delegate['id']}  {delegate['agent']:<10}  {delegate['status']}  {spent}")
    output.say(f"  trace: {trace(request)}")
