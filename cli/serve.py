"""`gateway`: the HTTP edge as a process of its own, as in production."""

from typing import Annotated

import typer

from cli.options import Json
from cli.output import Output


def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; else gateway.host.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; else gateway.port.")] = None,
    ui_url: Annotated[
        str, typer.Option(envvar="HOLDFAST_UI_URL", help="Address of the Temporal Web UI, for links to traces.")
    ] = "http://127.0.0.1:8233",
    as_json: Json = False,
) -> None:
    """Serve the HTTP API until Ctrl-C. Needs a Temporal server; `python worker.py` does the work."""
    # The gateway and the engine's SDK take a second to load, which no other verb should pay.
    import logging

    from gateway.server import run
    from holdfast.settings import load_settings

    output = Output(as_json=as_json)
    given = ({"host": host} if host else {}) | ({"port": port} if port is not None else {})
    settings = load_settings(**({"gateway": given} if given else {}))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ready(url: str) -> None:
        output.document({"url": url, "engine": settings.engine.address})
        output.say(f"The gateway serves {url}; the engine is at {settings.engine.address}.")
        output.next("python worker.py", f"holdfast ask docs '...' --url {url}", "stop with Ctrl-C")

    run(settings, ui_url=ui_url, on_ready=ready)
    output.say("The gateway has stopped.")
