"""JSON Schemas of agents: compiled once, never fetched from anywhere."""

import json
from functools import lru_cache
from typing import Any

import jsonschema_rs

from holdfast.errors import ConfigurationError

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
