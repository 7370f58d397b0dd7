"""Request bodies for the API's description; the gateway reads bodies itself, so the framework does not know them."""

from typing import Any

from pydantic import BaseModel


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of an operation, with every schema written out in place."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inline(schema, definitions)}},
        }
    }


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(child, definitions) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("$ref"), str):
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return _inline(definitions[name.removeprefix("#/$defs/")] | siblings, definitions)
    return {key: _inline(value, definitions) for key, value in node.items()}
