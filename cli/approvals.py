"""`approvals list` and `decide`: what waits for a person, shown exactly, and the person's word on it."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.prompt import Confirm

from cli.client import Document, GatewayClient
from cli.options import Json, RequestId, Url, User
from cli.output import USAGE, Output, Problem, moment

app = typer.Typer(help="Look at what waits for a decision.", no_args_is_help=True)


@app.command("list")
def list_approvals(as_json: Json = False, url: Url = "", user: User = "") -> None:
    """List the open questions you may decide, the nearest deadline first, each with its whole content."""
    output = Output(as_json=as_json)
    with GatewayClient(url, user) as client:
        listed = client.approvals()
        output.document({"approvals": listed})
        if not listed:
            output.say("Nothing waits for your decision.")
            output.next(client.command("requests", "list"))
        for position, question in enumerate(listed):
            if position:
                output.say()
            output.heading(f"{question['request_id']}  {question['agent']}  asked by {question['requested_by']}")
            show_question(output, client, question)


def decide(
    request_id: RequestId,
    decision: Annotated[Literal["approve", "edit", "reject"], typer.Argument(help="What to say.")],
    content: Annotated[str, typer.Option(metavar="SHA256", help="Digest of the content you have seen.")] = "",
    payload: Annotated[str | None, typer.Option(metavar="TEXT", help="For edit: the text to deliver instead.")] = None,
    payload_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For edit: a file with that text.")] = None,
    reason: Annotated[str | None, typer.Option(help="For the record.")] = None,
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """Decide on an answer that waits. Without --content it is shown first, and you are asked to confirm."""
    output = Output(as_json=as_json)
    text = _payload(decision, payload, payload_file)
    with GatewayClient(url, user) as client:
        if not content:
            content = _seen(output, client, request_id, decision)
        receipt = client.decide(request_id, decision, content, payload=text, reason=reason)
        output.document(receipt)
        past = {"approve": "Approved", "edit": "Edited", "reject": "Rejected"}[decision]
        output.say(f"{past} {request_id} as {receipt['actor']} at {moment(receipt['decided_at'])}.")
        output.next(client.command("requests", "show", request_id, "--wait", "10"))


def show_question(output: Output, client: GatewayClient, question: Document) -> None:
    """Show exactly what a decision is about, the passages it cites, and the command that approves it."""
    output.say()
    output.say(question["content"])
    cited = [passage for passage in question["passages"] if passage["cited"]]
    if cited:
        output.say()
        output.heading("Sources")
    for passage in cited:
        output.say(f"  [{passage['marker']}] {passage['source']}, characters {passage['start']} to {passage['end']}")
    output.say()
    output.say(f"Waits until {moment(question['deadline'])} for a decision; then: {question['default']}.")
    if not question["may_decide"]:
        output.say(f"Someone else than {question['requested_by']}, who asked, has to decide.", style="yellow")
    request_id, digest = str(question["request_id"]), str(question["content_sha256"])
    output.next(
        client.command("decide", request_id, "approve", "--content", digest),
        client.command("decide", request_id, "reject", "--content", digest),
    )


def _seen(output: Output, client: GatewayClient, request_id: str, decision: str) -> str:
    """Show the content and ask.

    Returns:
        The digest of what was shown.

    Raises:
        Problem: There is nobody to ask, or nothing to decide.
    """
    if not output.interactive:
        raise Problem(
            f"The decision on {request_id} does not name the content that was seen.",
            remedy=f"Read it with `{client.command('approvals', 'list')}`, and pass its digest: --content SHA256.",
            exit_code=USAGE,
            members={"field": "content_sha256"},
        )
    question = next((row for row in client.approvals() if row["request_id"] == request_id), None)
    if question is None:
        raise Problem(
            f"{request_id} does not wait for a decision of yours.",
            remedy=f"See where it stands: `{client.command('requests', 'show', request_id)}`.",
        )
    output.heading(f"{request_id}  {question['agent']}  asked by {question['requested_by']}")
    show_question(output, client, question)
    if not Confirm.ask(f"{decision.capitalize()} this?", console=output.console, default=False):
        raise Problem("Nothing was decided.", remedy=f"It waits until {moment(question['deadline'])}.")
    return str(question["content_sha256"])


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
