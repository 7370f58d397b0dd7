"""`temporal`: the development Temporal server by itself, for running gateway and worker as processes of their own."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import Json
from cli.output import Output, Problem


def temporal(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the frontend; else 7233.")] = None,
    ui_port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of the Web UI; else 8233.")] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where its state is kept.")] = Path("var"),
    as_json: Json = False,
) -> None:
    """Serve a development Temporal server, as `temporal-dev/` configures it, until Ctrl-C."""
    # The engine's SDK takes half a second to load, which no other verb should pay.
    import asyncio
    import signal

    from cli.temporal_server import TemporalServer

    output = Output(as_json=as_json)

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopped.set)
        async with TemporalServer(database=data / "temporal.db", port=port, ui_port=ui_port) as server:
            for sentence in server.moved:
                output.say(sentence)
            output.document({"address": server.address, "ui": server.ui_url})
            output.say(f"The Temporal server serves {server.address}; its Web UI is at {server.ui_url}.")
            moved = "" if server.address == "127.0.0.1:7233" else f"HOLDFAST_ENGINE__ADDRESS={server.address} "
            output.next(f"{moved}holdfast gateway", f"{moved}python worker.py", "stop with Ctrl-C")
            while server.running and not stopped.is_set():
                try:
                    await asyncio.wait_for(stopped.wait(), 0.5)
                except TimeoutError:
                    continue
            if not stopped.is_set():
                raise Problem(f"The Temporal server has died. Its log ends:\n{server.log_tail()}")

    asyncio.run(serve())
    output.say("The Temporal server has stopped.")
