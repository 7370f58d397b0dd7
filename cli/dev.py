"""`dev`: all of Holdfast in one process and one child, for a first look and for development."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import Json
from cli.output import Output


def dev(
    once: Annotated[bool, typer.Option("--once", help="Approve the demo's answer, show it, and end.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the gateway.")] = None,
    temporal_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the Temporal server.")] = None,
    ui_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the Temporal Web UI.")] = None,
    simulator_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the demo model.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Where everything is kept; else var/.")] = None,
    as_json: Json = False,
) -> None:
    """Start the Temporal server, the demo model, a worker and the gateway; index docs/ and ask one question.

    A taken port moves to a free one, but for the one that `--port` asks for. Ctrl-C stops everything in order.
    """
    # Loads the engine's SDK, the gateway and the worker, 2 s that no other verb should pay.
    from cli import supervision

    options = supervision.Options(
        once=once, port=port, temporal_port=temporal_port, ui_port=ui_port, simulator_port=simulator_port, data=data
    )
    raise typer.Exit(supervision.run(options, Output(as_json=as_json)))
