"""What the agent and the question prefer: lists by cause, intents, and the agent's strategy."""

import math

from holdfast.contracts import Cause
from holdfast.contracts import Strategy as StrategyName
from holdfast.routing.candidate import HANDLER, TIERS, Candidate, Demand, Level, Tier
from holdfast.routing.constraints import ContextWindow
from holdfast.routing.draw import is_trial
from holdfast.routing.shortlist import Shortlist

_TIER_ORDER: dict[Level, tuple[Tier, ...]] = {
    "simple": ("small", "medium", "large"),
    "medium": ("medium", "large", "small"),
    "complex": ("large", "medium", "small"),
}
_AS_FAST = 1.1
"""Expected times within this factor of each other count as equal."""


class Intent:
    """Puts the handler of a recognised intent first, and drops handlers that nobody asked for."""

    name = "intent"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        wanted = demand.intent.deployment if demand.intent else None
        idle = {
            candidate.name: "answers only its own intent"
            for candidate in shortlist.candidates
            if candidate.provider == HANDLER and candidate.name != wanted
        }
        shortlist = shortlist.drop(self.name, idle)
        if demand.intent is None or wanted not in {candidate.name for candidate in shortlist.candidates}:
            return shortlist
        text = f"intent {demand.intent.intent} ({demand.intent.score:.2f})"
        return shortlist.refine(lambda candidate: candidate.name != wanted).say(self.name, text, wanted)


class Fallbacks:
    """Admits the agent's lists by cause.

    The list of a cause comes before the agent's own list, in its own order; the list for an outage comes behind it, and
    is there without a cause too, for when the own list is down. The list for the context window also steps in by itself
    when nothing of the own list has room. An unsure reply is only worth asking a better deployment: those of the list,
    or else those of a higher tier.
    """

    name = "fallbacks"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        reserves = {name for names in demand.fallbacks.values() for name in names}
        own = demand.deployments or tuple(
            name
            for name in _all_names(shortlist)
            if name not in reserves  # no list: all that no other list holds
        )
        handler = demand.intent.deployment if demand.intent else None
        usable = {candidate.name for candidate in shortlist.candidates}
        cause = demand.cause
        if cause is None and not usable & set(own) and _too_small(shortlist, own):
            cause = Cause.CONTEXT_WINDOW
        first = demand.fallbacks.get(cause, ()) if cause not in (None, Cause.OUTAGE, Cause.THROTTLED) else ()
        behind = demand.fallbacks.get(Cause.OUTAGE, ())
        position = {name: number for number, name in reversed(list(enumerate(first)))}
        after = {name: len(first) + 1 + number for number, name in reversed(list(enumerate(behind)))}

        def band(candidate: Candidate) -> float:
            if candidate.name in position:
                return position[candidate.name]
            return len(first) if candidate.name in own else after.get(candidate.name, 0)

        listed = {*own, *first, *behind, *((handler,) if handler else ())}
        strangers = dict.fromkeys(usable - listed, "is a fallback for another cause")
        shortlist = shortlist.drop(self.name, strangers)
        if cause is Cause.UNSURE:
            shortlist = shortlist.drop(self.name, _no_better(shortlist, demand, first))
        shortlist = shortlist.refine(band)
        if cause is not None and first and shortlist.levels and shortlist.candidates[0].name in first:
            text = f"first of the fallbacks for {cause.value.replace('_', ' ')}"
            return shortlist.say(self.name, text, shortlist.candidates[0].name)
        return shortlist


