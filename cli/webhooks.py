"""`webhooks list|failed|retry`: what was told to whom, what could not be, and telling it again. Works on the ledger."""

from typing import Annotated, Literal

import typer
from rich.table import Table

from cli.options import Json
from cli.output import USAGE, Output, Problem, moment, visible

app = typer.Typer(
    help="See notifications by webhook and e-mail, and send again what was given up.", no_args_is_help=True
)

Tenant = Annotated[str, typer.Option("--tenant", help="Only this one's.", show_default=False)]
Most = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many at most, latest first.")]


@app.command("list")
def list_all(
    tenant: Tenant = "",
    state: Annotated[
        Literal["pending", "sent", "dead"] | None, typer.Option("--state", help="Only those.", show_default=False)
    ] = None,
    limit: Most = 50,
    as_json: Json = False,
) -> None:
    """Show notifications, latest first."""
    _show(tenant, state, limit, Output(as_json=as_json))


@app.command("failed")
def failed(tenant: Tenant = "", limit: Most = 50, as_json: Json = False) -> None:
    """Show the dead-letter list: what was refused for good, or not accepted until it was given up."""
    _show(tenant, "dead", limit, Output(as_json=as_json))


@app.command("retry")
def retry(
    delivery: Annotated[str, typer.Argument(metavar="[ID]", help="A notification's id, like msg_...")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything on the dead-letter list.")] = False,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Send again what was given up, under its old id; or send now what waits for its next attempt."""
    from cli import dead_letters

    if bool(delivery) is everything:
        raise Problem("What is to be sent again?", remedy="Give one ID, or --all.", exit_code=USAGE)
    output = Output(as_json=as_json)
    started = dead_letters.retry(delivery or None, tenant or None)
    output.document({"retried": started})
    if not started:
        output.say("The dead-letter list is empty.")
    elif everything:
        output.say(f"{len(started)} notifications are being sent again.")
    else:
        output.say(f"Notification {started[0]} is being sent again.")
    output.next("holdfast webhooks list", "holdfast webhooks failed")


def _show(tenant: str, state: str | None, limit: int, output: Output) -> None:
    from cli import dead_letters

    rows = dead_letters.read(tenant or None, state, limit)
    output.document({"notifications": rows})
    if not rows:
        told = {"dead": "Nothing was given up.", "pending": "No notification waits to be sent."}
        output.say(told.get(state or "", f"There are no {'sent ' if state else ''}notifications."))
        file = dead_letters.described_in()
        if state or tenant:
            output.next("holdfast webhooks list")
        elif file.exists():
            output.next(f"cause an event that {file} has somebody told of; docs/notifications.md lists them")
        else:
            output.next(f"describe whom to tell in {file}")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("id", "tenant", "request", "agent", "event", "target", "state", "tries", "since", "problem"):
        table.add_column(title, overflow="fold")
    for row in rows:
        names = ("id", "tenant", "request_id", "agent", "event", "target", "state", "attempts")
        cells = [visible(str(row[name])) for name in names]
        table.add_row(*cells, moment(str(row["created_at"])), visible(str(row["problem"] or "-")))
    output.table(table)
    output.next("holdfast webhooks retry ID", "holdfast webhooks retry --all")
