"""What a failed call means for retry, breaker and bill. Pure, and driven by the tables below.

Providers quote prompts, and sometimes keys, in the `message` of an error. So a `ProviderError` made here repeats
status, code, type and request id, each only if it looks like an identifier, and never that message.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.retry_after import retry_after

FailureKind = Literal[
    "connect",
    "connect_timeout",
    "pool_timeout",
    "proxy",
    "invalid_url",
    "write",
    "read",
    "silence",
    "total",
    "protocol",
    "too_large",
]
"""How a transport can fail."""

BILLING_MARKS = frozenset(
    {
        # OpenAI
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        # Anthropic
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
        # Gemini: requests per day
        "quota_exceeded",
    }
)
"""Codes and types after which no wait helps, under whichever status they come. This is the only such list."""

_CONTEXT_MARKS = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "model_context_window_exceeded",
        "exceed_context_size_error",
        "string_above_max_length",
    }
)
_CONTEXT_PHRASES = ("maximum context length", "exceeds the maximum number of tokens", "prompt is too long")
"""vLLM, Gemini and Anthropic have no code for it, only these words in the message."""

_FILTER_MARKS = frozenset(
    {
        "content_filter",
        "content_policy",
        "content_policy_violation",
        "content_filter_error",
        "responsibleaipolicyviolation",
        "moderation_blocked",
    }
)
_OVERLOAD_MARKS = frozenset(
    {"server_is_overloaded", "service_unavailable_error", "overloaded_error", "overloaded", "unavailable"}
)
_RATE_MARKS = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "slow_down",
        "ramp_limit_exceeded",
        "too_many_requests",
        "resource_exhausted",
    }
)
_TYPE_OUTCOMES = {
    "invalid_request_error": Outcome.INVALID_REQUEST,
    "not_found_error": Outcome.INVALID_REQUEST,
    "request_too_large": Outcome.INVALID_REQUEST,
    "authentication_error": Outcome.AUTHENTICATION,
    "permission_error": Outcome.AUTHENTICATION,
    "invalid_api_key": Outcome.AUTHENTICATION,
    "conflict_error": Outcome.OVERLOADED,
}
"""Used only for an error inside a 200 answer, where no status speaks."""

_STATUS_OUTCOMES = {
    401: Outcome.AUTHENTICATION,
    402: Outcome.BILLING,
    403: Outcome.AUTHENTICATION,
    408: Outcome.UNKNOWN,
    409: Outcome.OVERLOADED,
    429: Outcome.RATE_LIMITED,
    503: Outcome.OVERLOADED,
    529: Outcome.OVERLOADED,
}
"""Statuses with a meaning of their own; any other 3xx or 4xx is INVALID_REQUEST, anything else UNKNOWN."""

_NOT_AGAIN = {Outcome.RATE_LIMITED: Outcome.BILLING, Outcome.OVERLOADED: Outcome.INVALID_REQUEST}
"""What an unbilled failure becomes when the provider says `x-should-retry: false`. UNKNOWN stays UNKNOWN: it may have
been billed, and only that outcome keeps the hold."""

_MEANINGS = {
    Outcome.RATE_LIMITED: "the rate limit is reached; wait, or use another deployment",
    Outcome.BILLING: "quota or credit is exhausted; raise the limit at the provider, or use another deployment",
    Outcome.OVERLOADED: "the provider is overloaded; try again, or use another deployment",
    Outcome.UNKNOWN: "the call may have been billed although no reply came",
    Outcome.BROKEN_STREAM: "the reply broke off; what came of it is billed",
    Outcome.CONTEXT_LENGTH: "prompt and reply do not fit; use a deployment with a larger context window",
    Outcome.CONTENT_FILTER: "the provider's content policy refused it",
    Outcome.INVALID_REQUEST: "a repetition would fail the same way; check the deployment's `model` and `base_url`",
    Outcome.AUTHENTICATION: "the API key was not accepted; check the variable named by the deployment's `api_key_env`",
}
_TRANSPORT_MEANINGS: dict[FailureKind, str] = {
    "connect": "no connection could be made; check `base_url` and that the server runs",
    "connect_timeout": "no connection within `timeouts.connect`",
    "pool_timeout": "no free connection within `timeouts.connect`; lower `concurrency` or raise the pool's size",
    "proxy": "the proxy refused the connection; check `HTTPS_PROXY` and `NO_PROXY`",
    "invalid_url": "`base_url` is not a usable HTTP address",
    "write": "the connection broke while the request was being sent",
    "read": "the connection broke",
    "silence": "the server was silent for longer than `timeouts.first_token` or `timeouts.between_tokens`",
    "total": "the call took longer than `timeouts.total`",
    "protocol": "the server broke the HTTP protocol or closed the connection",
    "too_large": "the answer is larger than any reply may be",
}
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-goog-request-id")
_MARK = re.compile(r"[A-Za-z][A-Za-z_.]{0,63}")
"""A code or type. Without digits and hyphens, so that no API key passes for one."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_DURATION_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


