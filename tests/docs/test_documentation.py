"""What the documents say is true: snippets parse, the agent loads, commands exist, links lead somewhere."""

import ast
import base64
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from typer.core import TyperGroup

from cli.main import app
from holdfast.agent_file import (
    AgentFile,
    EscalationSettings,
    FallbackSettings,
    LimitSettings,
    OutputApprovalSettings,
    PolicySettings,
    TaintSettings,
)
from holdfast.configuration import load_configuration
from holdfast.contracts import AtLimit, Guards, Status, Strategy
from holdfast.deployments import Deployment, ProviderName
from holdfast.errors import Outcome
from holdfast.notify import EVENTS, load_notifications
from holdfast.notify.configuration import EmailSettings, SendingSettings, WebhookSettings
from holdfast.people import People
from holdfast.routing.intents import Intent
from holdfast.settings import Section, Settings
from holdfast.tools import PolicySettings as CallSettings
from holdfast.tools import load_toolset, tool
from holdfast.tools.knowledge import KnowledgeSettings
from simulator.behaviour import Kind
from simulator.program import Profile

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "PROMISES.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?<![\w./-])holdfast ((?:dev|gateway|[a-z]+)\b[^`\n]*)")


@dataclass(frozen=True)
class Snippet:
    """A fenced block."""

    document: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}-{self.number}"


def text_of(document: Path) -> str:
    """A document's text."""
    return document.read_text(encoding="utf-8")


def snippets(*languages: str) -> list[Snippet]:
    """The fenced blocks of all documents in some languages."""
    return [
        Snippet(document.name, number, match[1], match[2])
        for document in DOCUMENTS
        for number, match in enumerate(_BLOCK.finditer(text_of(document)), start=1)
        if match[1] in languages
    ]


