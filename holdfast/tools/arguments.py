"""Arguments as a model wrote them: read as one JSON object, checked against a schema. Pure.

What is said about them goes back to the model and into a history, so it names keys of the schema and never a value. A
name that the schema does not have, such as a key of a mapping, is a value too.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice

from pydantic import JsonValue

from holdfast.contracts import Violation
from holdfast.errors import ToolProblem
from holdfast.validation import can_multiply, compile_schema, flaw, is_too_much, known_pointer, read_json

MAX_PROBLEMS = 5
"""Violations told at once."""
MAX_CHARACTERS = 300
"""Of one violation's message."""


def read_arguments(text: str) -> dict[str, JsonValue]:
    """Read the arguments of a call, mending slips that lose nothing.

    Args:
        text: As the model wrote it; nothing at all counts as no arguments.

    Raises:
        ToolProblem: It is not one JSON object.
    """
    if not text.strip():
        return {}
    read = read_json(text)
    if isinstance(read, Violation):
        flaw = read.message.replace("The reply", "The text")
        raise ToolProblem(f"The arguments are not one JSON object. {flaw} Send them again as JSON.")
    if not isinstance(read.value, dict):
        raise ToolProblem("The arguments must be one JSON object with the parameters' names as keys.")
    return read.value


def check_arguments(arguments: Mapping[str, JsonValue], schema: dict[str, JsonValue]) -> None:
    """Check arguments against a tool's parameters.

    Raises:
        ToolProblem: Says where and what.
    """
    if can_multiply(schema) and is_too_much(schema, dict(arguments)):
        raise ToolProblem("The arguments would take too long to be checked; send fewer or less nested ones.")
    errors = islice(compile_schema(schema).iter_errors(arguments), MAX_PROBLEMS)
    complain([(known_pointer(error.instance_path, schema), flaw(error, schema, noun="parameter")) for error in errors])


def without_values(message: str, arguments: JsonValue) -> str:
    """A message of a tool's own check without the values that it repeats.

    Args:
        message: In the words of whoever wrote the tool.
        arguments: What was checked.
    """
    for value in sorted(_values(arguments), key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", message)
    return message


def complain(violations: list[tuple[str, str]]) -> None:
    """Tell all violations at once, if there are any.

    Args:
        violations: JSON Pointers with what is wrong there.

    Raises:
        ToolProblem: There are.
    """
    if violations:
        lines = [f"- {path or 'arguments'}: {_one_line(message)}" for path, message in violations[:MAX_PROBLEMS]]
        raise ToolProblem("\n".join(["The arguments do not fit the tool's parameters:", *lines]))


def _values(arguments: JsonValue) -> set[str]:
    """Every text and number in the arguments as it would be printed, the keys of mappings included."""
    values: set[str] = set()
    left = [arguments]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part
        elif part is not None and not isinstance(part, bool):
            values |= {text for text in (str(part), repr(part)[1:-1] if isinstance(part, str) else "") if text.strip()}
    return values


def canonical(arguments: Mapping[str, JsonValue]) -> str:
    """The one JSON text that stands for these arguments."""
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
