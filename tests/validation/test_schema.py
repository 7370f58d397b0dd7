"""Schemas are checked at start, by their own draft, and fetch nothing."""

import json
import os
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from holdfast.errors import ConfigurationError
from holdfast.validation import check_schema, compile_schema, json_pointer

_CASES: list[tuple[dict[str, Any], Any, bool]] = [
    ({"type": "integer"}, 1.0, True),
    ({"type": "integer"}, True, False),
    ({"pattern": "^\\d+$"}, "१२३", False),  # ECMA-262: \d is ASCII
    ({"pattern": "^\\p{Letter}+$"}, "क", True),
    ({"prefixItems": [{"type": "string"}], "items": False}, ["a", 1], False),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}, "maximum": 0}, 1, False),
    ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]}, {"a": 1}, True),
    ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]}, {"b": 1}, False),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, False),
    ({"contains": {"const": 1}, "maxContains": 1}, [1, 1], False),
    ({"if": {"minimum": 5}, "then": {"multipleOf": 5}}, 7, False),
    ({"multipleOf": 0.01}, 4.35, True),
    ({"uniqueItems": True}, [1, True], True),
    ({"format": "date"}, "yesterday", True),  # an annotation in draft 2020-12
    (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/a",
            "definitions": {"a": {"const": 1}},
        },
        2,
        False,
    ),
    ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "strin"}, False),
]


@pytest.mark.parametrize(("schema", "value", "valid"), _CASES)
def test_a_value_is_judged_by_the_schemas_own_draft(schema: dict[str, Any], value: Any, valid: bool) -> None:
    check_schema(schema, where="schemas/a.json")
    assert compile_schema(schema).is_valid(value) is valid


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "`/type`"),
        ({"properties": {"a": {"minimum": "x"}}}, "`/properties/a/minimum`"),
        ({"pattern": "("}, "`/pattern`"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"$schema": "https://example.com/own"}, "https://example.com/own"),
    ],
)
def test_a_wrong_schema_is_named_with_its_place(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_schema(schema, where="schemas/a.json")
    assert str(caught.value).startswith("schemas/a.json: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "target", ["https://example.com/b.json", "http://localhost:1/b", "file:///etc/hosts", "b.json"]
)
def test_a_reference_to_another_document_is_refused_without_fetching(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("The schema check tried to reach the network.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    schema = {"properties": {"a": {"$ref": target}}}
    with pytest.raises(ConfigurationError, match="never fetched"):
        check_schema(schema, where="schemas/a.json")


def test_equal_schemas_are_compiled_once() -> None:
    assert compile_schema({"type": "object", "minProperties": 1}) is compile_schema(
        {"minProperties": 1, "type": "object"}
    )


@pytest.mark.parametrize(("path", "pointer"), [([], ""), (["a", 0], "/a/0"), (["a/b", "~"], "/a~1b/~0"), ([""], "/")])
def test_paths_are_written_as_json_pointers(path: list[str | int], pointer: str) -> None:
    assert json_pointer(path) == pointer


def _suite() -> list[Path]:
    data = os.environ.get("HOLDFAST_DATA")
    return sorted((Path(data) / "jsonschema/tests/draft2020-12").glob("*.json")) if data else []


@pytest.mark.skipif(not _suite(), reason="HOLDFAST_DATA does not name a directory with jsonschema/tests/draft2020-12")
def test_the_published_suite_for_draft_2020_12_passes() -> None:
    judged, wrong = 0, []
    for file in _suite():
        for group in json.loads(file.read_text(encoding="utf-8")):
            if "http://localhost:1234/" in json.dumps(group["schema"]) and _needs_remote(group["schema"]):
                continue
            validator = compile_schema(group["schema"])
            for case in group["tests"]:
                judged += 1
                if validator.is_valid(case["data"]) is not case["valid"]:
                    wrong.append(f"{file.name}: {group['description']}: {case['description']}")
    assert wrong == []
    assert judged > 1_200


def _needs_remote(schema: dict[str, Any]) -> bool:
    """Whether the suite's own server would have to be asked."""
    try:
        check_schema(schema, where="suite")
    except ConfigurationError:
        return True
    return False
