"""What is wrong with the arguments of a call of `holdfast mcp`, told to the agent that sent them.

It reads the parameters' JSON Schema, which is what the agent was shown, and names parameters and never values.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]
"""JSON Schema of a tool's parameters, or of one of them."""

_MOST_TOLD = 5


def misnamed(schema: Schema, given: Collection[str]) -> list[str]:
    """A sentence for each parameter that is missing, and for each name that is none."""
    known = schema.get("properties", {})
    missing = [
        f"`{name}` is missing; give {_wanted(known[name])}: {known[name]['description']}"
        for name in schema.get("required", ())
        if name not in given
    ]
    return missing + [_unknown(name, known) for name in list(given)[: len(known) + _MOST_TOLD] if name not in known]


def unfit(schema: Schema, names: Iterable[str]) -> list[str]:
    """A sentence for each parameter whose value does not fit."""
    known, required = schema.get("properties", {}), schema.get("required", ())
    return [
        f"`{name}` must be {_wanted(known[name])}{'.' if name in required else ', or left out.'}"
        for name in dict.fromkeys(names)
        if name in known
    ]


def told(tool: str, flaws: list[str]) -> str:
    """All of it in one line."""
    return " ".join([f"{tool} was not called.", *flaws[:_MOST_TOLD]])


def _unknown(name: str, known: Collection[str]) -> str:
    if not known:
        return f"There is no parameter {name[:64]!r}; it takes none."
    near = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(f'`{one}`' for one in known)}."
    return f"There is no parameter {name[:64]!r}; {hint}"


def _wanted(parameter: Schema) -> str:
    """What a value has to be, in words."""
    if parameter["type"] == "number":
        return f"a number from {parameter['minimum']:g} to {parameter['maximum']:g}"
    least, most = parameter.get("minLength", 0), parameter.get("maxLength")
    if most is not None:
        return f"text of {f'{least} to' if least else 'at most'} {most} characters"
    return "text that is not empty" if least else "text"
