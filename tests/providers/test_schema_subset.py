"""What Anthropic's structured outputs can be asked for."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.providers.schema_subset import expressible


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": ["object", "null"]},
        {"properties": {"a": {"type": "string"}}},
        closed(a={"type": "object"}),
        closed(a={"type": "array", "items": {"type": "object"}}),
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"not": {"type": "string"}},
        {"if": {}, "then": {}},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": False},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        closed(a=True),
        {"$defs": {"node": closed(next={"$ref": "#/$defs/node"})}, "$ref": "#/$defs/node"},
        {
            "definitions": {
                "a": closed(b={"$ref": "#/definitions/b"}),
                "b": closed(a={"$ref": "#/definitions/a"}),
            },
            "$ref": "#/definitions/a",
        },
        {"a_keyword_of_the_future": 1},
    ],
)
def test_what_the_subset_has_no_words_for_is_not_sent(schema: dict[str, Any]) -> None:
    assert expressible(schema) is None


def test_definitions_that_do_not_lead_back_to_themselves_are_kept() -> None:
    schema = closed(a={"$ref": "#/$defs/name"}) | {"$defs": {"name": {"type": "string", "maxLength": 5}}}
    assert expressible(schema) == closed(a={"$ref": "#/$defs/name"}) | {"$defs": {"name": {"type": "string"}}}


def test_a_choice_of_one_is_widened_to_a_choice() -> None:
    assert expressible({"oneOf": [{"type": "string", "pattern": "^a"}, {"const": 7}]}) == {
        "anyOf": [{"type": "string"}, {"const": 7}]
    }


LEAVES = st.sampled_from(
    [
        {"type": "string", "maxLength": 3},
        {"type": "integer", "minimum": 2},
        {"enum": ["a", 1]},
        {"type": "boolean"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda a, b: closed(a=a, b=b), inner, inner)
        | st.builds(lambda items: {"type": "array", "items": items, "uniqueItems": True}, inner)
        | st.builds(lambda one, other: {"oneOf": [one, other]}, inner, inner)
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.integers(0, 3) | st.sampled_from(["a", "abc"]) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=5,
)


@given(SCHEMAS, VALUES)
def test_whatever_satisfies_the_schema_satisfies_its_reduction(schema: dict[str, Any], value: Any) -> None:
    reduced = expressible(schema)
    assert reduced is not None
    if jsonschema_rs.Draft202012Validator(schema).is_valid(value):
        assert jsonschema_rs.Draft202012Validator(reduced).is_valid(value)
