"""`route explain`: which deployment would answer a question, and why, without calling any."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cli.options import Json
from cli.output import DONE, FAILED, Output

app = typer.Typer(help="How deployments are chosen.", no_args_is_help=True)


@app.callback()
def route() -> None:
    """How deployments are chosen."""


@app.command("explain")
def explain_route(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent of config/agents.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What would be asked.")],
    without: Annotated[
        list[str] | None, typer.Option("--without", help="A deployment to leave out, as if it had failed; repeatable.")
    ] = None,
    no_embedding: Annotated[
        bool, typer.Option("--no-embedding", help="Do not embed the question: no intents, no complexity, no waiting.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the decision for a first call: the choice, what comes after it, and the reason of every policy.

    Breakers and cooldowns are looked at when `shared.url` names a Redis server; otherwise only the workers know them.
    Budgets of tenants and users are not looked at, nor are retrieved passages. Ends with 1 when nothing may answer.
    """
    output = Output(as_json=as_json)
    with output.working("Deciding"):
        document, text = asyncio.run(_decide(agent, question, tuple(without or ()), embedding=not no_embedding))
    output.document(document)
    for line in text.splitlines():
        output.say(line)
    chosen = document["deployment"]
    if chosen:
        output.next(f"holdfast ask {agent} '...'", f"holdfast route explain {agent} '...' --without {chosen}")
    else:
        output.next(f"change config/agents/{agent}.toml or config/models.toml, then run this again")
    raise typer.Exit(DONE if chosen else FAILED)


async def _decide(
    agent_name: str, question: str, without: tuple[str, ...], *, embedding: bool
) -> tuple[dict[str, object], str]:
    # The ledger, the price list and numpy take a while to load, which no other verb should pay.
    from holdfast.configuration import load_configuration
    from holdfast.contracts import Request, RouteInput
    from holdfast.health import MemoryHealth, RedisHealth
    from holdfast.knowledge import MiniLM
    from holdfast.ledger import Ledger
    from holdfast.prices import Prices
    from holdfast.router import Router
    from holdfast.routing.decision import explain
    from holdfast.settings import load_settings

    settings = load_settings()
    configuration = load_configuration(settings.config_dir)
    agent = configuration.agent(agent_name)
    shared = settings.shared
    health = RedisHealth(shared.url, shared.prefix) if shared.url else MemoryHealth()
    embedder = MiniLM()
    # The router reads texts from a ledger. One of its own leaves the installation's untouched.
    with TemporaryDirectory(prefix="holdfast-route-") as directory:
        ledger = await Ledger.open(f"sqlite+aiosqlite:///{Path(directory) / 'texts.db'}")
        try:
            await ledger.contents.put_many("explain", agent.texts)
            asked = await ledger.contents.put("explain", question)
            request = Request(
                id="req_explained0",
                tenant="explain",
                user="explain",
                plan=agent.plan,
                input=asked,
                limits=agent.limits,
                submitted_at=datetime.now(UTC),
            )
            router = Router(configuration.deployments, Prices(), ledger, health, embedder)
            decision = await router.route(
                RouteInput(
                    deployments=agent.plan.deployments,
                    excluded=without,
                    request=request,
                    question=asked if embedding else None,
                )
            )
        finally:
            await ledger.aclose()
            await embedder.aclose()
            await health.aclose()
    document: dict[str, object] = {
        "agent": agent_name,
        "deployment": decision.chosen.name if decision.chosen else None,
        "line": decision.one_line(),
        "alternatives": [candidate.name for candidate in decision.alternatives],
        "reasons": [
            {"policy": reason.policy, "deployment": reason.candidate, "effect": reason.effect, "text": reason.text}
            for reason in decision.reasons
        ],
    }
    return document, explain(decision)
