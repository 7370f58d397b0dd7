"""JSON Schemas of agents: compiled once, never fetched from anywhere."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
from pydantic import JsonValue

from holdfast.errors import ConfigurationError

_ABOUT_NAMES = ("additionalProperties", "unevaluatedProperties", "propertyNames")
"""Rules whose violations the library tells with the names that broke them."""
_MASK = "the value"
"""What validation messages say instead of the value, which may be long or private."""


def check_schema(schema: dict[str, Any], *, where: str) -> None:
    """Check an agent's output schema when the agent is loaded.

    Args:
        schema: A JSON Schema; draft 2020-12 unless its `$schema` names another.
        where: The file, for the message.

    Raises:
        ConfigurationError: The schema is not valid under its own draft, names an unknown draft, or refers to a
            document outside itself.
    """
    try:
        jsonschema_rs.validator_for(schema, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        reason = getattr(error, "message", None) or str(error)
        if "Retrieval is disabled" in reason or "No base URI is available" in reason:
            raise ConfigurationError(
                f"{where}: the JSON Schema refers to another document, which is never fetched ({reason}). Copy the "
                "definition under `$defs` and refer to it as `#/$defs/<name>`."
            ) from error
        pointer = json_pointer(getattr(error, "instance_path", []))
        place = f" at `{pointer}`" if pointer else ""
        raise ConfigurationError(f"{where}: the JSON Schema is not valid{place}: {reason}. Correct it.") from error


def compile_schema(schema: dict[str, Any] | bool) -> jsonschema_rs.Validator:
    """Compile a schema that `check_schema` accepts, or take it from the cache of the 256 last used.

    Args:
        schema: A JSON Schema.

    Returns:
        Its validator, which holds no state, so threads may share it. `format` is an annotation, as in draft 2020-12; a
        `pattern` that needs more steps than the engine allows counts as not matched.

    Raises:
        ValueError: The schema is not usable.
    """
    return _compile(json.dumps(schema, sort_keys=True, ensure_ascii=False))


@lru_cache(maxsize=256)
def _compile(canonical: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(canonical), offline=True, mask=_MASK)


def json_pointer(path: list[str | int]) -> str:
    """Write a path as a JSON Pointer (RFC 6901).

    Args:
        path: Keys and indices from the root.
    """
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def known_pointer(path: Iterable[str | int], schema: JsonValue) -> str:
    """Where in a value a problem is, with `*` for every name that the schema does not have.

    Such a name is as much the author's own words as a value is, and has no place in a message or a history.

    Args:
        path: Keys and indices from the root.
        schema: Of the value.
    """
    known = _names(schema)
    return json_pointer([part if isinstance(part, int) or part in known else "*" for part in path])


def flaw(error: jsonschema_rs.ValidationError, schema: Mapping[str, JsonValue], *, noun: str) -> str:
    """What is wrong, without any word of the value's.

    Args:
        error: A violation.
        schema: Of the whole value.
        noun: What the schema's names are called: `property`, `parameter`.
    """
    if not error.schema_path or error.schema_path[-1] not in _ABOUT_NAMES:
        return error.message
    known = schema.get("properties")
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    names = f"; the {plural} are {', '.join(known) or 'none'}" if isinstance(known, dict) else ""
    return f"a name that is not a {noun}{names if not error.instance_path else ''}"


def _names(schema: JsonValue) -> set[str]:
    """Every name of a property, anywhere in a schema."""
    names: set[str] = set()
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            properties = part.get("properties")
            names.update(properties if isinstance(properties, dict) else ())
            left += part.values()
        elif isinstance(part, list):
            left += part
    return names