def classify(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes | Mapping[str, Any] | list[Any] | None,
    *,
    now: datetime,
    model: str,
) -> ProviderError:
    """Classify an answer that is not a reply.

    Args:
        status: HTTP status; `None` or 200 when the error came inside a successful answer.
        headers: Of the answer, names in any case.
        body: Its body, parsed or not; HTML and anything else unreadable counts as none.
        now: Aware; what an HTTP date in `Retry-After` is compared with.
        model: The model that was asked for, for the message.

    Returns:
        The error to raise.
    """
    names = {name.lower(): value for name, value in headers.items()}
    facts = _Facts.of(body)
    stated = status if status is not None and status >= 300 else facts.status
    outcome = _outcome(stated, facts)
    if names.get("x-should-retry", "").strip().lower() == "false":
        outcome = _NOT_AGAIN.get(outcome, outcome)
    wait = retry_after(names, now)
    request_id = next((names[name] for name in _REQUEST_ID_HEADERS if name in names), facts.request_id)
    details = [
        f"HTTP {stated}" if stated is not None else "an error",
        *([f"code {facts.code!r}"] if facts.code else []),
        *([f"type {facts.type!r}"] if facts.type else []),
        *([f"request {request_id!r}"] if _REQUEST_ID.fullmatch(request_id) else []),
    ]
    return ProviderError(
        f"Model {model!r} answered {', '.join(details)}: {_MEANINGS[outcome]}.",
        outcome=outcome,
        status=stated,
        retry_after=facts.retry_delay if wait is None else wait,
    )


def classify_transport(
    kind: FailureKind, *, sent: bool, after_first_byte: bool, model: str, status: int | None = None
) -> ProviderError:
    """Classify a call that got no complete answer.

    Args:
        kind: What failed.
        sent: Whether any of the request may have reached the provider.
        after_first_byte: Whether the reply had begun.
        model: The model that was asked for, for the message.
        status: HTTP status, if the answer's head came.
    """
    if after_first_byte:
        outcome, consequence = Outcome.BROKEN_STREAM, f"; {_MEANINGS[Outcome.BROKEN_STREAM]}"
    elif sent:
        outcome, consequence = Outcome.UNKNOWN, f"; {_MEANINGS[Outcome.UNKNOWN]}"
    else:
        outcome, consequence = Outcome.NOT_SENT, "; nothing was sent"
    return ProviderError(
        f"The call of model {model!r} failed: {_TRANSPORT_MEANINGS[kind]}{consequence}.",
        outcome=outcome,
        status=status,
    )


def _outcome(status: int | None, facts: "_Facts") -> Outcome:
    if facts.marks & BILLING_MARKS or facts.daily_quota:
        return Outcome.BILLING
    if facts.marks & _CONTEXT_MARKS or (facts.names_context and status in (400, 413, 422)):
        return Outcome.CONTEXT_LENGTH
    if facts.marks & _FILTER_MARKS:
        return Outcome.CONTENT_FILTER
    # Under 4xx a rate mark can mean "this one request exceeds the limit" (413 with some servers): waiting is no cure.
    if facts.marks & _RATE_MARKS and status in (None, 429, 503):
        return Outcome.RATE_LIMITED
    if facts.marks & _OVERLOAD_MARKS and (status is None or status >= 500):
        return Outcome.OVERLOADED
    if status is None:
        named = (_TYPE_OUTCOMES[mark] for mark in sorted(facts.marks) if mark in _TYPE_OUTCOMES)
        return next(named, Outcome.UNKNOWN)
    return _STATUS_OUTCOMES.get(status, Outcome.INVALID_REQUEST if 300 <= status < 500 else Outcome.UNKNOWN)


@dataclass(frozen=True)
class _Facts:
    """What an error's body says, without its prose."""

    status: int | None = None
    code: str = ""
    type: str = ""
    request_id: str = ""
    marks: frozenset[str] = field(default_factory=frozenset)
    daily_quota: bool = False
    names_context: bool = False
    retry_delay: timedelta | None = None

    @classmethod
    def of(cls, body: bytes | Mapping[str, Any] | list[Any] | None) -> "_Facts":
        parsed: Any = body
        if isinstance(body, bytes):
            try:
                parsed = json.loads(body)
            except (ValueError, RecursionError):
                return cls()
        if isinstance(parsed, list):  # Gemini wraps the object in an array at times
            parsed = parsed[0] if parsed else None
        if not isinstance(parsed, Mapping):
            return cls()
        nested = parsed.get("error")
        error: Mapping[str, Any] = nested if isinstance(nested, Mapping) else parsed
        inner = error.get("innererror")  # Azure OpenAI
        details = error.get("details")
        named = [
            error.get("code"),
            error.get("type"),
            error.get("status"),
            nested,
            inner.get("code") if isinstance(inner, Mapping) else None,
            details.get("error_code") if isinstance(details, Mapping) else None,
        ]
        message = error.get("message")
        return cls(
            status=_status(error.get("code")) or _status(error.get("status")),
            code=_identifier(error.get("code")) or _identifier(named[-1]),
            type=_identifier(error.get("type")) or _identifier(error.get("status")),
            request_id=str(parsed.get("request_id", "")),
            marks=frozenset(mark.lower() for value in named if (mark := _identifier(value))),
            daily_quota=any(_is_daily(violation) for violation in _violations(details)),
            names_context=isinstance(message, str) and any(phrase in message.lower() for phrase in _CONTEXT_PHRASES),
            retry_delay=_retry_delay(details),
        )


def _identifier(value: Any) -> str:
    return value if isinstance(value, str) and _MARK.fullmatch(value) else ""


def _status(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[345][0-9]{2}", value):
        value = int(value)
    return value if isinstance(value, int) and 300 <= value < 600 else None


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def _violations(details: Any) -> Iterator[Mapping[str, Any]]:
    """Gemini's `QuotaFailure` entries."""
    for detail in _mappings(details):
        yield from _mappings(detail.get("violations"))


def _is_daily(violation: Mapping[str, Any]) -> bool:
    return "PerDay" in str(violation.get("quotaId", "")) or str(violation.get("quotaValue", "")) == "0"


def _retry_delay(details: Any) -> timedelta | None:
    """Gemini's `RetryInfo`, e.g. `"46s"`."""
    for detail in _mappings(details):
        if match := _DURATION_SECONDS.fullmatch(str(detail.get("retryDelay", ""))):
            return timedelta(seconds=float(match[1]))
    return None
