"""Which inputs are refused before any model is called: the empty, the oversized, and what an agent's rules name.

Rules are regular expressions over untrusted text, so they run on an engine whose time grows linearly with the text:
the Rust `regex` engine, reached through jsonschema-rs' `pattern` keyword. Like RE2 it has no look-around and no
back-references; a rule that uses them is refused when the agent is loaded. `\\d`, `\\w` and `\\b` are ASCII; `\\p{L}`
is any letter.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import jsonschema_rs

from holdfast.errors import ConfigurationError
from holdfast.guards.normalise import matching_view

MAX_INPUT_BYTES = 256 * 1024
"""Largest input by default, in bytes of UTF-8."""

_Rule = jsonschema_rs.Draft202012Validator


def check_refusal_patterns(patterns: Sequence[str], *, where: str) -> None:
    """Check rules when an agent is loaded.

    Args:
        patterns: The agent's `guards.refuse`.
        where: File and key, for the message.

    Raises:
        ConfigurationError: A pattern cannot be compiled, or matches everything; names it.
    """
    for number, pattern in enumerate(patterns, start=1):
        try:
            rule = _compile(pattern)
        except jsonschema_rs.ValidationError as error:
            raise ConfigurationError(
                f"{where}: pattern {number}, {pattern!r}, is not a usable regular expression: {_why(pattern)}"
            ) from error
        if rule.is_valid(""):
            raise ConfigurationError(
                f"{where}: pattern {number}, {pattern!r}, matches the empty text, so it would refuse every input. "
                "Write at least one character that must occur."
            )


def refusal_of_size(text: str, max_bytes: int = MAX_INPUT_BYTES) -> str | None:
    """Why an input is refused for its size, if it is.

    Args:
        text: The input as it came.
        max_bytes: Most bytes of UTF-8.

    Returns:
        A sentence for the person who asked, or `None`.
    """
    if len(text) <= max_bytes // 4:
        return None
    size = len(text.encode("utf-8", "surrogatepass"))
    if size <= max_bytes:
        return None
    return (
        f"The input has {size:,} bytes; at most {max_bytes:,} are accepted. Shorten it, or ingest the long part as a "
        "document and ask about it."
    )


def refusal_of_content(text: str, patterns: Sequence[str]) -> str | None:
    """Why an input is refused for what it says, if it is.

    Args:
        text: The normalised input, before masking.
        patterns: The agent's rules, checked by `check_refusal_patterns`.

    Returns:
        A sentence for the person who asked, which names the rule by position and repeats no text; or `None`.
    """
    if not text.strip():
        return "The input is empty once invisible characters are removed. Write the question as text."
    views = {text, matching_view(text)}
    for number, pattern in enumerate(patterns, start=1):
        rule = _compile(pattern)
        if any(rule.is_valid(view) for view in views):
            return (
                f"The agent's rule {number} of {len(patterns)} (`guards.refuse`) does not allow this input. "
                "Ask without the part that the rule excludes, or ask whoever runs the agent to change the rule."
            )
    return None


@lru_cache(maxsize=1_024)
def _compile(pattern: str) -> _Rule:
    # The flag stands for the whole pattern, alternatives included. `RegexOptions` selects the linear-time engine.
    return jsonschema_rs.Draft202012Validator(
        {"type": "string", "pattern": f"(?i){pattern}"}, pattern_options=jsonschema_rs.RegexOptions(), offline=True
    )


def _why(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{error}."
    return (
        "look-around, back-references and very large repetitions are not supported, because their running time cannot "
        "be bounded. Use RE2 syntax."
    )
