"""Candidates and conditions for tests, and Hypothesis strategies over them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from hypothesis import strategies as st

from holdfast.contracts import Cause
from holdfast.routing import Candidate, Complexity, Demand, IntentMatch

MOMENT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Doing:
    """A condition as `holdfast.health` reports it."""

    state: Literal["closed", "open", "half_open", "cooling"] = "closed"
    until: datetime | None = None
    reason: str = ""
    first_token: timedelta | None = None
    first_token_p95: timedelta | None = None
    in_flight: int = 0
    tokens_per_second: float | None = None


def candidate(name: str, **given: Any) -> Candidate:
    """A candidate of its own model, with a price."""
    fields: dict[str, Any] = {
        "model": f"model-{name}",
        "provider": "openai",
        "input_usd_per_million": Decimal(1),
        "output_usd_per_million": Decimal(2),
    }
    return Candidate(name, **(fields | given))


def down(minutes: float, state: Literal["open", "cooling"] = "open", reason: str = "timeouts") -> Doing:
    """A condition that recovers some minutes after noon."""
    return Doing(state, MOMENT + timedelta(minutes=minutes), reason)


def slow(p95_s: float) -> Doing:
    """Healthy, with a measured latency."""
    return Doing(first_token=timedelta(seconds=p95_s / 2), first_token_p95=timedelta(seconds=p95_s))


_REGIONS = st.sampled_from(["", "eu", "us", "local"])
_NAMES = ("a", "b", "c", "d", "e", "f")
_seconds = st.integers(0, 20).map(lambda number: timedelta(seconds=number))

conditions = st.none() | st.builds(
    Doing,
    state=st.sampled_from(["closed", "open", "half_open", "cooling"]),
    until=st.none() | st.integers(0, 60).map(lambda number: MOMENT + timedelta(minutes=number)),
    reason=st.sampled_from(["", "timeouts"]),
    first_token=st.none() | _seconds,
    first_token_p95=st.none() | _seconds,
    in_flight=st.integers(0, 5),
    tokens_per_second=st.none() | st.floats(1, 100),
)


def _candidate(name: str) -> st.SearchStrategy[Candidate]:
    return st.builds(
        Candidate,
        name=st.just(name),
        model=st.sampled_from(["m", "n"]),
        provider=st.sampled_from(["openai", "anthropic", "handler"]),
        region=_REGIONS,
        weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        tier=st.sampled_from(["small", "medium", "large"]),
        input_usd_per_million=st.none() | st.integers(0, 9).map(Decimal),
        output_usd_per_million=st.none() | st.integers(0, 9).map(Decimal),
        context_window=st.sampled_from([1_000, 8_000, 128_000]),
        capabilities=st.frozensets(st.sampled_from(["text", "tools", "json_schema"])),
        enabled=st.booleans(),
        condition=conditions,
        wait=_seconds,
    )


pools = st.lists(st.sampled_from(_NAMES), unique=True, max_size=6).flatmap(
    lambda names: st.tuples(*(_candidate(name) for name in names))
)

_lists = st.lists(st.sampled_from(_NAMES), unique=True, max_size=4).map(tuple)

demands = st.builds(
    Demand,
    prompt_tokens=st.sampled_from([0, 500, 5_000]),
    output_tokens=st.sampled_from([100, 1_000]),
    needs=st.sampled_from([frozenset[str](), frozenset({"text"}), frozenset({"text", "tools"})]),
    regions=st.frozensets(st.sampled_from(["eu", "us"])),
    tokens_left=st.none() | st.sampled_from([0, 700, 50_000]),
    usd_left=st.none() | st.sampled_from([Decimal(0), Decimal("0.004"), Decimal(1)]),
    excluded=st.dictionaries(st.sampled_from(_NAMES), st.just("failed this request"), max_size=3),
    deployments=_lists,
    strategy=st.sampled_from(["ordered", "balanced", "cheapest", "fastest", "complexity"]),
    fallbacks=st.dictionaries(st.sampled_from(list(Cause)), _lists, max_size=3),
    cause=st.none() | st.sampled_from(list(Cause)),
    failed=st.none() | _candidate("a"),
    complexity=st.none() | st.builds(Complexity, st.floats(0, 1), st.sampled_from(["simple", "medium", "complex"])),
    intent=st.none() | st.builds(IntentMatch, st.just("i"), st.sampled_from(_NAMES), st.just(0.8), st.just(0.3)),
    first_token_within=st.none() | _seconds,
    seed=st.text(max_size=4),
)
