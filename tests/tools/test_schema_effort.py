"""A schema whose check would double its work at every step is noticed before the check, and an ordinary one is not."""

from typing import Any

import pytest
from pydantic import BaseModel, JsonValue

from holdfast.errors import ToolProblem
from holdfast.tools.arguments import check_arguments
from holdfast.validation import can_be_counted, can_multiply, is_too_much

LEVELS = 60


def doubling() -> dict[str, Any]:
    """Checking any value of `a` takes 2 ** 60 steps."""
    parts: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(LEVELS)
    }
    return {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": {**parts, f"d{LEVELS}": {"type": "string"}},
    }


def doubling_with_depth() -> dict[str, Any]:
    """Checking a value of `n` that is nested 60 levels deep takes 2 ** 60 steps."""
    child = {"properties": {"c": {"$ref": "#/$defs/n"}}}
    return {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"allOf": [child, child]}},
    }


def left_over(keyword: str) -> dict[str, Any]:
    """Within 30 levels each of which asks what the ones below it left over."""
    schema: dict[str, Any] = {"properties": {"a": {"type": "string"}}}
    for _ in range(30):
        schema = {keyword: schema if keyword == "if" else [schema], "unevaluatedProperties": False}
    return {"type": "object", **schema}


class Tree(BaseModel):
    left: "Tree | None" = None
    right: "Tree | None" = None
    value: JsonValue = None


def nested(levels: int) -> JsonValue:
    value: JsonValue = {}
    for _ in range(levels):
        value = {"c": value}
    return value


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (doubling(), {"a": "x"}),
        (doubling_with_depth(), {"n": nested(LEVELS)}),
        *((left_over(keyword), {"a": "x"}) for keyword in ("allOf", "anyOf", "oneOf", "if")),
        ({"type": "object", "allOf": [{"$ref": "#"}]}, {}),
        ({"type": "object", "items": {"$ref": "#/items"}, "allOf": [{"$ref": "#/allOf/0"}]}, {}),
    ],
)
def test_arguments_whose_check_would_not_end_are_refused(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    assert can_be_counted(schema)
    with pytest.raises(ToolProblem, match="too long to be checked"):
        check_arguments(arguments, schema)


def test_recursive_parameters_are_checked_as_ever() -> None:
    definitions = Tree.model_json_schema()["$defs"]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}},
        "$defs": definitions,
    }
    assert can_multiply(schema)
    check_arguments({"tree": {"left": {"left": {"value": [1, 2]}}, "right": None}}, schema)
    with pytest.raises(ToolProblem, match="/tree/left"):
        check_arguments({"tree": {"left": {"left": 5}}}, schema)


def test_a_schema_may_ask_what_was_left_over() -> None:
    common: JsonValue = {"properties": {"a": {"type": "string"}}}
    schema: dict[str, Any] = {"type": "object", "allOf": [common, {"required": ["a"]}], "unevaluatedProperties": False}
    assert can_multiply(schema)
    check_arguments({"a": "x"}, schema)
    with pytest.raises(ToolProblem, match="a name that is not a parameter"):
        check_arguments({"a": "x", "b": 1}, schema)


def test_what_has_no_reference_is_not_counted() -> None:
    assert not can_multiply({"type": "object", "properties": {"$ref": {"type": "string"}}})
    check_arguments({"list": [1] * 200_000}, {"type": "object", "properties": {"list": {"items": {"type": "integer"}}}})


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("items", [1] * 10),
        ("contains", [1] * 10),
        ("additionalProperties", dict.fromkeys("abcdefghij", 1)),
        ("additionalItems", [1] * 10),
        ("unevaluatedItems", [1] * 10),
        ("unevaluatedProperties", dict.fromkeys("abcdefghij", 1)),
        ("propertyNames", dict.fromkeys("abcdefghij", 1)),
    ],
)
def test_every_child_is_counted(keyword: str, value: JsonValue) -> None:
    schema: JsonValue = {keyword: {"$ref": "#/$defs/one"}, "$defs": {"one": {"type": "integer"}}}
    assert is_too_much(schema, value, most=20)  # the whole, and for each child its part and what that refers to
    assert not is_too_much(schema, value, most=21)


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_every_branch_is_counted(keyword: str) -> None:
    assert is_too_much({keyword: [{}, {}, {}]}, 1, most=3)
    assert not is_too_much({keyword: [{}, {}, {}]}, 1, most=4)


@pytest.mark.parametrize(
    "part",
    [
        {"$ref": "#name"},
        {"$ref": "other.json"},
        {"$ref": "#/$defs/a%25b"},
        {"$dynamicRef": "#/$defs/a"},
        {"$recursiveRef": "#"},
        {"$id": "https://example.org/other", "$ref": "#/a"},
    ],
)
def test_a_reference_that_is_no_pointer_cannot_be_counted(part: dict[str, Any]) -> None:
    assert not can_be_counted({"type": "object", "properties": {"a": part}})


def test_an_argument_may_be_called_like_a_reference() -> None:
    assert can_be_counted({"type": "object", "properties": {"$ref": {"type": "string"}, "id": {"type": "string"}}})
