"""What a JSON Schema lets a value hold: the names it may have, and what is behind each. Pure.

For those who write about values before there are any, such as conditions of approvals. It is lenient: a name counts as
unknown only where the schema lists names and does not say that there may be others.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import JsonValue

_MAX_REFERENCES = 50
_COMBINED = ("allOf", "anyOf", "oneOf", "then", "else")
_OTHERS = ("additionalProperties", "unevaluatedProperties")
"""What says whether there may be names that are not listed; the first one that is there."""
_TELLING = ("type", "properties", "patternProperties", "additionalProperties", "items", "prefixItems")


class _Part(NamedTuple):
    """One of the schemas that may describe a value, and the document that its references point into."""

    schema: Mapping[str, JsonValue]
    root: JsonValue


@dataclass(frozen=True)
class Shape:
    """What is known of a value."""

    path: str
    """How the value is named, e.g. `args.lines`."""
    parts: tuple[_Part, ...] = ()
    anything: bool = False
    """Whether it may be whatever there is; nothing is said of such a value."""

    @classmethod
    def of(cls, path: str, *schemas: JsonValue) -> "Shape":
        """A value that one of some schemas describes."""
        return _shape(path, [(schema, schema) for schema in schemas])

    @property
    def names(self) -> tuple[str, ...]:
        """The names that it may have, as far as they are listed."""
        listed = (_mapping(part.schema.get("properties")) for part in self.parts if _may_be(part, "object"))
        return tuple(dict.fromkeys(name for names in listed for name in names))

    def member(self, name: str) -> "Shape | None":
        """What is behind a name; none when the value has no such name."""
        path = f"{self.path}.{name}"
        if self.anything:
            return Shape(path, anything=True)
        found: list[tuple[JsonValue, JsonValue]] = []
        for part in self.parts:
            if _may_be(part, "object"):
                found += ((schema, part.root) for schema in _members(part.schema, name))
        return _shape(path, found) if found else None

    def item(self) -> "Shape":
        """What a loop over it goes through: the items of a list, the names of an object."""
        path = f"{self.path}[]"
        if self.anything:
            return Shape(path, anything=True)
        found: list[tuple[JsonValue, JsonValue]] = []
        for part in self.parts:
            if _may_be(part, "array"):
                found.append((part.schema.get("items", True), part.root))
                first = part.schema.get("prefixItems")
                found += ((schema, part.root) for schema in (first if isinstance(first, list) else ()))
            if _may_be(part, "object"):
                found.append(({"type": "string"}, part.root))
        return _shape(path, found) if found else Shape(path, anything=True)


def _members(schema: Mapping[str, JsonValue], name: str) -> Iterator[JsonValue]:
    properties, patterns = _mapping(schema.get("properties")), _mapping(schema.get("patternProperties"))
    matching = [inner for pattern, inner in patterns.items() if _matches(pattern, name)]
    if name in properties:
        yield properties[name]
    elif matching:
        yield from matching
    elif others := [schema[key] for key in _OTHERS if key in schema][:1]:
        if others != [False]:
            yield from others
    elif not properties and not patterns and not any(key in schema for key in _COMBINED):
        yield True


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # the schema's dialect has patterns that this one does not
        return True


def _may_be(part: _Part, kind: str) -> bool:
    given = part.schema.get("type", kind)
    return given == kind or (isinstance(given, list) and kind in given)


def _shape(path: str, schemas: Sequence[tuple[JsonValue, JsonValue]]) -> Shape:
    parts: list[_Part] = []
    left, references = list(schemas), 0
    while left:
        schema, root = left.pop()
        if not isinstance(schema, dict):
            if schema is not False:
                return Shape(path, anything=True)
            continue
        inner: list[JsonValue] = []
        if "$ref" in schema:
            references += 1
            # A reference to elsewhere, or a circle of them, tells nothing.
            inner.append(_referred(schema["$ref"], root) if references <= _MAX_REFERENCES else True)
        for key in _COMBINED:
            branches = schema.get(key, [])
            inner += branches if isinstance(branches, list) else [branches]
        inner += _mapping(schema.get("dependentSchemas")).values()
        left += ((one, root) for one in inner)
        if any(key in schema for key in _TELLING):
            parts.append(_Part(schema, root))
        elif not inner:
            return Shape(path, anything=True)
    return Shape(path, tuple(parts))


def _referred(reference: JsonValue, root: JsonValue) -> JsonValue:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    found = root
    for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        found = _mapping(found).get(step.replace("~1", "/").replace("~0", "~"), True)
    return found


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
