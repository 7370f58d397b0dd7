"""`doctor`: checks everything Holdfast depends on, and says what to do about what is missing."""

import asyncio
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.options import Json, Url
from cli.output import DONE, FAILED, Output, visible


def doctor(
    as_json: Json = False,
    url: Url = "",
    running: Annotated[
        bool, typer.Option("--running", help="Also fail when the services are not up; for machines that should serve.")
    ] = False,
) -> None:
    """Check every dependency. Ends with 1 when something keeps `holdfast dev` from working."""
    # The checks load what they check, which no other verb should pay.
    from cli import checks

    output = Output(as_json=as_json)
    with output.working("Checking"):
        found = asyncio.run(checks.all_checks(url))
    bad = [check for check in found if check.verdict == "problem" or (running and check.verdict == "off")]
    output.document({"ok": not bad, "checks": [check.document() for check in found]})
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        mark, style = _MARKS[check.verdict]
        lines = visible(check.found) + (f"\n{visible(check.remedy)}" if check.remedy else "")
        table.add_row(Text(mark, style=style), Text(check.name), Text(lines))
    output.table(table)
    if bad:
        output.next(f"mend {', '.join(check.name for check in bad)}, then `holdfast doctor`")
    else:
        up = any(check.name == "gateway" and check.verdict == "ok" for check in found)
        output.next("holdfast ask docs '...'" if up else "holdfast dev")
    raise typer.Exit(FAILED if bad else DONE)


_MARKS = {
    "ok": ("ok", "green"),
    "problem": ("PROBLEM", "bold red"),
    "advice": ("advice", "yellow"),
    "off": ("not running", "dim"),
}
