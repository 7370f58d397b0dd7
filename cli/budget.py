"""`budget set|show|remove|grant`: what tenants, users and sessions may spend. Works on the ledger itself."""

import secrets
import shlex
from typing import Annotated, Literal

import typer
from rich.table import Table

from cli.options import Json
from cli.output import USAGE, Output, Problem, moment, visible

app = typer.Typer(help="Set and see what tenants, users and sessions may spend.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", help="The paying party.")]
OfUser = Annotated[str, typer.Option("--user", help="Only this user of the tenant.", show_default=False)]
OfSession = Annotated[str, typer.Option("--session", help="Only this session of the tenant.", show_default=False)]
Span = Annotated[
    Literal["day", "month", "total"],
    typer.Option("--period", help="After which it begins anew, by the calendar in UTC."),
]


@app.command("set")
def set_budget(
    tenant: Tenant,
    period: Span,
    user: OfUser = "",
    session: OfSession = "",
    tokens: Annotated[int | None, typer.Option(min=0, help="Most tokens.")] = None,
    usd: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Most US dollars, like 12.50.")] = None,
    at_limit: Annotated[
        Literal["block", "degrade", "queue", "ask"] | None,
        typer.Option("--at-limit", help="What happens to a call that would go past; a new budget blocks it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set a budget, or change one: what is not named stays. A new budget counts from now on."""
    from cli import books

    if tokens is None and usd is None and at_limit is None:
        raise Problem("Nothing to set.", remedy="Give --tokens N, --usd AMOUNT or both.", exit_code=USAGE)
    row = books.set_budget(tenant, user, session, period, tokens=tokens, usd=usd, at_limit=at_limit)
    output = Output(as_json=as_json)
    output.document(row)
    ceilings = [f"{row[name]} {unit}" for name, unit in (("tokens", "tokens"), ("usd", "USD")) if row[name] is not None]
    span = "in total" if period == "total" else f"per {period}"
    output.say(f"Budget of {row['scope']}: {' and '.join(ceilings)} {span}; at the limit: {row['at_limit']}.")
    output.next(f"holdfast budget show --tenant {shlex.quote(tenant)}")


@app.command("show")
def show(
    tenant: Annotated[str, typer.Option("--tenant", help="Only this one's.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """Show every budget and credit account, and what is left of it."""
    from cli import books

    rows = books.budgets(tenant or None)
    output = Output(as_json=as_json)
    output.document({"budgets": rows})
    if not rows:
        output.say("No budget is set: only the ceilings of each request hold.")
        output.next(f"holdfast budget set --tenant {shlex.quote(tenant) if tenant else 'T'} --period month --usd 100")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("tenant", "scope", "period", "tokens", "left", "USD", "left", "at limit", "resets"):
        table.add_column(title, overflow="fold")
    names = ("tenant", "scope", "window", "tokens", "tokens_left", "usd", "usd_left", "at_limit")
    for row in rows:
        resets = "-" if row["resets_at"] is None else moment(row["resets_at"])
        table.add_row(*("-" if row[name] is None else visible(str(row[name])) for name in names), resets)
    output.table(table)
    output.next("holdfast usage --by tenant")


@app.command("remove")
def remove(tenant: Tenant, period: Span, user: OfUser = "", session: OfSession = "", as_json: Json = False) -> None:
    """Remove a budget and what it has counted."""
    from cli import books

    whose = f"user {user}" if user else f"session {session}" if session else f"tenant {tenant}"
    if not books.remove_budget(tenant, user, session, period):
        raise Problem(
            f"There is no budget of {whose} with the period {period!r}.",
            remedy=f"See which there are: `holdfast budget show --tenant {shlex.quote(tenant)}`.",
        )
    output = Output(as_json=as_json)
    output.document({"removed": True, "tenant": tenant, "scope": whose, "period": period})
    output.say(f"Removed the budget of {whose} with the period {period!r}.")
    output.next(f"holdfast budget show --tenant {shlex.quote(tenant)}")


@app.command("grant")
def grant(
    tenant: Tenant,
    usd: Annotated[str, typer.Option(metavar="AMOUNT", help="How many US dollars, like 12.50.")],
    payment: Annotated[
        str,
        typer.Option("--id", help="Names the payment, which then counts once. Random if left out.", show_default=False),
    ] = "",
    as_json: Json = False,
) -> None:
    """Add prepaid credit. From its first grant on, a tenant can spend what was paid in and no more."""
    from cli import books

    payment = payment or secrets.token_hex(8)
    row = books.grant(tenant, usd, payment)
    output = Output(as_json=as_json)
    output.document({"id": payment, **row})
    output.say(f"Payment {payment} of {usd} USD is on the account of {tenant}; {row['usd_left']} USD are available.")
    output.next(f"holdfast budget show --tenant {shlex.quote(tenant)}")
