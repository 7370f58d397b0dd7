"""`config/models.toml`: the ways to reach models, each checked on its own and named in every complaint."""

import difflib
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from holdfast.errors import ConfigurationError
from holdfast.prices import Price, is_vendor, vendors
from holdfast.settings import Duration, Section

ProviderName = Literal[
    "extractive", "handler", "openai", "anthropic", "compatible", "gemini", "openrouter", "ollama", "vllm"
]
"""`compatible` is any server that speaks OpenAI's chat completions and knows no extras; the last four are such servers
with habits of their own."""

Capability = Literal["tools", "json_schema", "vision"]

IN_PROCESS: frozenset[ProviderName] = frozenset({"extractive", "handler"})
"""Answer in the worker's own process: nothing is sent, nothing is billed, no queue is needed."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
"""As `holdfast.contracts.plan.Name`: agents refer to deployments by name, and task queues are named after them."""

DEFAULT_SLOTS = 200
"""Calls of one deployment that a worker keeps in flight when nothing else bounds them."""

_VENDORS: Mapping[ProviderName, str] = {
    "anthropic": "anthropic",
    "gemini": "google",
    "openrouter": "openrouter",
}
"""Ids of the price list where they are not `openai`'s."""


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

    provider: ProviderName
    model: str = Field(min_length=1)
    """The model as the provider calls it; for `handler`, the function that answers, as `module:function`."""
    base_url: str = ""
    """The API's base, ending in `/v1` with most servers; needed by every provider that is not in this process."""
    api_key_env: str = ""
    """Environment variable that holds the key; empty for a server without one."""
    vendor: str = ""
    """Whose price list applies (an id of `genai-prices`); empty takes the provider's own."""
    price: PriceSettings | None = None
    """Overrides the price list."""
    region: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$")
    """Where it computes, for agents that admit only some regions; empty when that is not known."""
    weight: float = Field(default=1.0, ge=0, le=1_000)
    """Its share of the calls among equals; 0 stands by until the others are gone."""
    tier: Literal["small", "medium", "large"] = "medium"
    """What it is good for: `small` for simple questions, `large` for hard ones."""
    capabilities: tuple[Capability, ...] = ("tools", "json_schema")
    """What it can do beside writing text."""
    context_window: int = Field(default=128_000, gt=0)
    """Tokens of prompt and reply together."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Calls a minute that the provider admits; also the rate of the deployment's queue."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Tokens a minute, prompt and reply."""
    concurrency: int | None = Field(default=None, gt=0, le=2_000)
    """Calls in flight at the same time, over all workers; a worker alone keeps at most 200 of one deployment."""
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How the server spells the reply limit."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = None
    timeouts: TimeoutSettings = TimeoutSettings()
    batch: bool = False
    """Whether requests marked `batch` go through the provider's batch API, at its lower price."""
    parameters: Mapping[str, str] = Field(default_factory=dict)
    """For `handler`: what the function is configured with."""
    enabled: bool = True

    @property
    def price_override(self) -> Price | None:
        """The configured price, if any; what answers in this process costs nothing."""
        if self.price is None:
            return Price(Decimal(0), Decimal(0)) if self.in_process else None
        return Price(
            input_usd_per_million=self.price.input,
            output_usd_per_million=self.price.output,
            cache_read_usd_per_million=self.price.cache_read,
            cache_write_usd_per_million=self.price.cache_write,
        )

    @property
    def price_list(self) -> str:
        """The id of the price list that applies."""
        return self.vendor or _VENDORS.get(self.provider, "openai")

    @property
    def in_process(self) -> bool:
        """Whether it answers in the worker's own process."""
        return self.provider in IN_PROCESS

    @property
    def abilities(self) -> frozenset[str]:
        """What a call may need of it."""
        match self.provider:
            case "handler":
                return frozenset({"text"})
            case "extractive":
                return frozenset({"text", "json_schema"})
            case _:
                return frozenset({"text", *self.capabilities})

    @property
    def slots(self) -> int:
        """Calls that one worker keeps in flight."""
        return min(self.concurrency or DEFAULT_SLOTS, DEFAULT_SLOTS)

    @property
    def health_key(self) -> str:
        """Whose failures are shared: the credential, the host and the model, whatever the deployment is called."""
        return f"{self.api_key_env or 'none'}:{urlsplit(self.base_url).netloc or self.provider}:{self.model}"

    @property
    def quota_key(self) -> str:
        """What shares one quota at the provider; the same as for health."""
        return self.health_key

    @model_validator(mode="after")
    def _fits_its_provider(self) -> "Deployment":
        if self.in_process and self.base_url:
            raise ValueError(f"`base_url` means nothing to provider {self.provider!r}, which answers in this process")
        if not self.in_process and not _is_url(self.base_url):
            raise ValueError(f"`base_url` must be an http(s) URL for provider {self.provider!r}")
        if self.parameters and self.provider != "handler":
            raise ValueError("`parameters` configure the function of a deployment with provider 'handler'")
        if self.batch and self.provider not in ("openai", "anthropic"):
            raise ValueError("`batch = true` needs provider 'openai' or 'anthropic', which have a batch API")
        if self.vendor and not is_vendor(self.vendor):
            near = difflib.get_close_matches(self.vendor, vendors(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out for the provider's own, or set `price`"
            raise ValueError(f"`vendor` is {self.vendor!r}, which is no price list of genai-prices; {hint}")
        if len(set(self.capabilities)) != len(self.capabilities):
            raise ValueError(f"`capabilities` names one twice; known: {', '.join(get_args(Capability))}")
        return self


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def resolve_key(name: str, deployment: Deployment, environment: Mapping[str, str] = os.environ) -> SecretStr | None:
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


def check_names(file: Path, key: str, names: tuple[str, ...], deployments: Mapping[str, Any], models: Path) -> None:
    """Check that a list of an agent file names deployments.

    Raises:
        ConfigurationError: Names the file, the key and the nearest deployment.
    """
    for name in names:
        if name not in deployments:
            near = difflib.get_close_matches(name, deployments, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Defined: {', '.join(sorted(deployments))}."
            raise ConfigurationError(f"{file}: `{key}` names {name!r}, which {models} does not define.{hint}")
