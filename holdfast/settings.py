"""Every setting of every process, in one validated class.

Read from `config/holdfast.toml` (or the file named by `HOLDFAST_CONFIG`) and from `HOLDFAST_*` variables, which win:
`HOLDFAST_GATEWAY__PORT=9000` sets `gateway.port`. Secrets come only from the environment, never from the file.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from holdfast.errors import ConfigurationError

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?\d+(?:\.\d+)?\s*", re.ASCII)
_DURATION_FORM = "write a duration like '30s', '15m', '2h' or '1d12h'"


def parse_duration(value: Any) -> Any:
    """Read `"90s"`, `"15m"`, `"1h30m"`, `"2d"` or `"250ms"`; ISO 8601 and timedelta are left to pydantic.

    Raises:
        ValueError: A bare number, which does not say its unit, or something that is no duration.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError(f"a duration needs a unit, e.g. {str(value) + 's'!r}")
    if not isinstance(value, str):
        raise ValueError(_DURATION_FORM)
    parts = _DURATION.findall(value)
    if parts and _DURATION.sub("", value) == "":
        try:
            return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
        except OverflowError:
            raise ValueError("a duration may not be longer than 999999999 days") from None
    if not value.startswith("P"):
        raise ValueError(_DURATION_FORM)
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0))]
"""A positive time span written with its unit."""


