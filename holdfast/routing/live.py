"""How the candidates are doing now: health, latency, load, and the price where all else is equal."""

import math
from datetime import timedelta

from holdfast.routing.candidate import Candidate, Demand
from holdfast.routing.draw import is_trial, uniform
from holdfast.routing.preferences import cost
from holdfast.routing.shortlist import Shortlist


class Health:
    """Drops what is down while anything else is left; when all are down, the first to recover comes first.

    What is half open stays where it is as long as nobody is probing it: the call that is routed there is the probe.
    """

    name = "health"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:  # noqa: ARG002 - one shape for all policies
        """See `Policy.apply`."""
        down = {candidate.name: text for candidate in shortlist.candidates if (text := _down(candidate))}
        if len(down) < len(shortlist.candidates):
            return shortlist.drop(self.name, down)
        if not down:
            return shortlist
        first = min(shortlist.candidates, key=_recovers)
        shortlist = Shortlist(
            tuple((candidate,) for candidate in sorted(shortlist.candidates, key=_recovers)), shortlist.reasons
        )
        others = {name: text for name, text in down.items() if name != first.name}
        return shortlist.last(self.name, others).say(self.name, f"{down[first.name]}, and first to recover", first.name)


class Latency:
    """Puts last what is slow to the first token at the 95th percentile.

    Slow is what passes the agent's `first_token_within`, and what is far slower than the fastest of its own tier: a
    large model is not held against a small one, or quality would always lose. One request in fifty leaves a slow
    deployment where it is: without calls it would be remembered as slow for ever.

    Args:
        factor: How many times slower than the best of its tier is far.
        slack: And by how much at least, so that noise between fast deployments moves nothing.
    """

    name = "latency"

    def __init__(self, factor: float = 1.5, slack: timedelta = timedelta(milliseconds=500)) -> None:
        self._factor = factor
        self._slack = slack

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        best: dict[str, timedelta] = {}
        for candidate in shortlist.candidates:
            if (p95 := _p95(candidate)) is not None:
                best[candidate.tier] = min(p95, best.get(candidate.tier, p95))
        slow = {
            candidate.name: f"needs {p95.total_seconds():.1f} s to the first token at p95"
            for candidate in shortlist.candidates
            if (p95 := _p95(candidate)) is not None
            and self._is_slow(p95, best[candidate.tier], demand)
            and not is_trial(demand.seed, candidate.name)
        }
        return shortlist.last(self.name, slow)

    def _is_slow(self, p95: timedelta, best: timedelta, demand: Demand) -> bool:
        if demand.first_token_within is not None and p95 > demand.first_token_within:
            return True
        return p95 > best * self._factor and p95 > best + self._slack


class Load:
    """Puts last what has no room for a while, and spreads calls over each pool by weight and by calls in flight.

    Within a pool the order is a weighted draw (Efraimidis and Spirakis, 2006: the least of `-ln(u) / weight`); then the
    first two drawn are compared and the one with fewer calls in flight for its weight goes first (power of two choices,
    Mitzenmacher, 2001). When both are equally busy the draw stands, so that idle deployments share by weight.

    Args:
        patience: A wait for room up to this long is no reason to call another deployment.
    """

    name = "load"

    def __init__(self, patience: timedelta = timedelta(seconds=1)) -> None:
        self._patience = patience

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        full = {
            candidate.name: f"has no room for {candidate.wait.total_seconds():.0f} s"
            for candidate in shortlist.candidates
            if candidate.wait > self._patience
        }
        shortlist = shortlist.last(self.name, full)
        place: dict[str, float] = {}
        for level in shortlist.levels:
            place |= {candidate.name: number for number, candidate in enumerate(_spread(level, demand.seed))}
        shared = len(shortlist.levels[0]) > 1 if shortlist.levels else False
        shortlist = shortlist.refine(lambda candidate: place[candidate.name])
        if not shared:
            return shortlist
        return shortlist.say(self.name, "its turn in the pool", shortlist.candidates[0].name)


class Price:
    """Says how much dearer the alternatives are than the choice, where that is worth knowing."""

    name = "price"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        base = cost(shortlist.candidates[0], demand) if shortlist.candidates else math.inf
        for candidate in shortlist.candidates[1:]:
            other = cost(candidate, demand)
            if 0 < base < math.inf and base < other < math.inf and demand.strategy in ("complexity", "cheapest"):
                shortlist = shortlist.say(self.name, f"costs {_times(other / base)}", candidate.name, "passed")
        return shortlist


def _down(candidate: Candidate) -> str | None:
    condition = candidate.condition
    if condition is None or condition.state == "closed":
        return None
    if condition.state == "half_open":
        return "is being probed by another call" if condition.in_flight else None
    state = "is cooling down" if condition.state == "cooling" else "is down"
    until = f" until {condition.until:%H:%M:%S} UTC" if condition.until else ""
    return f"{state}{until}" + (f" ({condition.reason})" if condition.reason else "")


def _recovers(candidate: Candidate) -> float:
    until = candidate.condition.until if candidate.condition else None
    return until.timestamp() if until else 0.0


def _p95(candidate: Candidate) -> timedelta | None:
    return candidate.condition.first_token_p95 if candidate.condition else None


def _spread(level: tuple[Candidate, ...], seed: str) -> list[Candidate]:
    drawn = sorted(level, key=lambda candidate: _draw(candidate, seed))
    if len(drawn) > 1 and drawn[1].weight > 0 and _busy(drawn[1]) < _busy(drawn[0]):
        drawn[0], drawn[1] = drawn[1], drawn[0]
    return drawn


def _draw(candidate: Candidate, seed: str) -> float:
    if candidate.weight <= 0:
        return math.inf
    return -math.log(uniform(seed, candidate.name)) / candidate.weight


def _busy(candidate: Candidate) -> float:
    in_flight = candidate.condition.in_flight if candidate.condition else 0
    return in_flight / candidate.weight if candidate.weight > 0 else math.inf


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 2 else f"{(ratio - 1) * 100:.0f}% more"
