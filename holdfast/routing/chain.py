"""The ordered chain of policies, and the decision that falls out of it.

| | policy | may | by |
|---|---|---|---|
| 1 | residency | drop | regions that may see the request |
| 2 | usable | drop | enabled, not given up on by this request |
| 3 | capabilities | drop | what the call needs |
| 4 | context window | drop | prompt and reply together |
| 5 | budget | drop | the worst case against what is left |
| 6 | intent | order | a handler for a recognised question first |
| 7 | fallbacks | drop, order | the agent's lists by cause |
| 8 | health | drop | breaker and cooldown; never all |
| 9 | latency | put last | 95th percentile to the first token |
| 10 | strategy | order | `ordered`, `balanced`, `cheapest`, `fastest`, `complexity` |
| 11 | load | put last, order | room in the limits; weights and calls in flight within a pool |
| 12 | price | explain | how much dearer the alternatives are |
"""

from collections.abc import Sequence

from holdfast.routing.candidate import Candidate, Demand
from holdfast.routing.constraints import Budget, Capabilities, ContextWindow, Residency, Usable
from holdfast.routing.decision import Decision
from holdfast.routing.live import Health, Latency, Load, Price
from holdfast.routing.preferences import Fallbacks, Intent, Strategy
from holdfast.routing.shortlist import Policy, Shortlist

HARD: tuple[Policy, ...] = (Residency(), Usable(), Capabilities(), ContextWindow(), Budget())
"""What nothing overrides."""

SOFT: tuple[Policy, ...] = (Intent(), Fallbacks(), Health(), Latency(), Strategy(), Load(), Price())
"""Preferences, weightiest first."""


def decide(candidates: Sequence[Candidate], demand: Demand, policies: Sequence[Policy] = HARD + SOFT) -> Decision:
    """Choose a deployment.

    Args:
        candidates: The deployments of the agent's list, of its lists by cause and of its intents; names are unique.
        demand: What the call needs.
        policies: In order of precedence.

    Returns:
        The choice, its alternatives and all reasons. The same arguments give the same decision.
    """
    listed = {name: number for number, name in reversed(list(enumerate(demand.deployments)))}
    ordered = sorted(candidates, key=lambda candidate: listed.get(candidate.name, len(listed)))
    shortlist = Shortlist((tuple(ordered),) if ordered else ())
    for policy in policies:
        shortlist = policy.apply(shortlist, demand)
    chosen, *alternatives = shortlist.candidates or (None,)
    return Decision(
        chosen=chosen,
        alternatives=tuple(candidate for candidate in alternatives if candidate is not None),
        reasons=shortlist.reasons,
        sole=chosen is not None and not any(_healthy(candidate) for candidate in alternatives if candidate),
    )


def _healthy(candidate: Candidate) -> bool:
    return candidate.condition is None or candidate.condition.state == "closed"
