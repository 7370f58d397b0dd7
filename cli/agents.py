"""`agents`: check, list and show what `config/` defines, and begin a new agent.

All of it works on the files, so nothing has to run; `check` is what every process does when it starts.
"""

import os
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.options import Json
from cli.output import DONE, USAGE, Output, Problem, visible
from holdfast.errors import UnknownAgent

app = typer.Typer(help="The agents of config/agents.", no_args_is_help=True)

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="An agent of config/agents.")]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
"""As `holdfast.contracts.plan.Name`."""

RESTART = "restart gateway and workers, which read the files when they start"

FILE = """\
description = "{description}"
deployments = ["{deployment}"]
prompt = "{name}.md"
# tools = ["calculator"]            # docs/tools.md
# delegates = ["docs"]              # docs/teams.md

[limits]
tokens = 20_000
deadline = "8h"

# [[approvals]]                     # docs/approvals.md
# on = "output"
# approvers = ["ann"]               # or "role:...", which config/people.toml gives to somebody
# within = "4h"
"""

PROMPT = """\
You are the agent "{name}". Your task: {description}

Answer briefly, in plain sentences. When you do not know, say so.
"""


@app.callback()
def agents() -> None:
    """The agents of config/agents."""


@app.command("check")
def check(as_json: Json = False) -> None:
    """Read everything under config/ as a process does when it starts, and say what is wrong with it.

    Ends with 1, and the file, the key and the remedy, when something is. What may still come is told: a database's
    file, or the program of an MCP server.
    """
    output = Output(as_json=as_json)
    # As in `list_agents`.
    from cli.agent_files import read
    from cli.checks import check_roles
    from holdfast.notify import load_notifications

    directory, configuration = read()
    check_roles(directory, configuration)
    load_notifications(directory, os.environ, configuration.agents)
    lacking = configuration.unready()
    names = sorted(configuration.agents)
    output.document({"ok": True, "config_dir": str(directory), "agents": names, "lacking": lacking})
    for sentence in lacking:
        output.say(sentence, style="yellow")
    output.say(f"{directory}: {len(names)} agents and {len(configuration.deployments)} deployments fit together.")
    output.next("holdfast agents list", RESTART)
    raise typer.Exit(DONE)


@app.command("list")
def list_agents(as_json: Json = False) -> None:
    """Every agent with what it may use and who must agree."""
    output = Output(as_json=as_json)
    # Reading the configuration loads validators and price lists, which no other verb should pay.
    from cli.agent_files import read, row

    _, configuration = read()
    found = [configuration.agents[name] for name in sorted(configuration.agents)]
    output.document({"agents": [row(agent) for agent in found]})
    table = Table(box=None, pad_edge=False)
    for heading in ("agent", "version", "deployments", "uses", "asks", "what it is for"):
        table.add_column(heading)
    for agent in found:
        shown = row(agent)
        uses = [*shown["tools"], *(f"agent {name}" for name in shown["delegates"])]
        table.add_row(
            agent.name,
            agent.plan.version,
            ", ".join(agent.plan.deployments),
            ", ".join(uses) or "-",
            ", ".join(sorted({name for rule in shown["approvals"] for name in rule["approvers"]})) or "-",
            visible(agent.description),
        )
    output.table(table)
    output.next("holdfast agents show AGENT", "holdfast ask AGENT '...'")


@app.command("show")
def show(name: AgentName, as_json: Json = False) -> None:
    """One agent, with every limit and rule as a request would get it."""
    output = Output(as_json=as_json)
    # Reading the configuration loads validators and price lists, which no other verb should pay.
    from cli.agent_files import limits_line, prompt_file, read, row, rule_lines, taint_line

    directory, configuration = read()
    try:
        agent = configuration.agent(name)
    except UnknownAgent as error:
        remedy = "`holdfast agents list` shows all of them; `holdfast agents new NAME` begins one."
        raise Problem(str(error), remedy=remedy, members={"field": error.field}) from None
    document = row(agent) | {
        "prompt_file": str(prompt_file(directory, name)),
        "prompt_sha256": agent.plan.instructions.sha256,
        "limits": agent.limits.model_dump(mode="json"),
        "collection": agent.plan.collection,
        "recall": agent.plan.recall,
        "history": agent.history,
        "taint": agent.plan.taint.model_dump(mode="json"),
        "guards": agent.plan.guards.model_dump(mode="json"),
        "fallbacks": agent.plan.fallbacks.model_dump(mode="json"),
        "output_schema": agent.plan.output_schema is not None,
    }
    output.document(document)
    output.heading(f"{agent.name}, version {agent.plan.version}")
    output.say(agent.description)
    for key in ("deployments", "tools", "delegates"):
        output.say(f"{key}: {', '.join(document[key]) or '-'}")
    output.say(f"prompt: {document['prompt_file']}, SHA-256 {document['prompt_sha256'][:16]}")
    output.say(f"limits: {limits_line(agent)}")
    output.say(taint_line(agent))
    for line in rule_lines(agent):
        output.say(line)
    output.steps(
        f"edit {directory / 'agents' / agent.name}.toml, if something is to be different, and `holdfast agents check`",
        "restart gateway and workers, if the file is newer than their start",
        f"holdfast ask {agent.name} '...'",
    )


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits, - and _.")],
    description: Annotated[str, typer.Option("--description", help="What it is for, in a sentence.")] = "",
    deployment: Annotated[
        str, typer.Option("--deployment", help="Which model; the first of models.toml if left out.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write a new agent's file and prompt, and check that everything still fits together. Overwrites nothing."""
    output = Output(as_json=as_json)
    # As in `list_agents`.
    from cli.agent_files import read

    directory, configuration = read()
    if not _NAME.fullmatch(name):
        raise Problem(
            f"{name!r} cannot be an agent's name.",
            remedy="Begin with a letter; then at most 62 lower case letters, digits, - and _.",
            exit_code=USAGE,
        )
    known = configuration.deployments
    models = [entry for entry, found in known.items() if found.enabled and not found.in_process]
    chosen = deployment or next(iter(models), "")
    if chosen not in known:
        raise Problem(
            f"Deployment {chosen!r} is not defined." if chosen else "models.toml defines no model.",
            remedy=f"Name one of {', '.join(sorted(known))} with --deployment.",
            exit_code=USAGE,
        )
    described = description or f"Helps with {re.sub('[-_]+', ' ', name).strip()}."
    if not described.isprintable():
        # TOML's text in quotation marks ends with its line, and a file that cannot be read keeps every process down.
        raise Problem("The description is not one printable line.", remedy="Say it in a sentence.", exit_code=USAGE)
    told = described.replace("\\", "\\\\").replace('"', '\\"')
    files = {
        directory / "agents" / f"{name}.toml": FILE.format(name=name, description=told, deployment=chosen),
        directory / "prompts" / f"{name}.md": PROMPT.format(name=name, description=described),
    }
    _write(files)
    read()
    output.document({"agent": name, "files": [str(path) for path in files]})
    for path in files:
        output.say(f"Wrote {path}")
    output.steps(f"edit {next(iter(files))}", "holdfast agents check", RESTART, f"holdfast ask {name} '...'")


def _write(files: dict[Path, str]) -> None:
    for path in files:
        if path.exists():
            raise Problem(f"{path} is there already.", remedy="Choose another name, or edit that file.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
