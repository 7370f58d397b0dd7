"""What the body of an error says, without its prose: the shapes of every provider read into one. Pure.

OpenAI, Azure: `{"error": {"code", "type", "innererror"}}`. Anthropic: `{"error": {"type", "details": {"error_code"}},
"request_id"}`. Gemini: `{"error": {"code", "status", "details": [...]}}`, at times in an array. OpenRouter:
`{"error": {"code", "metadata": {"raw", "reasons", "limit_source"}}}`. vLLM: the error's fields at the top.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from holdfast.providers.marks import CONTEXT_PHRASES, FILTER_PHRASES
from holdfast.providers.pieces import mapping

_MARK = re.compile(r"[A-Za-z][A-Za-z_.]{0,63}")
"""A code or type. Without digits and hyphens, so that no API key passes for one."""
_DURATION_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_RETRY_IN = re.compile(r"retry in (?:([0-9]{1,4})h)?(?:([0-9]{1,4})m)?(?:([0-9]{1,6})(?:\.[0-9]{1,9})?s)?\b")
_NO_QUOTA = re.compile(r"limit: 0\b")
_A_DAYS_QUOTA = timedelta(hours=1)
"""Gemini's quotas are per minute or per day; a longer wait than this is one for the day."""


@dataclass(frozen=True)
class ErrorFacts:
    """What bears on the outcome."""

    status: int | None = None
    """An HTTP status that the body names."""
    code: str = ""
    """For the message, like `type` and `request_id`."""
    type: str = ""
    request_id: str = ""
    marks: frozenset[str] = field(default_factory=frozenset)
    """Every code and type, in lower case."""
    daily_quota: bool = False
    """Whether a quota is used up that does not come back within minutes, or does not exist."""
    names_context: bool = False
    """Whether the message says, in the words of some provider, that the prompt is too long."""
    flagged: bool = False
    """Whether moderation refused it, said by OpenRouter's metadata or in Anthropic's words."""
    in_flight: bool = False
    """Whether credit is held by calls under way, and free again when they end."""
    retry_delay: timedelta | None = None


def read_facts(body: bytes | Mapping[str, Any] | list[Any] | None) -> ErrorFacts:
    """Read a body, parsed or not; HTML and anything else unreadable says nothing."""
    parsed: Any = body
    if isinstance(body, bytes):
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return ErrorFacts()
    if isinstance(parsed, list):
        parsed = parsed[0] if parsed else None
    if not isinstance(parsed, Mapping):
        return ErrorFacts()
    nested = parsed.get("error")
    error = nested if isinstance(nested, Mapping) else parsed
    details, metadata = error.get("details"), mapping(error.get("metadata"))
    code, kind, said = error.get("code"), error.get("type"), error.get("status")
    specific = mapping(details).get("error_code")
    named = [code, kind, said, nested, mapping(error.get("innererror")).get("code"), specific, *_upstream(metadata)]
    message = str(error.get("message", "")).lower()
    wait, daily = _wait(details, message), _daily(details)
    if _NO_QUOTA.search(message) or (wait is not None and wait >= _A_DAYS_QUOTA and "quota" in message):
        daily = True
    if daily and wait is not None and wait < _A_DAYS_QUOTA:
        wait = None  # Gemini names a wait of seconds for a quota of the day, too
    return ErrorFacts(
        status=_status(code) or _status(said),
        code=_identifier(code) or _identifier(specific),
        type=_identifier(kind) or _identifier(said),
        request_id=str(parsed.get("request_id", "")),
        marks=frozenset(mark.lower() for value in named if (mark := _identifier(value))),
        daily_quota=daily,
        names_context=any(phrase in message for phrase in CONTEXT_PHRASES),
        flagged=("reasons" in metadata and "flagged_input" in metadata)
        or any(phrase in message for phrase in FILTER_PHRASES),
        in_flight=metadata.get("limit_source") == "openrouter_in_flight_budget",
        retry_delay=wait,
    )


def _identifier(value: Any) -> str:
    return value if isinstance(value, str) and _MARK.fullmatch(value) else ""


def _status(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[345][0-9]{2}", value):
        value = int(value)
    return value if isinstance(value, int) and 300 <= value < 600 else None


def _upstream(metadata: Mapping[str, Any]) -> Iterator[Any]:
    """Code and type of the error that OpenRouter got from the provider behind it."""
    raw = metadata.get("raw")
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return
    error = mapping(mapping(raw).get("error"))
    yield from (error.get("code"), error.get("type"), error.get("status"))


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def _daily(details: Any) -> bool:
    """Whether Gemini's `QuotaFailure` names a quota of the day, or one of zero."""
    return any(
        "PerDay" in str(violation.get("quotaId", "")) or str(violation.get("quotaValue", "")) == "0"
        for detail in _mappings(details)
        for violation in _mappings(detail.get("violations"))
    )


def _wait(details: Any, message: str) -> timedelta | None:
    """Gemini's `RetryInfo`, e.g. `"46s"`, or the words "Please retry in 10h17m" of its message."""
    for detail in _mappings(details):
        if match := _DURATION_SECONDS.fullmatch(str(detail.get("retryDelay", ""))):
            return timedelta(seconds=float(match[1]))
    if (match := _RETRY_IN.search(message)) and any(match.groups()):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return None
