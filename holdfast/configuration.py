"""What a user edits, read whole and checked whole at start: deployments, agents, prompts, schemas."""

import difflib
import hashlib
import json
import sys
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from holdfast.contracts import ApprovalRule, ContentRef, Escalation, Fallbacks, Guards, Limits, Plan, Strategy
from holdfast.contracts.plan import Name
from holdfast.deployments import NAME, Deployment, check_names
from holdfast.errors import ConfigurationError, UnknownAgent
from holdfast.guards import check_refusal_patterns
from holdfast.handlers import load_handler
from holdfast.routing.intents import Intent, check_intents
from holdfast.settings import Duration, Section, describe
from holdfast.validation import check_schema

SectionT = TypeVar("SectionT", bound=Section)


class ApprovalSettings(Section):
    """`[approval]` of an agent file."""

    approvers: tuple[str, ...] = Field(min_length=1)
    within: Duration = Field(default="24h", validate_default=True)
    default: Literal["reject", "approve"] = "reject"
    requester_may_decide: bool = False


class LimitSettings(Section):
    """`[limits]` of an agent file; absent keys keep the product's defaults."""

    tokens: int | None = None
    cost_usd: Decimal | None = None
    output_tokens: int | None = None
    attempts: int | None = None
    repairs: int | None = None
    deadline: Duration | None = None


class FallbackSettings(Section):
    """`[fallbacks]` of an agent file: deployments beside the listed ones, by what stood in the way."""

    outage: tuple[Name, ...] = ()
    context_window: tuple[Name, ...] = ()
    content_policy: tuple[Name, ...] = ()
    budget: tuple[Name, ...] = ()


class EscalationSettings(Section):
    """`[escalation]` of an agent file: who is asked when a valid reply is not sure enough."""

    below: float = Field(gt=0, le=1)
    to: tuple[Name, ...] = Field(min_length=1)
    field: str = Field(default="", pattern=r"^(/.+)?$")
    """JSON Pointer to a number in the reply; empty takes the mean probability of its tokens."""


class AgentFile(Section):
    """One file of `config/agents`."""

    description: str = ""
    deployments: tuple[Name, ...] = Field(min_length=1)
    prompt: str
    """File in `config/prompts`."""
    output_schema: str = ""
    """File in `config/schemas`."""
    collection: Name | None = None
    passages: int = Field(default=6, ge=1, le=50)
    recall: bool = True
    approval: ApprovalSettings | None = None
    limits: LimitSettings = LimitSettings()
    guards: Guards = Guards()
    routing: Strategy = "ordered"
    regions: tuple[str, ...] = ()
    """Regions that may see the requests; empty admits all."""
    fallbacks: FallbackSettings = FallbackSettings()
    escalation: EscalationSettings | None = None
    intents: tuple[Intent, ...] = ()
    """Questions that a handler answers instead of a model."""
    budget_approval: ApprovalSettings | None = None
    """Who may let a request go past a budget whose `at_limit` is `ask`."""
    on_disconnect: Literal["finish", "cancel"] = "finish"
    history: int = Field(default=10, ge=0, le=100)
    """Earlier exchanges of the same session that the model is shown."""


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


@dataclass(frozen=True)
class Configuration:
    """All deployments and agents."""

    deployments: dict[str, Deployment]
    agents: dict[str, Agent]

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
            # A project's own functions lie beside its configuration, where a console script does not look by itself.
            root = str(directory.resolve().parent)
            if root not in sys.path:
                sys.path.append(root)
            load_handler(deployment.model, deployment.parameters, where=f"{models_file}: deployments.{name}")
    if not deployments:
        raise ConfigurationError(f"{models_file}: defines no deployment; add a `[deployments.<name>]` table.")
    files = sorted((directory / "agents").glob("*.toml"))
    if not files:
        raise ConfigurationError(f"{directory / 'agents'}: holds no agent; add a `<name>.toml` file.")
    return Configuration(deployments, {file.stem: _agent(file, directory, deployments) for file in files})


def _agent(file: Path, directory: Path, deployments: dict[str, Deployment]) -> Agent:
    spec = _parse(AgentFile, _toml(file), file)
    _check_references(spec, file, directory, deployments)
    check_refusal_patterns(spec.guards.refuse, where=f"{file}: `guards.refuse`")
    instructions = _text(directory / "prompts", spec.prompt, file, "prompt")
    texts = [instructions]
    schema_ref = None
    if spec.output_schema:
        path = directory / "schemas" / spec.output_schema
        try:
            schema = json.loads(_text(directory / "schemas", spec.output_schema, file, "output_schema"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(schema, dict):
            raise ConfigurationError(f"{path}: a JSON Schema of an answer is an object, not {type(schema).__name__}.")
        check_schema(schema, where=str(path))
        texts.append(json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
        schema_ref = reference(texts[-1])
    intents_ref = None
    if spec.intents:
        texts.append(json.dumps([intent.model_dump(mode="json") for intent in spec.intents], sort_keys=True))
        intents_ref = reference(texts[-1])
    # Every field is set explicitly: what is unset is left out of a history, and a default may change with a release.
    try:
        limits = Limits(**Limits(**spec.limits.model_dump(exclude_none=True)).model_dump())
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, Limits, 'limits.')}") from None
    version = hashlib.sha256(
        "\n".join([spec.model_dump_json(), *(reference(text).sha256 for text in texts)]).encode()
    ).hexdigest()[:16]
    try:
        plan = Plan(
            agent=file.stem,
            version=version,
            deployments=spec.deployments,
            instructions=reference(instructions),
            output_schema=schema_ref,
            collection=spec.collection,
            passages=spec.passages,
            approval=ApprovalRule(**spec.approval.model_dump()) if spec.approval else None,
            guards=Guards(**spec.guards.model_dump()),
            recall=spec.recall,
            strategy=spec.routing,
            regions=spec.regions,
            fallbacks=Fallbacks(**spec.fallbacks.model_dump()),
            escalation=Escalation(**spec.escalation.model_dump()) if spec.escalation else None,
            intents=intents_ref,
            budget_approval=ApprovalRule(**spec.budget_approval.model_dump()) if spec.budget_approval else None,
            on_disconnect=spec.on_disconnect,
        )
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, Plan)}") from None
    return Agent(file.stem, spec.description, plan, limits, spec.history, tuple(texts))


def _check_references(spec: AgentFile, file: Path, directory: Path, deployments: dict[str, Deployment]) -> None:
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
        raise ConfigurationError(f"{file}: {describe(error, kind, prefix)}") from None


def _text(directory: Path, name: str, file: Path, key: str) -> str:
    # What is read here is sent to model providers, so a path that leads out of the directory is a mistake at best.
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigurationError(f"{file}: `{key}` must name a file in {directory}, not {name!r}.")
    path = directory / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{file}: `{key}` names {path}, which does not exist.") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: `{key}` names {path}, which cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not valid UTF-8: {error.reason} at byte {error.start}.") from None
