"""Instances satisfy their schema, violations do not, and what cannot be satisfied is refused."""

import random
import re
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.patterns import UnsupportedPattern, matching_text
from simulator.schema_instances import UnsupportedSchema, satisfying, violating

PATTERNS = [
    "^[A-Z]{2}-\\d{3,5}$",
    "^(?:a|b)+c?$",
    "[^0-9]x*",
    "^\\d{4}-\\d{2}-\\d{2}$",
    "^[\\w.-]+@[a-z]+\\.com$",
    "a.c",
]


def bounds(low: str, high: str, most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any, one or both of two bounds, the lower at most the upper."""
    pair = st.tuples(st.integers(0, most), st.integers(0, most)).map(sorted)
    return st.one_of(
        st.just({}),
        pair.map(lambda p: {low: p[0]}),
        pair.map(lambda p: {high: p[1]}),
        pair.map(lambda p: {low: p[0], high: p[1]}),
    )


numbers = st.one_of(
    bounds("minimum", "maximum", 50),
    st.integers(-50, 50).map(lambda low: {"exclusiveMinimum": low, "exclusiveMaximum": low + 2}),
    st.integers(-9, 9).map(lambda low: {"minimum": low * 7, "multipleOf": 7}),
)
leaves = st.one_of(
    bounds("minLength", "maxLength", 20).map(lambda b: {"type": "string"} | b),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from(["date", "date-time", "email", "uuid", "uri"]).map(lambda f: {"type": "string", "format": f}),
    numbers.map(lambda b: {"type": "integer"} | b),
    numbers.map(lambda b: {"type": "number"} | b),
    st.floats(-1, 1).map(lambda low: {"type": "number", "minimum": low, "maximum": low + 0.01}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"$ref": "#/$defs/leaf"}]),
    st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4, unique=True).map(lambda e: {"enum": e}),
    (st.none() | st.booleans() | st.text(max_size=5)).map(lambda c: {"const": c}),
)


def objects(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Closed objects that require some of their properties."""
    closed = {"type": "object", "properties": properties, "additionalProperties": False}
    if not properties:
        return st.just(closed)
    required = st.lists(st.sampled_from(sorted(properties)), unique=True)
    return required.map(lambda names: closed | {"required": names})


def containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.dictionaries(st.sampled_from("abcde"), inner, max_size=4).flatmap(objects),
        st.tuples(inner, bounds("minItems", "maxItems", 4)).map(lambda t: {"type": "array", "items": t[0]} | t[1]),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        inner.map(lambda part: {"oneOf": [part, {"const": "no generated value is this"}]}),
    )


schemas = st.recursive(leaves, containers, max_leaves=8).map(
    lambda schema: schema | {"$defs": {"leaf": {"type": "integer", "minimum": 3}}}
)


@settings(max_examples=300, deadline=None)
@given(schemas, st.integers(), st.text(max_size=30))
def test_an_instance_of_a_supported_schema_satisfies_it(schema: dict[str, Any], seed: int, text: str) -> None:
    instance = satisfying(schema, random.Random(seed), text)
    jsonschema_rs.validate(schema, instance)
    assert satisfying(schema, random.Random(seed), text) == instance


@settings(max_examples=150, deadline=None)
@given(schemas, st.integers())
def test_a_violation_does_not_satisfy_the_schema(schema: dict[str, Any], seed: int) -> None:
    instance = satisfying(schema, random.Random(seed))
    assert not jsonschema_rs.is_valid(schema, violating(schema, instance))


def test_the_answer_becomes_the_first_free_string() -> None:
    schema = {"type": "object", "properties": {"code": {"enum": ["x"]}, "answer": {"type": "string"}}}
    assert satisfying(schema, random.Random(0), "It is so. [1]") == {"code": "x", "answer": "It is so. [1]"}


def test_recursive_schemas_end() -> None:
    tree: dict[str, Any] = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    "parent": {"$ref": "#/$defs/node"},
                },
                "required": ["left", "children"],
            }
        },
    }
    assert satisfying(tree, random.Random(0)) == {"left": None, "children": []}


def test_all_of_and_siblings_of_a_reference_hold_together() -> None:
    schema: dict[str, Any] = {
        "allOf": [
            {
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 99}},
                "required": ["a"],
            },
            {"properties": {"a": {"maximum": 2}, "b": {"$ref": "#/$defs/b", "maxLength": 3}}, "required": ["b"]},
        ],
        "$defs": {"b": {"type": "string", "minLength": 3}},
    }
    instance = satisfying(schema, random.Random(0))
    jsonschema_rs.validate(schema, instance)
    assert instance["a"] == 2
    assert len(instance["b"]) == 3


def test_unique_items_differ() -> None:
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True}
    assert sorted(satisfying(schema, random.Random(0))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {}}, "'not'"),
        (False, "nothing satisfies"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "contains itself"),
        ({"$ref": "#/$defs/missing"}, "not a valid"),
        ({"$ref": "https://example.com/schema"}, "not a valid"),
        ({"type": "wrong"}, "not a valid"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "bounds"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True}, "distinct"),
        ({"oneOf": [{"type": "string"}, {"minLength": 0}]}, "bear on each other"),
    ],
)
def test_what_cannot_be_satisfied_is_refused(schema: dict[str, Any] | bool, named: str) -> None:
    with pytest.raises(UnsupportedSchema, match=named):
        satisfying(schema, random.Random(0))


def test_a_schema_that_accepts_everything_cannot_be_violated() -> None:
    with pytest.raises(UnsupportedSchema, match="accepts every value"):
        violating({}, "x")


@given(st.sampled_from(PATTERNS), st.integers(0, 12), st.integers())
def test_matching_text_matches_and_is_long_enough(pattern: str, least: int, seed: int) -> None:
    try:
        text = matching_text(pattern, random.Random(seed), min_length=least)
    except UnsupportedPattern:
        assert pattern.endswith("$")
        return
    assert re.search(pattern, text)
    assert len(text) >= least


@pytest.mark.parametrize("pattern", ["(?=a)b", "\\bword", "(a)\\1", "[", "(", "*a", "[z-a]", "a)"])
def test_patterns_outside_the_subset_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        matching_text(pattern, random.Random(0))