def names_in_tables(document: str, heading: str) -> set[str]:
    """The names in the first column of the first table below some words."""
    text = text_of(REPOSITORY / "docs" / document)
    below = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(below) if line.startswith("|---"))
    rows = []
    for line in below[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append(line.split("|")[1])
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("snippet", snippets("toml", "json", "python"), ids=str)
def test_every_snippet_parses(snippet: Snippet) -> None:
    match snippet.language:
        case "toml":
            assert tomllib.loads(snippet.text)
        case "json":
            assert json.loads(snippet.text)
        case _:
            assert ast.parse(f"async def step(self):\n{_indented(snippet.text)}")


@pytest.mark.parametrize("snippet", snippets("toml"), ids=str)
def test_every_toml_snippet_is_accepted_by_what_reads_it(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tomllib.loads(snippet.text)
    if "prompt" in table:
        config = write_config(tmp_path, snippet.text)
        assert load_configuration(config).agent("documented").plan.deployments
    elif "deployments" in table:
        config = write_config(tmp_path, 'deployments = ["extractive"]\nprompt = "any.md"\n')
        with (config / "models.toml").open("a", encoding="utf-8") as models:
            models.write(snippet.text)
        assert set(table["deployments"]) <= set(load_configuration(config).deployments)
    elif "tenants" in table:
        (tmp_path / "people.toml").write_text(snippet.text, encoding="utf-8")
        people = People(tmp_path / "people.toml")
        for tenant, known in table["tenants"].items():
            for role, users in known["roles"].items():
                assert people.users_of(tenant, (f"role:{role}",)) == tuple(users)
    elif "webhooks" in table or "email" in table:
        (tmp_path / "notifications.toml").write_text(snippet.text, encoding="utf-8")
        secret = "whsec_" + base64.b64encode(bytes(32)).decode()
        named = re.findall(r'"([A-Z_]+)"', snippet.text)
        environment = {name: "https://example.org" if name.endswith("_URL") else secret for name in named}
        agents = [agent for hook in table.get("webhooks", {}).values() for agent in hook.get("agents", ())]
        told = load_notifications(tmp_path, environment, agents)
        assert set(told.webhooks) == set(table.get("webhooks", {}))
    elif isinstance(table.get("tools"), list):
        assert AgentFile.model_validate({"deployments": ["any"], "prompt": "any.md", **table}).tools
    elif table.keys() & {"modules", "tools", "mcp"}:
        (tmp_path / "tools.toml").write_text(snippet.text, encoding="utf-8")
        loaded = load_toolset(tmp_path)
        assert set(table.get("tools", {})) <= set(loaded.tools)
        assert set(table.get("mcp", {})) == set(loaded.servers)
    elif table.keys() & {"default", "models"}:
        assert Profile.read(table).models
    else:
        file = tmp_path / "holdfast.toml"
        file.write_text(snippet.text, encoding="utf-8")
        monkeypatch.setenv("HOLDFAST_CONFIG", str(file))
        assert Settings().model_fields_set == set(table)


def test_the_agent_of_the_readme_asks_finance_and_has_a_ceiling(tmp_path: Path) -> None:
    (snippet,) = (snippet for snippet in snippets("toml") if snippet.document == "README.md")
    agent = load_configuration(write_config(tmp_path, snippet.text)).agent("documented")
    (policy,) = agent.toolbox.policies
    assert (policy.on, policy.rule.approvers) == ("refund", ("role:finance",))
    assert len(snippet.text.splitlines()) <= 15
    assert str(agent.limits.cost_usd) == "0.05"


def test_documented_keys_are_exactly_those_that_exist() -> None:
    tables = {
        "approval",
        "approvals",
        "budget_approval",
        "limits",
        "guards",
        "taint",
        "fallbacks",
        "escalation",
        "intents",
    }
    assert names_in_tables("agents.md", "## Keys") == set(AgentFile.model_fields) - tables
    rules = set(OutputApprovalSettings.model_fields)
    assert names_in_tables("agents.md", "`[approval]`") == rules
    assert names_in_tables("agents.md", "`[[approvals]]` has") == set(PolicySettings.model_fields) - rules
    assert names_in_tables("agents.md", "`[taint]`") == set(TaintSettings.model_fields)
    assert names_in_tables("agents.md", "`[limits]`") == set(LimitSettings.model_fields)
    assert names_in_tables("agents.md", "`[guards]`") == set(Guards.model_fields)
    assert names_in_tables("agents.md", "`[fallbacks]`") == set(FallbackSettings.model_fields)
    assert names_in_tables("agents.md", "`[escalation]`") == set(EscalationSettings.model_fields)
    assert names_in_tables("agents.md", "`[[intents]]`") == set(Intent.model_fields)
    timeouts = {f"timeouts.{name}" for name in ("connect", "first_token", "between_tokens", "total")}
    assert names_in_tables("models.md", "## Keys") == set(Deployment.model_fields) - {"timeouts"} | timeouts
    assert names_in_tables("operations.md", "| setting |") == set(all_settings())


def test_documented_events_and_keys_of_notifications_are_exactly_those_that_exist() -> None:
    assert names_in_tables("notifications.md", "## Events") == set(EVENTS)
    assert names_in_tables("notifications.md", "## Webhooks") == set(WebhookSettings.model_fields)
    email = {field.alias or name for name, field in EmailSettings.model_fields.items()}
    assert names_in_tables("notifications.md", "## E-mail") == email
    assert names_in_tables("notifications.md", "key of `[sending]`") == set(SendingSettings.model_fields)


def test_documented_options_of_tools_are_exactly_those_that_exist() -> None:
    options = set(inspect.signature(tool).parameters) - {"function"}
    assert names_in_tables("tools.md", "`@tool(...)` takes") == options
    assert names_in_tables("tools.md", "Besides the options of the built-in tool") == set(CallSettings.model_fields)
    assert names_in_tables("tools-builtin.md", "## knowledge_search") == set(KnowledgeSettings.model_fields)


def test_documented_providers_strategies_and_actions_are_exactly_those_that_exist() -> None:
    assert names_in_tables("models.md", "## Providers") == set(get_args(ProviderName))
    assert names_in_tables("routing.md", "## Strategies") == set(get_args(Strategy))
    assert names_in_tables("budgets.md", "## At the limit") == set(AtLimit)


def test_documented_outcomes_statuses_and_kinds_are_exactly_those_that_exist() -> None:
    assert names_in_tables("architecture.md", "| outcome |") == set(Outcome)
    architecture = text_of(REPOSITORY / "docs" / "architecture.md")
    statuses = architecture[architecture.index("A request ends in one of these statuses") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", statuses)) == set(Status)
    models = text_of(REPOSITORY / "docs" / "models.md")
    kinds = models[models.index("Kinds: ") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", kinds)) == set(Kind)


def test_documented_commands_and_options_exist() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    shown = [(document.name, words) for document in DOCUMENTS for words in _commands(text_of(document))]
    assert len(shown) > 10
    for document, words in shown:
        command: Any = root
        rest = list(words)
        while isinstance(command, TyperGroup) and rest:
            name = rest.pop(0)
            assert name in command.commands, f"{document}: holdfast {' '.join(words)}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        unknown = {word for word in rest if word.startswith("--")} - known - {"--help"}
        assert not unknown, f"{document}: holdfast {' '.join(words)}"


def test_every_verb_is_documented() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    shown = {words[0] for document in DOCUMENTS for words in _commands(text_of(document))}
    assert set(root.commands) <= shown


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(REPOSITORY / "Makefile"), flags=re.MULTILINE))
    named = {name for document in DOCUMENTS for name in re.findall(r"(?:`| {4})make ([a-z]+)", text_of(document))}
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in _LINK.findall(text_of(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert file.is_relative_to(REPOSITORY), target
        assert not anchor or anchor in set(_anchors(text_of(file))), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    rooms = r"(?:activities|bench|cli|config|docs|gateway|holdfast|samples|simulator|temporal-dev|tests|workflows)"
    named = re.findall(rf"(?<![\w./-])({rooms}/[\w./-]*\w)", text_of(document))
    produced = ("bench/results", "config/holdfast.toml", "config/notifications.toml", "config/people.toml")
    assert not [name for name in named if not (REPOSITORY / name).exists() and not name.startswith(produced)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_no_document_names_a_machine_or_a_package_host(document: Path) -> None:
    text = text_of(document)
    assert not re.search(r"(?<![\w.~:/-])/(?:work|home|root|tmp|usr|opt|Users)/", text)
    assert not re.search(r"pypi|pythonhosted|download\.pytorch|index-url https?:|conda\.", text, re.IGNORECASE)


@pytest.mark.parametrize("name", ["timeline.png", "run-sheet.png"])
def test_the_pictures_are_there_and_small(name: str) -> None:
    picture = REPOSITORY / "docs" / "images" / name
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 400_000


def write_config(directory: Path, agent: str) -> Path:
    """A configuration with one agent, `documented`, and whatever files it names."""
    config = directory / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    for name in ("models.toml", "tools.toml"):
        (config / name).write_text(text_of(REPOSITORY / "config" / name), encoding="utf-8")
    (config / "agents" / "documented.toml").write_text(agent, encoding="utf-8")
    table = tomllib.loads(agent)
    (config / "prompts" / table["prompt"]).write_text("Answer.\n", encoding="utf-8")
    if schema := table.get("output_schema"):
        (config / "schemas" / schema).write_text('{"type": "object"}', encoding="utf-8")
    return config


def all_settings() -> Iterator[str]:
    """Dotted names of all settings."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{inner}" for inner in field.annotation.model_fields)
        else:
            yield name


def _commands(text: str) -> Iterator[list[str]]:
    """The words after `holdfast` in code blocks and code spans."""
    code = [match[2] for match in _BLOCK.finditer(text) if match[1] in ("sh", "")]
    code += re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    for piece in code:
        for match in _COMMAND.finditer(piece):
            yield shlex.split(match[1], comments=True)


def _anchors(text: str) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
