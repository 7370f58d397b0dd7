"""How long a value takes to be checked against a schema, counted before it is checked. Pure.

A few definitions that each refer twice to the next double the work at every step, and a recursive one that does so
doubles it with every level of the value. So does a keyword that asks what its neighbours left over, within one that
asks it too: they are gone through again for the answer. The library has no clock, and while it is at work nothing else
in the process is: so the applications of a part of the schema to a part of the value are counted here first, every
branch taken.
"""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import JsonValue

MOST_STEPS = 100_000
"""Applications of one part of a schema to one part of a value. Counting so many takes some tenths of a second."""
MOST_LEVELS = 2_000
"""Of applications within applications; a schema that refers to itself on the spot has no end of them."""

_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
_BELOW = frozenset(
    {
        "items",
        "prefixItems",
        "contains",
        "additionalItems",
        "unevaluatedItems",
        "additionalProperties",
        "unevaluatedProperties",
        "propertyNames",
    }
)
_LEFT_OVER = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_AGAIN = 3
"""How often neighbours of such a keyword are counted. Measured: a level of them takes up to 2.7 times the one below."""
_UNCOUNTED = frozenset({"$dynamicRef", "$recursiveRef"})

_Step = tuple[JsonValue, JsonValue]


def can_be_counted(schema: JsonValue) -> bool:
    """Whether every reference of a schema is a pointer into it, which is what most libraries write."""
    left: list[JsonValue] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        if not isinstance(part, dict):
            continue
        aim = part.get("$ref")
        # Below an `$id` of its own a pointer would mean another place.
        moved = part is not schema and (isinstance(part.get("$id"), str) or isinstance(part.get("id"), str))
        if moved or _UNCOUNTED & set(part) or (isinstance(aim, str) and not _is_pointer(aim)):
            return False
        left += part.values()
    return True


def can_multiply(schema: JsonValue) -> bool:
    """Whether a check of a schema may take longer than schema and value are large; few can."""
    left: list[JsonValue] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str) or _LEFT_OVER & set(part):
                return True
            left += part.values()
        elif isinstance(part, list):
            left += part
    return False


def is_too_much(schema: JsonValue, value: JsonValue, *, most: int = MOST_STEPS) -> bool:
    """Whether a check could take more than so many steps.

    Args:
        schema: One whose references can be counted.
        value: What is to be checked.
        most: Steps.
    """
    waiting: list[Iterator[_Step]] = [iter([(schema, value)])]
    steps = 0
    while waiting:
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
            continue
        steps += 1
        if steps > most or len(waiting) > MOST_LEVELS:
            return True
        if isinstance(step[0], dict):
            waiting.append(_applied(step[0], step[1], schema))
    return False


def _applied(part: Mapping[str, JsonValue], value: JsonValue, whole: JsonValue) -> Iterator[_Step]:
    """The parts of a part, each with what it is applied to."""
    times = _AGAIN if _LEFT_OVER & set(part) else 1
    for key, inner in part.items():
        if key == "$ref":
            yield from [(_at(whole, str(inner)), value)] * times
        elif key in _IN_PLACE:
            yield from ((one, value) for one in _several(inner) for _ in range(times))
        elif key in _BELOW:
            yield from ((one, child) for one in _several(inner) for child in _children(value))
        elif isinstance(inner, dict):
            if key == "properties" and isinstance(value, dict):
                yield from ((one, value[name]) for name, one in inner.items() if name in value)
            elif key in ("dependentSchemas", "dependencies"):
                yield from ((one, value) for one in inner.values() for _ in range(times))
            elif key == "patternProperties":
                yield from ((one, child) for one in inner.values() for child in _children(value))


def _several(inner: JsonValue) -> Iterable[JsonValue]:
    return inner if isinstance(inner, list) else (inner,)


def _children(value: JsonValue) -> Iterable[JsonValue]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _is_pointer(aim: str) -> bool:
    return aim == "#" or (aim.startswith("#/") and "%" not in aim)


def _at(whole: JsonValue, aim: str) -> JsonValue:
    found = whole
    for step in aim.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
