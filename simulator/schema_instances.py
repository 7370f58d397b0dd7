"""Values that satisfy a JSON Schema, and values that do not.

Covers what structured-output schemas use: `type`, `enum`, `const`, objects, arrays, string and number bounds, simple
`pattern`s, `format`, `anyOf`/`oneOf` (the first alternative that works), `allOf`, and local `$ref`s. A schema outside
that is refused, as a provider refuses schemas it cannot decode against.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import jsonschema_rs

from simulator.patterns import UnsupportedPattern, matching_text

JsonSchema = Mapping[str, Any] | bool
JsonValue = Any
"""Whatever `json.loads` can return."""

_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "person@example.com",
    "uri": "https://example.com/",
    "uuid": "5f0c4d2e-8a51-4c6e-9a55-0d9f3b1f7a10",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}
_PHRASES = ("a short remark", "one more detail", "the next point", "what was asked", "nothing unusual")
_REFUSED_KEYWORDS = (
    *("not", "if", "contains", "patternProperties", "propertyNames", "minProperties", "dependentSchemas"),
    *("dependentRequired", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"),
)


class UnsupportedSchema(ValueError):
    """No value was found for a schema. The message names the place as a JSON Pointer."""


def satisfying(schema: JsonSchema, draw: random.Random, text: str = "") -> JsonValue:
    """Make a value that satisfies a schema.

    Args:
        schema: The JSON Schema.
        draw: Seeded by the request; chooses enum members, numbers and characters.
        text: Used for the first string that has no pattern or format: the answer itself.

    Raises:
        UnsupportedSchema: The schema uses a keyword outside the subset, or nothing satisfies it.
    """
    validator = _validator(json.dumps(schema))
    value = _Instance(schema, draw, text).value(schema, "", ())
    if not validator.is_valid(value):
        raise UnsupportedSchema("its keywords bear on each other in a way that no value was found for")
    return value


def violating(schema: JsonSchema, value: JsonValue) -> JsonValue:
    """Make a JSON value that does not satisfy a schema.

    Args:
        schema: The JSON Schema.
        value: A value that satisfies it; the result is as near to it as possible.

    Raises:
        UnsupportedSchema: Every value satisfies the schema.
    """
    validator = _validator(json.dumps(schema))
    for candidate in _damaged(value):
        if not validator.is_valid(candidate):
            return candidate
    raise UnsupportedSchema("the schema accepts every value that was tried, so nothing violates it")


@lru_cache(maxsize=256)
def _validator(schema: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise UnsupportedSchema("it is not a valid JSON Schema") from error


def _damaged(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, dict):
        for name in value:
            yield {key: part for key, part in value.items() if key != name}
        for name, part in value.items():
            yield value | {name: [] if isinstance(part, str) else "not what the schema asks for"}
        yield value | {"unexpected": True}
    yield from ({"unexpected": True}, ["unexpected"], "unexpected", None, -0.5, True, [], {})


class _Instance:
    def __init__(self, root: JsonSchema, draw: random.Random, text: str) -> None:
        self._root = root
        self._draw = draw
        self._text: str | None = text or None

    def value(self, schema: JsonSchema, at: str, entered: tuple[str, ...]) -> JsonValue:
        """One value; `entered` are the references being expanded, none of which may be entered again.

        A smallest value never needs a reference inside itself, so giving up there loses nothing and always ends.
        """
        if isinstance(schema, bool):
            if not schema:
                raise UnsupportedSchema(f"nothing satisfies the schema at {at or '/'!r}")
            return self._string({}, at)
        for keyword in _REFUSED_KEYWORDS:
            if keyword in schema:
                raise UnsupportedSchema(f"keyword {keyword!r} at {at or '/'!r} is not supported")
        if "$ref" in schema:
            reference = str(schema["$ref"])
            if reference in entered:
                raise UnsupportedSchema(f"{reference!r} at {at or '/'!r} contains itself without end")
            merged = _merge(_without(schema, "$ref"), self._resolve(reference, at))
            return self.value(merged, at, (*entered, reference))
        if "allOf" in schema:
            merged = _without(schema, "allOf")
            for part in schema["allOf"]:
                merged = _merge(merged, part)
            return self.value(merged, at, entered)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = _without(schema, keyword)
                return self._first([_merge(rest, part) for part in schema[keyword]], at, entered)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._draw.choice(schema["enum"])
        return self._typed(schema, at, entered)

    def _first(self, alternatives: list[dict[str, Any]], at: str, entered: tuple[str, ...]) -> JsonValue:
        reason = UnsupportedSchema(f"no alternative at {at or '/'!r}")
        for alternative in alternatives:
            try:
                return self.value(alternative, at, entered)
            except UnsupportedSchema as error:
                reason = error
        raise reason

    def _resolve(self, reference: str, at: str) -> JsonSchema:
        node: Any = self._root
        if not reference.startswith("#"):
            raise UnsupportedSchema(f"reference {reference!r} at {at or '/'!r} is not local")
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or key not in node:
                raise UnsupportedSchema(f"reference {reference!r} at {at or '/'!r} leads nowhere")
            node = node[key]
        if not isinstance(node, Mapping | bool):
            raise UnsupportedSchema(f"reference {reference!r} at {at or '/'!r} is not to a schema")
        return node

    def _typed(self, schema: Mapping[str, Any], at: str, entered: tuple[str, ...]) -> JsonValue:
        kind = schema.get("type", _implied_type(schema))
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "object":
                return self._object(schema, at, entered)
            case "array":
                return self._array(schema, at, entered)
            case "string":
                return self._string(schema, at)
            case "integer":
                return self._number(schema, at, Fraction(1))
            case "number":
                return self._number(schema, at, Fraction(1, 2))
            case "boolean":
                return self._draw.random() < 0.5
            case "null":
                return None
            case other:
                raise UnsupportedSchema(f"type {other!r} at {at or '/'!r} is not a JSON Schema type")

    def _object(self, schema: Mapping[str, Any], at: str, entered: tuple[str, ...]) -> dict[str, JsonValue]:
        properties: Mapping[str, JsonSchema] = schema.get("properties", {})
        required = list(schema.get("required", ()))
        value: dict[str, JsonValue] = {}
        for name in [*properties, *(name for name in required if name not in properties)]:
            part = properties.get(name, schema.get("additionalProperties", True))
            if name not in required and len(value) >= schema.get("maxProperties", math.inf):
                continue
            try:
                value[name] = self.value(part, f"{at}/{name}", entered)
            except UnsupportedSchema:
                if name in required:
                    raise
        return value

    def _array(self, schema: Mapping[str, Any], at: str, entered: tuple[str, ...]) -> list[JsonValue]:
        least = schema.get("minItems", 0)
        wanted = min(max(least, 1), schema.get("maxItems", math.inf))
        prefix = schema.get("prefixItems", ())
        values: list[JsonValue] = []
        try:
            while len(values) < max(wanted, min(len(prefix), schema.get("maxItems", math.inf))):
                position = len(values)
                part = prefix[position] if position < len(prefix) else schema.get("items", True)
                values.append(
                    self._item(part, f"{at}/{position}", entered, values if schema.get("uniqueItems") else ())
                )
        except UnsupportedSchema:
            if len(values) < least:
                raise
        return values

    def _item(
        self, schema: JsonSchema, at: str, entered: tuple[str, ...], others: list[JsonValue] | tuple[()]
    ) -> JsonValue:
        taken = {json.dumps(other, sort_keys=True) for other in others}
        for _ in range(100):
            value = self.value(schema, at, entered)
            if json.dumps(value, sort_keys=True) not in taken:
                return value
        raise UnsupportedSchema(f"no further distinct item was found at {at!r}")

    def _string(self, schema: Mapping[str, Any], at: str) -> str:
        least = schema.get("minLength", 0)
        most = schema.get("maxLength")
        if "pattern" in schema:
            try:
                return matching_text(schema["pattern"], self._draw, min_length=least, max_length=most)
            except UnsupportedPattern as error:
                raise UnsupportedSchema(f"{error} (at {at or '/'!r})") from error
        if most is not None and most < least:
            raise UnsupportedSchema(f"nothing satisfies `minLength` and `maxLength` at {at or '/'!r}")
        if schema.get("format") in _FORMATS:
            text = _FORMATS[schema["format"]]
            if least <= len(text) <= (len(text) if most is None else most):
                return text
        text, self._text = self._text or self._draw.choice(_PHRASES), None
        return text[:most].ljust(least, ".")

    def _number(self, schema: Mapping[str, Any], at: str, grid: Fraction) -> int | float:
        step = _common_multiple(grid, _exact(schema["multipleOf"])) if "multipleOf" in schema else grid
        low = _bound(schema, "minimum", "exclusiveMinimum", max)
        high = _bound(schema, "maximum", "exclusiveMaximum", min)
        while True:
            first = None if low is None else _first_multiple(low[0], step, exclusive=low[1], up=True)
            last = None if high is None else _first_multiple(high[0], step, exclusive=high[1], up=False)
            if first is None or last is None or first <= last:
                break
            if grid.denominator == 1 or "multipleOf" in schema or step < Fraction(1, 10**12):
                raise UnsupportedSchema(f"no number lies between the bounds at {at or '/'!r}")
            step /= 16
        if first is None:
            first = min(0, last - 9) if last is not None else 0
        last = first + 9 if last is None else min(last, first + 9)
        number = self._draw.randint(first, last) * step
        return int(number) if number.denominator == 1 else float(number)


def _implied_type(schema: Mapping[str, Any]) -> str:
    for kind, keywords in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
        ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    ):
        if any(keyword in schema for keyword in keywords):
            return kind
    return "string"


def _without(schema: Mapping[str, Any], keyword: str) -> dict[str, Any]:
    return {key: part for key, part in schema.items() if key != keyword}


_TIGHTER: Mapping[str, Callable[[Any, Any], Any]] = {
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
    "required": lambda one, other: [*one, *(name for name in other if name not in one)],
    "allOf": lambda one, other: [*one, *other],
}


def _merge(one: Mapping[str, Any], other: JsonSchema) -> dict[str, Any]:
    """One schema that asks for what both ask for, as far as the supported keywords go."""
    if isinstance(other, bool):
        if other:
            return dict(one)
        raise UnsupportedSchema("nothing satisfies an alternative that is `false`")
    merged = dict(one)
    for keyword, part in other.items():
        if keyword not in merged or merged[keyword] == part:
            merged[keyword] = part
        elif keyword == "properties":
            merged[keyword] = merged[keyword] | {
                name: {"allOf": [merged[keyword][name], value]} if name in merged[keyword] else value
                for name, value in part.items()
            }
        elif keyword in _TIGHTER:
            merged[keyword] = _TIGHTER[keyword](merged[keyword], part)
        elif keyword in (
            "title",
            "description",
            "default",
            "examples",
            "$comment",
            "$schema",
            "$id",
            "$defs",
            "definitions",
        ):
            continue
        elif keyword in ("anyOf", "oneOf", "$ref"):
            merged.setdefault("allOf", [])
            merged["allOf"] = [*merged["allOf"], {keyword: part}]
        else:
            raise UnsupportedSchema(f"two different {keyword!r} have to hold at once")
    return merged


def _exact(number: int | float) -> Fraction:
    # The decimal the schema's author wrote, not the binary fraction nearest to it.
    return Fraction(repr(number))


def _common_multiple(one: Fraction, other: Fraction) -> Fraction:
    if one.denominator != 1:
        return other
    return Fraction(math.lcm(one.numerator, other.numerator), math.gcd(one.denominator, other.denominator))


def _bound(
    schema: Mapping[str, Any], inclusive: str, exclusive: str, tighter: Callable[[list[Fraction]], Fraction]
) -> tuple[Fraction, bool] | None:
    given = {keyword: _exact(schema[keyword]) for keyword in (inclusive, exclusive) if keyword in schema}
    if not given:
        return None
    value = tighter(list(given.values()))
    return value, given.get(exclusive) == value


def _first_multiple(bound: Fraction, step: Fraction, *, exclusive: bool, up: bool) -> int:
    """Index of the multiple of `step` nearest to a bound on its inner side."""
    quotient = bound / step
    index = math.ceil(quotient) if up else math.floor(quotient)
    if exclusive and index == quotient:
        index += 1 if up else -1
    return index
