"""What a user edits, read whole and checked whole at start: deployments, agents, prompts, schemas."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from holdfast.agent_file import AgentFile
from holdfast.contracts import ApprovalRule, ContentRef, Escalation, Fallbacks, Guards, Limits, Plan, Taint, Toolbox
from holdfast.deployments import NAME, Deployment, check_names
from holdfast.errors import ConfigurationError, UnknownAgent
from holdfast.feasibility import check_limits
from holdfast.guards import check_refusal_patterns
from holdfast.handlers import load_handler
from holdfast.project import importable
from holdfast.routing.intents import check_intents
from holdfast.settings import Section, describe
from holdfast.teams import check_teams
from holdfast.toolboxes import check_toolbox, toolbox_of
from holdfast.tools import Toolset, load_toolset
from holdfast.validation import check_schema

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Agent:
    """An agent ready to be planned: its file with prompt and schema resolved."""

    name: str
    description: str
    plan: Plan
    limits: Limits
    history: int
    """Earlier exchanges of a session that are shown."""
    texts: tuple[str, ...]
    """The texts that the plan's references stand for, to be put in each tenant's content store."""
    toolbox: Toolbox = field(default_factory=Toolbox)
    """What the plan's `toolbox` stands for."""

    @property
    def rules(self) -> tuple[ApprovalRule, ...]:
        """Every rule under which people can be asked."""
        rules = (self.plan.approval, self.plan.budget_approval, *(policy.rule for policy in self.toolbox.policies))
        return tuple(rule for rule in rules if rule is not None)


@dataclass(frozen=True)
class Configuration:
    """All deployments and agents."""

    deployments: dict[str, Deployment]
    agents: dict[str, Agent]
    toolset: Toolset
    """Every tool that agents may list."""

    def unready(self) -> list[str]:
        """What the tools of agents lack that may still come, such as a database's file, each with its remedy.

        For processes that call tools, and for whoever checks the files; the gateway needs none of it.

        Raises:
            ConfigurationError: A tool lacks what only another start can bring, such as a variable.
        """
        return self.toolset.unready(name for agent in self.agents.values() for name in agent.toolbox.tools)

    def agent(self, name: str) -> Agent:
        """Look an agent up.

        Raises:
            UnknownAgent: No file defines it; suggests the nearest name.
        """
        if name in self.agents:
            return self.agents[name]
        near = difflib.get_close_matches(name, self.agents, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known agents: {', '.join(sorted(self.agents))}."
        raise UnknownAgent(f"Agent {name[:80]!r} is not defined.{hint}", field="agent")


def load_configuration(directory: Path) -> Configuration:
    """Read `models.toml` and every agent, and check that they fit together.

    Raises:
        ConfigurationError: With file, key and remedy; all files are read before anything is served.
    """
    models_file = directory / "models.toml"
    models = _toml(models_file)
    if extra := set(models) - {"deployments"}:
        raise ConfigurationError(f"{models_file}: unknown key {sorted(extra)[0]!r}; expected `[deployments.<name>]`.")
    tables = models.get("deployments", {})
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{models_file}: `deployments` must hold tables, `[deployments.<name>]`.")
    deployments = {}
    for name, table in tables.items():
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f"{models_file}: `deployments.{name}`: a deployment's name is lower case letters, digits, - and _."
            )
        deployment = deployments[name] = _parse(Deployment, table, models_file, f"deployments.{name}.")
        if deployment.provider == "handler" and deployment.enabled:
            importable(directory)
            load_handler(deployment.model, deployment.parameters, where=f"{models_file}: deployments.{name}")
    if not deployments:
        raise ConfigurationError(f"{models_file}: defines no deployment; add a `[deployments.<name>]` table.")
    files = sorted((directory / "agents").glob("*.toml"))
    if not files:
        raise ConfigurationError(f"{directory / 'agents'}: holds no agent; add a `<name>.toml` file.")
    toolset = load_toolset(directory)
    specs = {file.stem: _parse(AgentFile, _toml(file), file) for file in files}
    check_teams({name: spec.delegates for name, spec in specs.items()}, directory / "agents")
    agents = {}
    for file in files:
        spec = specs[file.stem]
        _check_references(spec, file, directory, deployments)
        schema = _output_schema(spec, file, directory)
        check_toolbox(spec, file, toolset, deployments, schema)
        descriptions = {name: specs[name].description for name in spec.delegates}
        agent = _agent(spec, file, directory, schema, toolbox_of(spec, descriptions, file), toolset)
        asked = dict.fromkeys([*spec.deployments, *(name for _, names in spec.fallbacks for name in names)])
        check_limits(agent.limits, agent.texts[0], schema, (deployments[name] for name in asked), str(file))
        agents[file.stem] = agent
    return Configuration(deployments, agents, toolset)