class Section(BaseModel):
    """A table of the settings file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineSettings(Section):
    """The workflow engine."""

    address: str = "127.0.0.1:7233"
    """Host and port of the Temporal frontend."""
    namespace: str = "default"
    task_queue: str = "holdfast"
    """Queue of the request workflows. `generate.<deployment>` queues are separate."""
    workflow_task_timeout: Duration = timedelta(seconds=10)
    """How long a worker may hold a workflow task before it is given to another; what a dead worker costs."""
    sticky_timeout: Duration = timedelta(seconds=5)
    """How long a task waits for the worker that has the run cached before any worker may take it."""
    heartbeat_timeout: Duration = timedelta(seconds=20)
    """Silence after which a model call's worker is taken for dead."""
    deployment: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,64}$")
    """Name of the worker deployment; with it, a run stays on the version of the code that it began with."""
    version: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """Version of this worker's code, such as a commit; needed with `deployment`."""
    sandbox: bool = False
    """Run workflows in the SDK's sandbox. Tests do; production does not, because it costs a third of the throughput."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "EngineSettings":
        if bool(self.deployment) is not bool(self.version):
            raise ValueError(
                "`deployment` and `version` go together: set both, so that runs stay on the code they began with, or "
                "neither"
            )
        return self


class GatewaySettings(Section):
    """The HTTP edge."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    max_body_bytes: int = Field(default=1_048_576, ge=1_024)
    """Largest request body accepted."""
    max_wait: Duration = timedelta(seconds=60)
    """Longest `?wait=`."""
    chat_wait: Duration = timedelta(minutes=10)
    """How long a chat completion is held open for its answer, decisions by people included."""
    heartbeat: Duration = timedelta(seconds=15)
    """Silence on a stream after which a comment is sent, so that proxies keep the connection."""
    public_url: str = Field(default="", max_length=1_000, pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$")
    """How people reach the gateway, e.g. `https://holdfast.example.org`; links in notifications begin with it. Empty
    stands for host and port, which only this machine may reach."""

    @property
    def reached_at(self) -> str:
        """Where links lead, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


class LedgerSettings(Section):
    """The durable record of spending, answers and texts."""

    url: str = "sqlite+aiosqlite:///var/holdfast.db"
    """SQLAlchemy URL."""
    recall_for: Duration = timedelta(hours=24)
    """How long an exact answer may be reused."""


class KnowledgeSettings(Section):
    """Where passages are kept."""

    path: Path = Path("var/knowledge")
    """Directory of the embedded index; used when `url` is empty."""
    url: str = ""
    """A Qdrant server, e.g. `http://127.0.0.1:6333`."""


class SharedSettings(Section):
    """State that several processes share: streams of text, rate limits, health of deployments."""

    url: str = ""
    """A Redis server, e.g. `redis://127.0.0.1:6379/0`. Empty keeps the state in the process, which suits one worker
    and a gateway in the same process."""
    prefix: str = Field(default="holdfast", pattern=r"^[a-z0-9:_-]{1,64}$")
    """Begins every key, so that installations can share a server."""
    keep_streams: Duration = timedelta(minutes=10)
    """How long the text of an ended stream can be read again token by token."""


class BatchSettings(Section):
    """Calls that go through a provider's batch API."""

    collect: Duration = timedelta(minutes=1)
    """How long calls are gathered before they are sent together."""
    poll: Duration = timedelta(minutes=1)
    """Longest time between two looks at a batch."""
    lines: int = Field(default=10_000, ge=1, le=50_000)
    """Most calls of one batch."""
    lost_after: Duration = timedelta(minutes=5)
    """How long a batch whose acceptance got lost is looked for at the provider, before its calls count as lost."""


class TierSettings(Section):
    """What a service tier of `api_keys` is worth in the queues."""

    priority: int = Field(default=3, ge=1, le=5)
    """1 goes first; a lower tier waits while a higher one has work."""
    weight: float = Field(default=1.0, ge=0.001, le=1_000)
    """Share of a tenant beside the others of the same priority."""


class TelemetrySettings(Section):
    """OpenTelemetry export; off without an endpoint."""

    otlp_endpoint: str = ""
    """OTLP over HTTP, e.g. `http://127.0.0.1:4318`."""
    capture_content: bool = False
    """Put prompts and replies on model spans. Off, because they hold personal data."""
    semantic_conventions: str = Field(default="v1.41", pattern=r"^(v1\.41|next)$")
    """Which generation of the GenAI attribute names to emit."""
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port of 127.0.0.1 on which a worker serves `/metrics` for Prometheus; 0 serves none. The gateway has a route."""


class ApiKey(Section):
    """Who a key stands for."""

    key: SecretStr
    tenant: str = Field(min_length=1, max_length=64)
    user: str = Field(min_length=1, max_length=128)
    tier: str = "standard"


def parse_api_keys(value: Any) -> Any:
    """Read `KEY=tenant/user` or `KEY=tenant/user/tier`, comma separated (the form of `HOLDFAST_API_KEYS`).

    Raises:
        ValueError: An entry has another form. The key itself is not repeated.
    """
    if not isinstance(value, str):
        return value
    keys = []
    for position, entry in enumerate(filter(None, (part.strip() for part in value.split(","))), start=1):
        key, separator, owner = entry.rpartition("=")
        names = owner.split("/")
        if not separator or not key or len(names) not in (2, 3) or not all(names):
            raise ValueError(f"entry {position} must look like KEY=tenant/user or KEY=tenant/user/tier")
        keys.append({"key": key, "tenant": names[0], "user": names[1]} | ({"tier": names[2]} if names[2:] else {}))
    return keys


class Settings(BaseSettings):
    """All of Holdfast's settings, validated together at start."""

    model_config = SettingsConfigDict(
        env_prefix="HOLDFAST_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        enable_decoding=False,
    )

    config_dir: Path = Path("config")
    """Directory with `models.toml`, `agents/`, `prompts/` and `schemas/`."""
    engine: EngineSettings = EngineSettings()
    gateway: GatewaySettings = GatewaySettings()
    ledger: LedgerSettings = LedgerSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    shared: SharedSettings = SharedSettings()
    batch: BatchSettings = BatchSettings()
    tiers: Mapping[str, TierSettings] = Field(
        default_factory=lambda: {
            "premium": TierSettings(priority=2, weight=2),
            "standard": TierSettings(),
            "batch": TierSettings(priority=5),
        }
    )
    """Service tiers by name; a key may name only these."""
    telemetry: TelemetrySettings = TelemetrySettings()
    qdrant_api_key: SecretStr | None = None
    """Key of the Qdrant server, if it wants one; from the environment only."""
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(parse_api_keys)] = ()
    """Accepted API keys. Without any, the gateway serves everyone on loopback as tenant `local`."""

    @model_validator(mode="after")
    def _open_door_stays_on_loopback(self) -> "Settings":
        if not self.api_keys and self.gateway.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"gateway.host is {self.gateway.host!r} but no API key is set: "
                "set HOLDFAST_API_KEYS=KEY=tenant/user, or bind to 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _keys_name_known_tiers(self) -> "Settings":
        for key in self.api_keys:
            if key.tier not in self.tiers:
                raise ValueError(
                    f"the key of {key.tenant}/{key.user} names tier {key.tier!r}, which `[tiers]` does not define; "
                    f"defined: {', '.join(sorted(self.tiers))}"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables win over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())


