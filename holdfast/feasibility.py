"""Whether an agent's limits leave room for a single call. Pure.

Before a call, its whole prompt and a reply of full length are held against the limits (`holdfast.budget`). An agent
whose instructions and `output_tokens` alone go beyond them would refuse every request.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import JsonValue

from holdfast.budget import worst_case
from holdfast.contracts import Limits, Usage
from holdfast.deployments import Deployment
from holdfast.errors import ConfigurationError
from holdfast.prices import Prices


def check_limits(
    limits: Limits,
    instructions: str,
    output_schema: Mapping[str, JsonValue] | None,
    deployments: Iterable[Deployment],
    where: str,
) -> None:
    """Check that a call with an empty question would fit.

    Args:
        limits: Of the agent.
        instructions: Its prompt.
        output_schema: Of its answers; none if they are text.
        deployments: All that may be asked.
        where: The agent's file.

    Raises:
        ConfigurationError: Tokens or dollars do not suffice.
    """
    texts = [instructions, json.dumps(output_schema) if output_schema else ""]
    asked = tuple(deployments)
    # A token is a byte at least; what fits even so need not be counted, and the counter takes a second to load.
    if not _fit(limits, 2 * sum(len(text.encode()) for text in texts) + 20, asked):
        return
    from holdfast.tokens import TOKENIZER_MARGIN, count_message_tokens

    problem = _fit(limits, math.ceil(count_message_tokens(texts) * TOKENIZER_MARGIN), asked)
    if problem:
        raise ConfigurationError(f"{where}: {problem}")


def _fit(limits: Limits, prompt: int, deployments: tuple[Deployment, ...]) -> str:
    """What stands in the way of a call whose prompt has so many tokens."""
    if prompt + limits.output_tokens > limits.tokens:
        return (
            f"`limits.tokens` is {limits.tokens}, and every call needs {prompt + limits.output_tokens}: {prompt} for "
            f"the instructions and {limits.output_tokens} for a reply; raise it, or lower `limits.output_tokens`."
        )
    costs = [_cost(deployment, prompt, limits.output_tokens) for deployment in deployments]
    known = [cost for cost in costs if cost is not None]
    if limits.cost_usd is None or len(known) < len(costs) or not known or min(known) <= limits.cost_usd:
        return ""
    return (
        f"`limits.cost_usd` is {limits.cost_usd}, and a call of the cheapest deployment may cost {min(known):f}; raise "
        "it, lower `limits.output_tokens`, or list a cheaper deployment."
    )


def _cost(deployment: Deployment, prompt: int, output: int) -> Decimal | None:
    """Dollars that are held for a call; none when nobody knows, or when it may go at another price."""
    if deployment.batch:
        return None

    def price(usage: Usage) -> Decimal | None:
        return _PRICES.cost(
            deployment.price_list, deployment.model, usage, datetime.now(UTC), override=deployment.price_override
        )

    return worst_case(prompt, output, price).cost_usd


_PRICES = Prices()
