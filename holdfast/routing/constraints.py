"""Hard constraints: what no preference, fallback or probe can override."""

from holdfast.contracts import Cause
from holdfast.routing.candidate import IN_PROCESS, Candidate, Demand
from holdfast.routing.shortlist import Shortlist


class Residency:
    """Keeps what computes in a region that may see the request."""

    name = "residency"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        allowed = ", ".join(sorted(demand.regions))
        faults = {
            candidate.name: f"computes in {candidate.region or 'an unknown region'}, allowed: {allowed}"
            for candidate in shortlist.candidates
            if demand.regions and candidate.region not in (IN_PROCESS, *demand.regions)
        }
        return shortlist.drop(self.name, faults)


class Usable:
    """Keeps what is enabled and has not failed this request."""

    name = "usable"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        faults = {candidate.name: "is not enabled" for candidate in shortlist.candidates if not candidate.enabled}
        faults |= {name: text or "failed this request" for name, text in demand.excluded.items()}
        return shortlist.drop(self.name, faults)


class Capabilities:
    """Keeps what can do what the call needs."""

    name = "capabilities"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        faults = {
            candidate.name: f"lacks {', '.join(sorted(missing))}"
            for candidate in shortlist.candidates
            if (missing := demand.needs - candidate.capabilities)
        }
        return shortlist.drop(self.name, faults)


class ContextWindow:
    """Keeps what has room for prompt and reply; after a provider's refusal, only what has more than that one."""

    name = "context_window"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        tokens = demand.prompt_tokens + demand.output_tokens
        faults = {
            candidate.name: f"has room for {candidate.context_window:,} tokens, needed: {tokens:,}"
            for candidate in shortlist.candidates
            if candidate.context_window < tokens
        }
        failed = demand.failed
        if demand.cause is Cause.CONTEXT_WINDOW and failed is not None:
            # Our count said that it fits; the provider's own tokenizer knows better.
            faults |= {
                candidate.name: f"has no more room than {failed.name}, which refused the prompt"
                for candidate in shortlist.candidates
                if candidate.name not in faults and candidate.context_window <= failed.context_window
            }
        return shortlist.drop(self.name, faults)


class Budget:
    """Keeps what the request can pay for at worst. Without a price that is nobody's promise, so it is dropped."""

    name = "budget"

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """See `Policy.apply`."""
        faults = {candidate.name: text for candidate in shortlist.candidates if (text := _unpayable(candidate, demand))}
        return shortlist.drop(self.name, faults)


def _unpayable(candidate: Candidate, demand: Demand) -> str | None:
    tokens = demand.prompt_tokens + demand.output_tokens
    if demand.tokens_left is not None and tokens > demand.tokens_left:
        return f"may use {tokens:,} tokens, left: {demand.tokens_left:,}"
    if demand.usd_left is None:
        return None
    cost = candidate.worst_case_usd(demand.prompt_tokens, demand.output_tokens)
    if cost is None:
        return "has no price, and the budget is in dollars"
    if cost > demand.usd_left:
        return f"may cost ${cost.normalize():f}, left: ${demand.usd_left.normalize():f}"
    return None
