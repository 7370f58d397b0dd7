"""What a tool returned becomes one text for a model, of bounded length, whatever kinds of content it is made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

MAX_RESULT = 500_000
"""Most characters of one result. What a model is shown of it is bounded further, in tokens."""


@dataclass(frozen=True)
class McpResult:
    """What came of one call."""

    text: str
    """The server's words, also where it says that the call failed: data from outside, never an explanation of ours."""
    ok: bool
    """Whether the server calls it a success."""


def read_result(content: Sequence[Mapping[str, JsonValue]], structured: JsonValue, *, failed: bool) -> McpResult:
    """One text from a result.

    Args:
        content: Its blocks as the protocol writes them, each with its `type`.
        structured: Its `structuredContent`; used where no block holds text.
        failed: Its `isError`.
    """
    parts = [_block(block) for block in content]
    if structured is not None and not any(_is_text(block) for block in content):
        parts.append(json.dumps(structured, ensure_ascii=False))
    text = "\n".join(part for part in parts if part)
    return McpResult(cut(text) or "(The tool returned nothing.)", ok=not failed)


def cut(text: str) -> str:
    """A text of at most `MAX_RESULT` characters; a longer one says how much of it is missing."""
    if len(text) <= MAX_RESULT:
        return text
    return f"{text[:MAX_RESULT]}\n[{len(text) - MAX_RESULT} more characters were cut off]"


def _is_text(block: Mapping[str, JsonValue]) -> bool:
    return block.get("type") == "text" and bool(block.get("text"))


def _block(block: Mapping[str, JsonValue]) -> str:
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    if kind == "resource_link":
        return f"[link to a resource: {str(block.get('name', ''))[:200]} {str(block.get('uri', ''))[:1_000]}]"
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, dict):
        if isinstance(text := resource.get("text"), str):
            return text
        return _not_shown("resource", resource.get("mimeType"), resource.get("blob"))
    return _not_shown(str(kind)[:40], block.get("mimeType"), block.get("data"))


def _not_shown(kind: str, mime_type: JsonValue, data: JsonValue) -> str:
    size = len(data) * 3 // 4 if isinstance(data, str) else 0
    return f"[{kind} of type {str(mime_type or 'unknown')[:100]}, about {size} bytes, which cannot be shown as text]"