class Strategy:
    """Orders the agent's own list by the agent's strategy; candidates of one pool stay level for `Load`."""

    name = "strategy"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        pools: dict[str, int] = {}
        place: dict[str, int] = {}
        listed = {name: number for number, name in reversed(list(enumerate(demand.deployments)))}
        # Stable: without a list of the agent's, candidates are as they came.
        for candidate in sorted(shortlist.candidates, key=lambda one: listed.get(one.name, len(listed))):
            place[candidate.name] = len(place)
            pools.setdefault(candidate.shares_load_with, len(pools))
        match _strategy_for(demand):
            case "ordered":
                return shortlist.refine(lambda candidate: place[candidate.name])
            case "balanced":
                pass
            case "cheapest":
                shortlist = shortlist.refine(lambda candidate: cost(candidate, demand))
                shortlist = _say(shortlist, demand, "the cheapest")
            case "fastest":
                shortlist = _fastest(shortlist, demand)
            case "complexity" if demand.complexity is not None:
                order = _TIER_ORDER[demand.complexity.level]
                shortlist = shortlist.refine(lambda candidate: order.index(candidate.tier))
                text = f"{demand.complexity.level} ({demand.complexity.score:.2f})"
                shortlist = _say(shortlist, demand, text)
            case "complexity":
                shortlist = _say(shortlist, demand, "of unknown complexity, so the first of the list")
                return shortlist.refine(lambda candidate: place[candidate.name])
        return shortlist.refine(lambda candidate: pools[candidate.shares_load_with])


def _strategy_for(demand: Demand) -> StrategyName:
    """The agent's strategy, unless the cause says more: to degrade is to save, and a list for a cause is an order."""
    match demand.cause:
        case Cause.BUDGET:
            return "cheapest"
        case Cause.CONTEXT_WINDOW | Cause.CONTENT_POLICY | Cause.UNSURE:
            return "ordered"
    return demand.strategy


def _all_names(shortlist: Shortlist) -> dict[str, None]:
    """Who is left, and who was dropped."""
    dropped = [reason.candidate for reason in shortlist.reasons if reason.candidate is not None]
    return dict.fromkeys([*(candidate.name for candidate in shortlist.candidates), *dropped])


def _too_small(shortlist: Shortlist, own: tuple[str, ...]) -> bool:
    return any(reason.policy == ContextWindow.name and reason.candidate in own for reason in shortlist.reasons)


def _no_better(shortlist: Shortlist, demand: Demand, better: tuple[str, ...]) -> dict[str, str]:
    """Who need not be asked again, because the reply would be no surer."""
    if better:
        return {
            candidate.name: "is not asked when a reply is unsure"
            for candidate in shortlist.candidates
            if candidate.name not in better
        }
    failed = demand.failed
    if failed is None:
        return {}
    return {
        candidate.name: f"is of no higher tier than {failed.name}"
        for candidate in shortlist.candidates
        if TIERS.index(candidate.tier) <= TIERS.index(failed.tier)
    }


def cost(candidate: Candidate, demand: Demand) -> float:
    """What the call costs at worst, for comparing; what has no price counts as dearest."""
    usd = candidate.worst_case_usd(demand.prompt_tokens, demand.output_tokens)
    return math.inf if usd is None else float(usd)


def _say(shortlist: Shortlist, demand: Demand, text: str) -> Shortlist:
    """Explain the strategy's first choice, unless something weightier than the strategy put it first."""
    head = shortlist.candidates[:1]
    ranked = [candidate.name for candidate in head if not demand.deployments or candidate.name in demand.deployments]
    return shortlist.say(Strategy.name, text) if ranked else shortlist


def _fastest(shortlist: Shortlist, demand: Demand) -> Shortlist:
    """By expected time. What was never measured goes first, whatever it costs, and what is slow does so now and then:
    only a call can measure it."""
    times = {candidate.name: _expected_s(candidate, demand) for candidate in shortlist.candidates}
    known = [seconds for seconds in times.values() if seconds is not None]
    best = min(known, default=0.0)

    def rank(candidate: Candidate) -> float:
        seconds = times[candidate.name]
        if seconds is None:
            return -1.0
        if seconds <= best * _AS_FAST:
            return 0.0
        return -1.0 if is_trial(demand.seed, candidate.name) else seconds

    shortlist = shortlist.refine(rank).refine(lambda candidate: cost(candidate, demand))
    return _say(shortlist, demand, "the fastest")


def _expected_s(candidate: Candidate, demand: Demand) -> float | None:
    condition = candidate.condition
    if condition is None or condition.first_token is None:
        return None
    speed = condition.tokens_per_second
    return condition.first_token.total_seconds() + (demand.output_tokens / speed if speed else 0.0)
