"""The part of JSON Schema that Anthropic's structured outputs accept. Pure.

Source: Anthropic, "Structured outputs", JSON Schema limitations. What the server would refuse with 400 is either a
constraint that can be left out, because every reply is validated afterwards, or a meaning that cannot be expressed.
"""

from collections.abc import Mapping
from typing import Any

_KEPT = frozenset({"type", "enum", "const", "required", "title", "description", "default"})
_ONE_SCHEMA = frozenset({"items"})
_SCHEMA_LISTS = frozenset({"anyOf", "allOf"})
_SCHEMAS_BY_NAME = frozenset({"properties", "$defs", "definitions"})
_LEFT_OUT = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)
_DEFINITIONS = ("#/$defs/", "#/definitions/")


class _Inexpressible(Exception):
    """The schema says something that the subset has no words for."""


def expressible(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema that admits everything `schema` admits, in the subset; `None` when there is none.

    Open objects and recursion are among what cannot be said.
    """
    try:
        reduced = _reduced(schema)
    except (_Inexpressible, RecursionError):
        return None
    definitions = {
        f"{prefix}{name}": definition
        for prefix in _DEFINITIONS
        for name, definition in reduced.get(prefix[2:-1], {}).items()
    }
    return None if _is_recursive(definitions) else reduced


def _reduced(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):  # `true` and `false` are schemas too
        raise _Inexpressible
    reduced: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _KEPT:
            reduced[keyword] = value
        elif keyword in _ONE_SCHEMA:
            reduced[keyword] = _reduced(value)
        elif keyword in _SCHEMA_LISTS:
            reduced[keyword] = [_reduced(item) for item in _list(value)]
        elif keyword == "oneOf":  # that only one may match is left to validation
            reduced["anyOf"] = [_reduced(item) for item in _list(value)]
        elif keyword in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            reduced[keyword] = {name: _reduced(item) for name, item in value.items()}
        elif keyword == "additionalProperties" and value is False:
            reduced[keyword] = False
        elif keyword == "$ref" and isinstance(value, str) and value.startswith(_DEFINITIONS):
            reduced[keyword] = value
        elif keyword not in _LEFT_OUT:
            raise _Inexpressible
    is_object = "properties" in reduced or "object" in _list(reduced.get("type"))
    if is_object and reduced.get("additionalProperties") is not False:
        raise _Inexpressible
    return reduced


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_recursive(definitions: Mapping[str, Any]) -> bool:
    """Whether following references from any definition leads back to it."""
    reached = {name: set(_references(definition)) for name, definition in definitions.items()}
    for _ in definitions:
        for name, names in reached.items():
            reached[name] = names.union(*(reached.get(other, set()) for other in names))
    return any(name in names for name, names in reached.items())


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, Mapping):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [name for value in schema.values() for name in _references(value)]
