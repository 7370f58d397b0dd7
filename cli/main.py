"""The `holdfast` command: registers the verbs, turns errors into exit codes, and ends the process.

Nothing heavy is imported here: a verb that needs the engine, the models or the gateway imports them itself, so that
`holdfast --help` and the verbs that only speak HTTP start at once.
"""

import sys
import traceback
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Exit, TyperException

from cli import (
    agents,
    approvals,
    budget,
    dev,
    doctor,
    ingest,
    mcp,
    models,
    requests,
    route,
    serve,
    team,
    temporal,
    usage,
    webhooks,
)
from cli.output import Problem, report
from holdfast import __version__
from holdfast.errors import HoldfastError
from holdfast.leaving import leave

app = typer.Typer(
    name="holdfast",
    epilog="Start with `holdfast dev`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 gateway unreachable.",
    no_args_is_help=True,
    # A traceback with local variables would show the texts of requests.
    pretty_exceptions_enable=False,
)


def _answer(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def holdfast(
    version: Annotated[
        bool, typer.Option("--version", callback=_answer, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Agentic LLM requests that survive crashes, never overspend, wait for people, and can be replayed."""


app.command("dev")(dev.dev)
app.command("temporal")(temporal.temporal)
app.command("gateway")(serve.gateway)
app.command("ask")(requests.ask)
app.add_typer(requests.app, name="requests")
app.add_typer(approvals.app, name="approvals")
app.command("decide")(approvals.decide)
app.command("ingest")(ingest.ingest)
app.command("mcp")(mcp.mcp)
app.add_typer(agents.app, name="agents")
app.add_typer(models.app, name="models")
app.add_typer(budget.app, name="budget")
app.command("usage")(usage.usage)
app.add_typer(route.app, name="route")
app.add_typer(team.app, name="demo")
app.add_typer(webhooks.app, name="webhooks")
app.command("doctor")(doctor.doctor)


def run() -> NoReturn:
    """Run the command line and end the process with its exit code; the entry of the console script."""
    try:
        code = execute(sys.argv[1:])
    except BrokenPipeError:  # the reader (`| head`) has gone
        code = 1
    leave(code)


def execute(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: The words after the program's name.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 the gateway does not answer.

    Raises:
        BrokenPipeError: Whoever read the output has gone.
    """
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        # Typer writes usage errors as text by itself only in its stand-alone mode.
        result = app(arguments, prog_name="holdfast", standalone_mode=not as_json)
        return result if isinstance(result, int) else 0
    except HoldfastError as error:
        return report(error, as_json=as_json)
    except TyperException as error:
        remedy = "See `holdfast --help`."
        return report(Problem(error.format_message(), remedy=remedy, exit_code=error.exit_code), as_json=as_json)
    except Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        raise
    except Exception:
        # A fault of ours. Letting it out would end the process on the interpreter's own path; see `leave`.
        traceback.print_exc()
        return report(Problem("Holdfast failed; standard error says where."), as_json=as_json) if as_json else 1