def _output_schema(spec: AgentFile, file: Path, directory: Path) -> dict[str, Any] | None:
    """The JSON Schema of an agent's answers; none if they are text."""
    if not spec.output_schema:
        return None
    path = directory / "schemas" / spec.output_schema
    try:
        schema = json.loads(_text(directory / "schemas", spec.output_schema, file, "output_schema"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigurationError(f"{path}: a JSON Schema of an answer is an object, not {type(schema).__name__}.")
    check_schema(schema, where=str(path))
    return schema


def _agent(
    spec: AgentFile, file: Path, directory: Path, schema: dict[str, Any] | None, toolbox: Toolbox, toolset: Toolset
) -> Agent:
    check_refusal_patterns(spec.guards.refuse, where=f"{file}: `guards.refuse`")
    instructions = _text(directory / "prompts", spec.prompt, file, "prompt")
    texts = [instructions]
    schema_ref = None
    if schema is not None:
        texts.append(json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
        schema_ref = reference(texts[-1])
    intents_ref = None
    if spec.intents:
        texts.append(json.dumps([intent.model_dump(mode="json") for intent in spec.intents], sort_keys=True))
        intents_ref = reference(texts[-1])
    toolbox_ref = None
    if spec.acts:
        texts.append(json.dumps(toolbox.model_dump(mode="json"), sort_keys=True))
        toolbox_ref = reference(texts[-1])
    # Every field is set explicitly: what is unset is left out of a history, and a default may change with a release.
    try:
        given = spec.limits.model_copy(update={"attempts": spec.model_calls}).model_dump(exclude_none=True)
        limits = Limits(**Limits(**given).model_dump())
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, Limits, 'limits.')}") from None
    version = hashlib.sha256(
        "\n".join(
            [spec.model_dump_json(), toolset.digest(spec.tools), *(reference(text).sha256 for text in texts)]
        ).encode()
    ).hexdigest()[:16]
    output = spec.output_approval
    try:
        plan = Plan(
            agent=file.stem,
            version=version,
            deployments=spec.deployments,
            instructions=reference(instructions),
            output_schema=schema_ref,
            collection=spec.collection,
            passages=spec.passages,
            approval=output.rule if output else None,
            approval_when=output.when if output else "",
            toolbox=toolbox_ref,
            taint=Taint(**spec.taint.model_dump()),
            guards=Guards(**spec.guards.model_dump()),
            recall=not spec.acts if spec.recall is None else spec.recall,
            strategy=spec.routing,
            regions=spec.regions,
            fallbacks=Fallbacks(**spec.fallbacks.model_dump()),
            escalation=Escalation(**spec.escalation.model_dump()) if spec.escalation else None,
            intents=intents_ref,
            budget_approval=spec.budget_approval.rule if spec.budget_approval else None,
            on_disconnect=spec.on_disconnect,
        )
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, Plan)}") from None
    return Agent(file.stem, spec.description, plan, limits, spec.history, tuple(texts), toolbox)


def _check_references(spec: AgentFile, file: Path, directory: Path, deployments: Mapping[str, Deployment]) -> None:
    lists = {"deployments": spec.deployments, "escalation.to": spec.escalation.to if spec.escalation else ()}
    lists |= {f"fallbacks.{cause}": tuple(names) for cause, names in spec.fallbacks}
    for key, names in lists.items():
        check_names(file, key, names, deployments, directory / "models.toml")
    known = {deployment.region for deployment in deployments.values()}
    for region in spec.regions:
        if region not in known:
            raise ConfigurationError(
                f"{file}: `regions` admits {region!r}, where no deployment of {directory / 'models.toml'} computes; "
                f"set `region` for one, or correct the name."
            )
    check_intents(spec.intents, deployments, where=f"{file}: intents")
    for intent in spec.intents:
        if deployments[intent.deployment].provider != "handler":
            raise ConfigurationError(
                f"{file}: `intents.{intent.name}.deployment` names {intent.deployment!r}, which is no handler; give it "
                "a deployment with provider 'handler'."
            )
    if spec.escalation and spec.escalation.field and not spec.output_schema:
        raise ConfigurationError(
            f"{file}: `escalation.field` points into a JSON reply, but the agent has no `output_schema`; "
            "give it one, or leave `field` out."
        )


def reference(text: str) -> ContentRef:
    """The content reference of a text."""
    data = text.encode()
    return ContentRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{file}: does not exist; create it or point `config_dir` elsewhere.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from None


def _parse(kind: type[SectionT], table: dict[str, Any], file: Path, prefix: str = "") -> SectionT:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, kind, prefix, table)}") from None


def _files(directory: Path) -> list[str]:
    return [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]


def _text(directory: Path, name: str, file: Path, key: str) -> str:
    # What is read here is sent to model providers, so a path that leads out of the directory is a mistake at best.
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigurationError(f"{file}: `{key}` must name a file in {directory}, not {name!r}.")
    path = directory / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(name, sorted(_files(directory)), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Create it in {directory}."
        raise ConfigurationError(f"{file}: `{key}` names {path}, which does not exist.{hint}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: `{key}` names {path}, which cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not valid UTF-8: {error.reason} at byte {error.start}.") from None