SECRETS = frozenset({"api_keys", "qdrant_api_key"})
"""Settings that are read from the environment only."""


def settings_file() -> Path:
    """The settings file in force; it need not exist."""
    return Path(os.environ.get("HOLDFAST_CONFIG", "config/holdfast.toml"))


def load_settings(**overrides: Any) -> Settings:
    """Read and validate every setting.

    Args:
        overrides: Values that win over file and environment; for tests and command-line options.

    Raises:
        ConfigurationError: The file is not TOML, a key is unknown, or a value does not fit. Names file, key, remedy.
    """
    path = settings_file()
    if "HOLDFAST_CONFIG" in os.environ and not path.is_file():
        raise ConfigurationError(f"HOLDFAST_CONFIG names {str(path)!r}, which is not a file.")
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        _check_sections(os.environ)
        for secret in SECRETS & set(written):
            raise ConfigurationError(
                f"{path}: `{secret}` is a secret and does not belong in a file; set HOLDFAST_{secret.upper()} instead."
            )
        return Settings(**overrides)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path} or HOLDFAST_* variables: {describe(error, Settings)}") from None


def describe(
    error: ValidationError, kind: type[BaseModel], prefix: str = "", table: Mapping[str, Any] | None = None
) -> str:
    """All problems of a validation error in one line, without the offending values (they may be secrets).

    Args:
        error: What pydantic found.
        kind: The model that was validated; an unknown key is answered with what it knows.
        prefix: Where in the file the model is, e.g. `limits.`.
        table: What a person wrote, as it was read; problems are then told in words of the file.
    """
    return "; ".join(
        f"`{(prefix + '.'.join(str(part) for part in problem['loc'])).rstrip('.') or 'settings'}`"
        f"{'' if table is None else _place(problem['loc'], table)}: "
        f"{_said(problem) if table is None else _told(problem)}"
        f"{_hint(kind, problem['loc']) if problem['type'] == 'extra_forbidden' else ''}"
        for problem in error.errors(include_input=False, include_url=False)
    )


def _told(problem: ErrorDetails) -> str:
    """As `_said`, for who has written a file and need not know what reads it."""
    match problem["type"]:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return "is no key here"
        case "too_short":
            return "is empty; name at least one"
    return _said(problem)


def _place(loc: tuple[int | str, ...], table: Mapping[str, Any]) -> str:
    """Which rule of a list of rules a problem is in, by what the rule is on."""
    found: Any = table
    for part in loc:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            return ""
        if isinstance(part, int) and isinstance(found, Mapping) and isinstance(on := found.get("on"), str):
            return f" (the rule on {on[:80]!r})"
    return ""


def _said(problem: ErrorDetails) -> str:
    if problem["type"] in ("tuple_type", "list_type"):
        return 'write a list, in square brackets: ["..."]'
    return problem["msg"].removeprefix("Value error, ")


def _hint(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    for part in loc[:-1]:
        if isinstance(part, int):  # the place in a list of tables
            continue
        field = kind.model_fields.get(part)
        inner = _models_in(field.annotation) if field is not None else []
        if not inner:
            # A name that the file gives, as in `tiers.<name>`, stands between a field and its model.
            continue
        kind = inner[0]
    near = difflib.get_close_matches(str(loc[-1]), kind.model_fields, n=1)
    return f". Did you mean {near[0]!r}?" if near else f". Known keys: {', '.join(kind.model_fields)}."


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models of a field, also those in a list, in a mapping or beside `None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _check_sections(environment: Mapping[str, str]) -> None:
    """Refuse a variable of a section that does not exist; pydantic-settings passes over it in silence.

    Raises:
        ConfigurationError: Names the variable and the nearest section.
    """
    sections = [
        name.upper()
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    ]
    for variable in environment:
        section, separator, rest = variable.upper().removeprefix("HOLDFAST_").partition("__")
        if variable.upper().startswith("HOLDFAST_") and separator and section not in sections:
            near = difflib.get_close_matches(section, sections, n=1)
            hint = f"Did you mean HOLDFAST_{near[0]}__{rest}?" if near else f"Sections: {', '.join(sections)}."
            raise ConfigurationError(f"{variable} sets nothing: there is no section {section.lower()!r}. {hint}")
