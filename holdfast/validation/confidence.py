"""What a JSON reply says of its own confidence. Pure."""

import json
from typing import Any


def confidence_in(text: str, pointer: str) -> float | None:
    """The number from 0 to 1 at a JSON Pointer (RFC 6901) of a valid reply.

    Args:
        text: The reply, valid JSON.
        pointer: E.g. `/confidence`.

    Returns:
        The number, brought into its range; 0.0 when there is none: a reply that does not say how sure it is, is not.
    """
    value: Any = json.loads(text)
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return min(1.0, max(0.0, float(value)))
