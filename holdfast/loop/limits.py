"""The limits of a request in one vocabulary: which, what it had come to, its bound, and what to do about it."""

from typing import Literal

from holdfast.contracts import LimitReached
from holdfast.errors import LimitExceeded

LimitName = Literal["tokens", "cost_usd", "attempts", "repairs", "iterations", "tool_calls", "repetitions", "deadline"]
"""Every limit that can end a request."""

_MESSAGES: dict[LimitName, str] = {
    "tokens": (
        "The next model call could bring the request to {value} tokens; its ceiling is {bound}. Raise `limits.tokens`, "
        "lower `limits.output_tokens`, or shorten the input."
    ),
    "cost_usd": (
        "The next model call could bring the request to {value} USD; its ceiling is {bound} USD. Raise "
        "`limits.cost_usd`, lower `limits.output_tokens`, or use a cheaper deployment."
    ),
    "attempts": "The request's {bound} model calls are used up; raise `limits.attempts`.",
    "repairs": "The reply is still invalid after {value} repairs",
    "iterations": (
        "The model still asks for tools after {bound} questions, and was told that the last one has to be answered; "
        "raise `limits.iterations`, or give the agent a simpler task."
    ),
    "tool_calls": (
        "The request's {bound} calls of tools are used up, and the model, told so, still asks for more; raise "
        "`limits.tool_calls`."
    ),
    "repetitions": (
        "The model asked {value} times for the same call, {bound} are made, and instead of answering it still asks for "
        "calls; say in the agent's instructions when to stop, or raise `limits.repetitions`."
    ),
    "deadline": "The request's deadline passed; raise `limits.deadline` and ask again.",
}


def limit_reached(limit: LimitName, value: object, bound: object) -> LimitExceeded:
    """The one way to say that a limit ends a request.

    Args:
        limit: Which.
        value: What it had come to, or would have with the next step.
        bound: Its value.
    """
    message = _MESSAGES[limit].format(value=value, bound=bound)
    return LimitExceeded(message, limit=limit, bound=str(bound), needed=str(value))


def on_record(error: LimitExceeded) -> LimitReached:
    """The limit as an answer states it."""
    return LimitReached(limit=error.limit, value=error.needed, bound=error.bound)
