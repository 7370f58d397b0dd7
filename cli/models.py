"""`models limits`: the rates of the deployments' queues, shown and brought in line with the configuration."""

import asyncio

import typer
from rich.table import Table

from cli.options import Json
from cli.output import Output

app = typer.Typer(help="The ways to reach models.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """The ways to reach models."""


@app.command("limits")
def limits(as_json: Json = False) -> None:
    """Set each deployment's queue to the `requests_per_minute` of models.toml, and show what is in force.

    Workers do the same when they start; this is for a change that should not wait for a restart.
    """
    output = Output(as_json=as_json)
    with output.working("Setting the limits"):
        rows = asyncio.run(_apply())
    output.document({"deployments": rows})
    table = Table(box=None, pad_edge=False)
    for heading in ("deployment", "requests a minute", "tokens a minute", "in flight"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            *("-" if value is None else f"{value:g}" if not isinstance(value, str) else value for value in row.values())
        )
    output.table(table)
    output.next("change `requests_per_minute` in config/models.toml, then run this again")


async def _apply() -> list[dict[str, str | float | None]]:
    # The engine's SDK is loaded by the verbs that need it only.
    from holdfast.configuration import load_configuration
    from holdfast.settings import load_settings
    from workflows.connection import connect_client
    from workflows.queue_limits import queue_limit, set_queue_limits

    settings = load_settings()
    deployments = {
        name: deployment
        for name, deployment in load_configuration(settings.config_dir).deployments.items()
        if deployment.enabled and not deployment.in_process
    }
    engine = settings.engine
    client = await connect_client(engine.address, engine.namespace)
    await set_queue_limits(
        client, engine.task_queue, {name: found.requests_per_minute for name, found in deployments.items()}
    )
    return [
        {
            "deployment": name,
            "requests_per_minute": await queue_limit(client, engine.task_queue, name),
            "tokens_per_minute": deployment.tokens_per_minute,
            "concurrency": deployment.concurrency,
        }
        for name, deployment in deployments.items()
    ]
