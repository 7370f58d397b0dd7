"""What routing looks at: the deployments that might answer, and what the request demands of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, Protocol

from holdfast.contracts import Cause, Strategy

Tier = Literal["small", "medium", "large"]
Level = Literal["simple", "medium", "complex"]

TIERS: tuple[Tier, ...] = ("small", "medium", "large")
"""By quality, least first."""

IN_PROCESS = "local"
"""The region of what answers within this process: the request goes nowhere, so every residency rule admits it."""

HANDLER = "handler"
"""The provider of deterministic functions; they answer the intent they are named for and nothing else."""

_MILLION = Decimal(1_000_000)


class Condition(Protocol):
    """How a deployment is doing, as `holdfast.health` knows it."""

    @property
    def state(self) -> str:
        """The breaker's: `closed`, `open`, `half_open` or `cooling`."""
        ...

    @property
    def until(self) -> datetime | None:
        """When it may be tried again, aware; `None` when it may now."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it is not closed."""
        ...

    @property
    def first_token(self) -> timedelta | None:
        """Moving average of the time to the first token; `None` when not measured."""
        ...

    @property
    def first_token_p95(self) -> timedelta | None:
        """Its 95th percentile."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        ...

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the reply; `None` when not measured."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A deployment as routing sees it: its configuration and how it is doing now."""

    name: str
    model: str
    provider: str
    region: str = ""
    """Where it computes; empty when that is unknown, which no residency rule admits."""
    weight: float = 1.0
    """Its share among the deployments of its pool; 0 stands by for when the others are gone."""
    tier: Tier = "medium"
    input_usd_per_million: Decimal | None = None
    """The dearest rate a prompt token may be billed at; `None` when unpriced."""
    output_usd_per_million: Decimal | None = None
    context_window: int = 128_000
    """Tokens of prompt and reply together."""
    capabilities: frozenset[str] = frozenset({"text"})
    """What it can do, e.g. `text`, `tools`, `json_schema`, `vision`."""
    enabled: bool = True
    health_key: str = ""
    pool: str = ""
    """Deployments of one pool share load; empty: those of the same model do."""
    condition: Condition | None = None
    """`None` when nothing is known, which counts as healthy."""
    wait: timedelta = timedelta(0)
    """How long a call would wait for room in the deployment's own limits, as far as known."""

    @property
    def shares_load_with(self) -> str:
        """The pool."""
        return self.pool or self.model

    def worst_case_usd(self, prompt_tokens: int, output_tokens: int) -> Decimal | None:
        """What a call costs at most; `None` when a rate it needs is unknown."""
        total = Decimal(0)
        for tokens, rate in ((prompt_tokens, self.input_usd_per_million), (output_tokens, self.output_usd_per_million)):
            if tokens and rate is None:
                return None
            total += tokens * (rate or Decimal(0))
        return total / _MILLION


@dataclass(frozen=True)
class Complexity:
    """How much a question asks of a model."""

    score: float
    """Calibrated probability, 0 to 1, that a small model's answer would not do."""
    level: Level


@dataclass(frozen=True)
class IntentMatch:
    """A question that a handler answers."""

    intent: str
    deployment: str
    score: float
    """Cosine of the question and the nearest example."""
    margin: float
    """How far the score is above the nearest example of another intent or of the background."""


@dataclass(frozen=True)
class Demand:
    """What one call needs, what its request may still spend, and what its agent prefers."""

    prompt_tokens: int = 0
    """As held in the ledger, the surcharge for a foreign tokenizer included."""
    output_tokens: int = 0
    """The reply's limit."""
    needs: frozenset[str] = frozenset({"text"})
    regions: frozenset[str] = frozenset()
    """Regions that may see the request; empty admits all."""
    tokens_left: int | None = None
    usd_left: Decimal | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Deployments this request has given up on, with what happened in words that follow the name."""
    deployments: tuple[str, ...] = ()
    """The agent's list, in order of preference; empty takes the candidates as they come."""
    strategy: Strategy = "ordered"
    fallbacks: Mapping[Cause, tuple[str, ...]] = field(default_factory=dict)
    """The agent's lists by cause."""
    cause: Cause | None = None
    """Why this is not the first choice."""
    failed: Candidate | None = None
    """The deployment that the cause is about."""
    complexity: Complexity | None = None
    intent: IntentMatch | None = None
    first_token_within: timedelta | None = None
    """What the agent wants of 95 calls in 100; `None` compares deployments of a tier with each other only."""
    seed: str = ""
    """Decides weighted draws: the same seed draws the same. One per request keeps its turns on one deployment, and so
    in one provider's prompt cache, as long as nothing else speaks against it."""
