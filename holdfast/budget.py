"""What a model call may cost at worst, what a request has left, and when the next call is refused.

Pure arithmetic over contracts, so that workflows may import it. The ledger enforces `check` inside the transaction
that admits a call; everyone else uses these functions to look ahead. Budgets of tenants and users are in `spending`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal

from holdfast.contracts import Limits, Usage
from holdfast.errors import LimitExceeded

RESERVED_TIME = timedelta(minutes=10)
"""Most time that is kept back from delegates, so that whoever asked them can still use what they say; a tenth of what
is left if that is less."""

_SMALLEST_SHARE = Decimal("0.00000001")
"""Shares are cut off after this many decimals of a dollar, never rounded up."""


@dataclass(frozen=True)
class Remaining:
    """What the ceilings of a request still leave; never negative."""

    tokens: int
    cost_usd: Decimal | None
    """`None` when no ceiling in dollars was set."""
    attempts: int


def worst_case(prompt_tokens: int, max_output_tokens: int, price: Callable[[Usage], Decimal | None]) -> Usage:
    """The most a call can consume: the whole prompt at its dearest class, and a reply of full length.

    Args:
        prompt_tokens: Tokens of the prompt, not underestimated.
        max_output_tokens: Reply limit sent to the provider, which includes reasoning.
        price: Dollars of a usage, `None` when the model has no known price.

    Returns:
        The usage to hold. Its tokens are counted as plain input; its cost is the higher of a plain prompt and of one
        written to the provider's cache, which some providers bill above the input rate.
    """
    hold = Usage(input_tokens=prompt_tokens, output_tokens=max_output_tokens, cost_usd=None)
    plain = price(hold)
    if plain is None:
        return hold
    written = price(hold.model_copy(update={"input_tokens": 0, "cache_write_tokens": prompt_tokens}))
    return hold.model_copy(update={"cost_usd": plain if written is None else max(plain, written)})


def remaining(limits: Limits, spent: Usage, attempts: int = 0) -> Remaining:
    """What is left of a request's ceilings.

    Args:
        limits: The ceilings.
        spent: Recorded so far, open calls at their worst case.
        attempts: Model calls so far.

    Returns:
        What is left. With a ceiling in dollars and an unpriced call behind us, no dollars are left.
    """
    cost = None
    if limits.cost_usd is not None:
        cost = Decimal(0) if spent.cost_usd is None else max(Decimal(0), limits.cost_usd - spent.cost_usd)
    return Remaining(
        tokens=max(0, limits.tokens - spent.total_tokens),
        cost_usd=cost,
        attempts=max(0, limits.attempts - attempts),
    )


def fit_output_tokens(limits: Limits, spent: Usage, prompt_tokens: int, wanted: int) -> int:
    """Shorten a reply limit to what the token ceiling leaves after the prompt.

    Returns:
        At least 1, at most `wanted` and `limits.output_tokens`.

    Raises:
        LimitExceeded: The prompt alone uses up the rest of the token ceiling.
    """
    left = limits.tokens - spent.total_tokens - prompt_tokens
    if left < 1:
        needed = spent.total_tokens + prompt_tokens + 1
        raise _over_tokens(limits, needed)
    return min(wanted, limits.output_tokens, left)


def check(limits: Limits, spent: Usage, attempts: int, hold: Usage) -> None:
    """Refuse a call whose worst case would pass a ceiling of its request.

    Args:
        limits: The ceilings.
        spent: Recorded so far: actual usage of settled calls, worst case of open and unknown ones.
        attempts: Model calls so far, whatever became of them.
        hold: Worst case of the call in question.

    Raises:
        LimitExceeded: Names the ceiling, its value and what the call would bring the total to.
    """
    if attempts + 1 > limits.attempts:
        raise LimitExceeded(
            f"The request has made {attempts} model calls and may make {limits.attempts}. "
            "Raise `limits.attempts`, or see in its trace why the calls failed.",
            limit="attempts",
            bound=str(limits.attempts),
            needed=str(attempts + 1),
        )
    tokens = spent.total_tokens + hold.total_tokens
    if tokens > limits.tokens:
        raise _over_tokens(limits, tokens)
    if limits.cost_usd is None:
        return
    if hold.cost_usd is None or spent.cost_usd is None:
        which = "this model has" if hold.cost_usd is None else "a model called earlier has"
        raise LimitExceeded(
            f"The request has a ceiling of {limits.cost_usd} USD, but {which} no known price, so its cost cannot be "
            "bounded. Set `price` for the deployment in models.toml, or leave `limits.cost_usd` out.",
            limit="cost_usd",
            bound=str(limits.cost_usd),
            needed="unpriced",
        )
    cost = spent.cost_usd + hold.cost_usd
    if cost > limits.cost_usd:
        raise LimitExceeded(
            f"The next model call could bring the request to {cost} USD; its ceiling is {limits.cost_usd} USD. "
            "Raise `limits.cost_usd`, lower `limits.output_tokens`, or use a cheaper deployment.",
            limit="cost_usd",
            bound=str(limits.cost_usd),
            needed=str(cost),
        )


def carve(limits: Limits, spent: Usage, children: int, time_left: timedelta) -> Limits:
    """What each of the delegates that start together may spend: equal parts of what is left, and one part is kept.

    The part that is kept is for the next call of whoever asks them; what a delegate leaves over is free again once it
    has ended. So the parts together never pass what is left, however deep delegates ask others in turn.

    Args:
        limits: Of the request that asks.
        spent: By that request so far, its earlier delegates included.
        children: How many start together, at least 1.
        time_left: Until that request's deadline.

    Returns:
        Its limits with the tokens, the dollars and the deadline of one part.

    Raises:
        LimitExceeded: Nothing is left to give away.
    """
    left = remaining(limits, spent)
    tokens = left.tokens // (children + 1)
    if tokens < 1:
        raise LimitExceeded(
            f"The request has {left.tokens} of its {limits.tokens} tokens left, too few to give delegates a part. "
            "Raise `limits.tokens`, or let fewer delegates work.",
            limit="tokens",
            bound=str(limits.tokens),
            needed=str(spent.total_tokens + children + 1),
        )
    deadline = time_left - min(time_left / 10, RESERVED_TIME)
    if deadline <= timedelta(0):
        raise LimitExceeded(
            "The request's time is up before a delegate could begin; raise `limits.deadline`.",
            limit="deadline",
            bound=f"{limits.deadline.total_seconds():.0f} s",
            needed=f"{(limits.deadline - time_left).total_seconds():.0f} s",
        )
    cost = left.cost_usd
    if cost is not None:
        cost = (cost / (children + 1)).quantize(_SMALLEST_SHARE, rounding=ROUND_DOWN)
    return limits.model_copy(update={"tokens": tokens, "cost_usd": cost, "deadline": deadline})


def without(limits: Limits, delegated: Usage) -> Limits:
    """What is left of a request's limits for its own calls, beside what its delegates spent.

    Args:
        limits: Of the request.
        delegated: What delegates spent; unpriced under a ceiling in dollars leaves no dollars.
    """
    if delegated == Usage():
        return limits
    left = remaining(limits, delegated)
    # A ceiling of no tokens cannot be written; one token admits no call either.
    return limits.model_copy(update={"tokens": max(1, left.tokens), "cost_usd": left.cost_usd})


def _over_tokens(limits: Limits, needed: int) -> LimitExceeded:
    return LimitExceeded(
        f"The next model call could bring the request to {needed} tokens; its ceiling is {limits.tokens}. "
        "Raise `limits.tokens`, lower `limits.output_tokens`, or shorten the input.",
        limit="tokens",
        bound=str(limits.tokens),
        needed=str(needed),
    )
