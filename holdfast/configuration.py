"""What a user edits, read whole and checked whole at start: deployments, agents, prompts, schemas."""

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError

from holdfast.contracts import ApprovalRule, ContentRef, Guards, Limits, Plan
from holdfast.contracts.plan import Name
from holdfast.errors import ConfigurationError, UnknownAgent
from holdfast.guards import check_refusal_patterns
from holdfast.prices import Price
from holdfast.settings import Duration, Section, describe
from holdfast.validation import check_schema

SectionT = TypeVar("SectionT", bound=Section)

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
"""As `holdfast.contracts.plan.Name`: agents refer to deployments by name, and task queues are named after them."""


class TimeoutSettings(Section):
    """Bounds of one model call; each is about silence, except `total`."""

    connect: Duration = Field(default="5s", validate_default=True)
    first_token: Duration = Field(default="60s", validate_default=True)
    between_tokens: Duration = Field(default="30s", validate_default=True)
    total: Duration = Field(default="10m", validate_default=True)


class PriceSettings(Section):
    """Prices in US dollars per million tokens; quoted, because money is decimal."""

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cache_read: Decimal | None = Field(default=None, ge=0)
    cache_write: Decimal | None = Field(default=None, ge=0)


class Deployment(Section):
    """One way to reach one model."""

    provider: Literal["extractive", "openai"]
    model: str = Field(min_length=1)
    base_url: str = ""
    """For `openai`: the API's base, ending in `/v1` with most servers."""
    api_key_env: str = ""
    """Environment variable that holds the key; empty for a server without one."""
    vendor: str = "openai"
    """Whose price list applies (an id of `genai-prices`)."""
    price: PriceSettings | None = None
    """Overrides the price list."""
    context_window: int = Field(default=128_000, gt=0)
    """Tokens of prompt and reply together."""
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How the server spells the reply limit."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = None
    concurrency: int = Field(default=200, gt=0, le=2_000)
    """Calls one worker keeps in flight."""
    timeouts: TimeoutSettings = TimeoutSettings()
    enabled: bool = True

    @property
    def price_override(self) -> Price | None:
        """The configured price, if any."""
        if self.price is None:
            return None
        return Price(
            input_usd_per_million=self.price.input,
            output_usd_per_million=self.price.output,
            cache_read_usd_per_million=self.price.cache_read,
            cache_write_usd_per_million=self.price.cache_write,
        )


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


@dataclass(frozen=True)
class Agent:
    """An agent ready to be planned: its file with prompt and schema resolved."""

    name: str
    description: str
    plan: Plan
    limits: Limits
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
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{models_file}: `deployments.{name}`: a deployment's name is lower case letters, digits, - and _."
            )
        deployment = _parse(Deployment, table, models_file, f"deployments.{name}.")
        if deployment.provider == "openai" and not deployment.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{models_file}: `deployments.{name}.base_url` must be an http(s) URL for provider 'openai'."
            )
        deployments[name] = deployment
    if not deployments:
        raise ConfigurationError(f"{models_file}: defines no deployment; add a `[deployments.<name>]` table.")
    files = sorted((directory / "agents").glob("*.toml"))
    if not files:
        raise ConfigurationError(f"{directory / 'agents'}: holds no agent; add a `<name>.toml` file.")
    return Configuration(deployments, {file.stem: _agent(file, directory, deployments) for file in files})


def resolve_key(name: str, deployment: Deployment, environment: Mapping[str, str]) -> SecretStr | None:
    """The API key of a deployment.

    Raises:
        ConfigurationError: The variable it names is not set.
    """
    if not deployment.api_key_env:
        return None
    if not environment.get(deployment.api_key_env):
        raise ConfigurationError(
            f"Deployment {name!r} takes its key from {deployment.api_key_env}, which is not set. "
            f"Export it, or set `enabled = false` for the deployment in models.toml."
        )
    return SecretStr(environment[deployment.api_key_env])


def _agent(file: Path, directory: Path, deployments: dict[str, Deployment]) -> Agent:
    spec = _parse(AgentFile, _toml(file), file)
    for name in spec.deployments:
        if name not in deployments:
            near = difflib.get_close_matches(name, deployments, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Defined: {', '.join(sorted(deployments))}."
            raise ConfigurationError(
                f"{file}: `deployments` names {name!r}, which {directory / 'models.toml'} does not define.{hint}"
            )
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
        )
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, Plan)}") from None
    return Agent(file.stem, spec.description, plan, limits, tuple(texts))


def reference(text: str) -> ContentRef:
    """The content reference of a text."""
    data = text.encode()
    return ContentRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{file}: does not exist; create it or point `config_dir` elsewhere.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
