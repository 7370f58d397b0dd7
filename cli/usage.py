"""`usage`: what was spent, by tenant, user, agent, model, day or deployment. Reads the ledger itself."""

import csv
import sys
from typing import Annotated, Literal

import typer
from rich.table import Table

from cli.options import Json
from cli.output import USAGE, Output, Problem, visible

TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
COLUMNS = (
    "calls",
    *TOKENS,
    "cost_usd",
    "unpriced_calls",
    "worst_case_calls",
    "worst_case_tokens",
    "worst_case_cost_usd",
)


def usage(
    by: Annotated[
        Literal["tenant", "user", "agent", "model", "day", "deployment"], typer.Option(help="What one line is about.")
    ] = "tenant",
    tenant: Annotated[str, typer.Option(help="Only this one's calls.", show_default=False)] = "",
    since: Annotated[str, typer.Option(metavar="DAY", help="First day, UTC.", show_default=False)] = "",
    until: Annotated[str, typer.Option(metavar="DAY", help="Last day, UTC, included.", show_default=False)] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values instead of text.")] = False,
    as_json: Json = False,
) -> None:
    """Show tokens and dollars spent. Calls of unknown outcome count at their worst case, which is also shown apart."""
    from cli import books

    if as_csv and as_json:
        raise Problem("The output is either CSV or JSON.", remedy="Leave one out.", exit_code=USAGE)
    rows = books.usage(by, tenant or None, since, until)
    if as_csv:
        writer = csv.DictWriter(sys.stdout, fieldnames=(by, *COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    output = Output(as_json=as_json)
    output.document({"by": by, "since": since or None, "until": until or None, "usage": rows})
    if not rows:
        output.say("Nothing was spent.")
        output.next("holdfast ask docs '...'")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column(by, overflow="fold")
    for title in ("calls", "input", "cache read", "cache write", "output", "USD", "of it worst case"):
        table.add_column(title, justify="right")
    for row in rows:
        cost = row["cost_usd"] + (f" + {row['unpriced_calls']} unpriced" if row["unpriced_calls"] else "")
        worst = f"{row['worst_case_cost_usd']} in {row['worst_case_calls']}" if row["worst_case_calls"] else "-"
        counts = [str(row[name]) for name in ("calls", *TOKENS)]
        table.add_row(visible(row[by] or "not known"), *counts, cost, worst)
    output.table(table)
    output.next("holdfast budget show")
