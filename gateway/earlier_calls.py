"""What a run called before it asked people, taken from what its model was shown, so that they need not decide blind.

Pure. The names, arguments and results are what a model wrote and what tools returned: masked, but anybody's words.
"""

from dataclasses import dataclass

from holdfast.contracts import ToolCall, Turn
from holdfast.preparation import TRANSCRIPT
from holdfast.tools.results import read_result

MOST_CALLS = 50
"""Calls that are shown, the latest ones."""
MOST_ARGUMENTS = 2_000
"""Characters of one call's arguments."""
MOST_RESULT = 4_000
"""Characters of one call's result."""


@dataclass(frozen=True)
class EarlierCall:
    """One call and what came of it."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    result: str
    from_outside: bool
    """Whether the result is text that neither the agent's author nor its user wrote."""
    cut: bool
    """Whether arguments or result are longer than shown."""


@dataclass(frozen=True)
class EarlierCalls:
    """The calls of a run, in their order."""

    calls: tuple[EarlierCall, ...] = ()
    left_out: int = 0
    """How many more there were before them."""


def earlier_calls(transcript: str | None) -> EarlierCalls:
    """The calls that a stored transcript tells of.

    Args:
        transcript: JSON array of `Turn`; `None` for a run that has called nothing, or whose text is no longer stored.
    """
    turns = TRANSCRIPT.validate_json(transcript) if transcript else ()
    results = {turn.tool_call_id: turn for turn in turns if turn.role == "tool"}
    called = [call for turn in turns for call in turn.tool_calls]
    shown = called[-MOST_CALLS:]
    return EarlierCalls(tuple(_call(call, results.get(call.id)) for call in shown), len(called) - len(shown))


def _call(call: ToolCall, answered: Turn | None) -> EarlierCall:
    result, from_outside = read_result(answered.content) if answered else ("", False)
    return EarlierCall(
        name=call.name,
        arguments=call.arguments[:MOST_ARGUMENTS],
        result=result[:MOST_RESULT],
        from_outside=from_outside,
        cut=len(call.arguments) > MOST_ARGUMENTS or len(result) > MOST_RESULT,
    )
