"""What a failed call means for retry, breaker and bill. Pure, and driven by the tables of `marks`.

Providers quote prompts, and sometimes keys, in the `message` of an error. So a `ProviderError` made here repeats
status, code, type and request id, each only if it looks like an identifier, and never that message.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.error_facts import ErrorFacts, read_facts
from holdfast.providers.marks import (
    BILLING_MARKS,
    CONTEXT_MARKS,
    FILTER_MARKS,
    OVERLOAD_MARKS,
    RATE_MARKS,
    STATUS_OUTCOMES,
    TYPE_OUTCOMES,
)
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
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SHOULD_RETRY = {"true": True, "false": False}


def classify(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes | Mapping[str, Any] | list[Any] | None,
    *,
    now: datetime,
    model: str,
    begun: bool = False,
    subject: str = "Model",
) -> ProviderError:
    """Classify an answer that is not a reply, or an error in the middle of one.

    Args:
        status: HTTP status; `None` or 200 when the error came inside a successful answer.
        headers: Of the answer, names in any case.
        body: Its body, parsed or not; HTML and anything else unreadable counts as none.
        now: Aware; what an HTTP date in `Retry-After` is compared with.
        model: The model that was asked for, for the message.
        begun: Whether tokens of the reply had come, shown or not: then it broke off, whatever the error says.
        subject: What `model` is, if it is something else.

    Returns:
        The error to raise.
    """
    names = {name.lower(): value for name, value in headers.items()}
    facts = read_facts(body)
    stated = status if status is not None and status >= 300 else facts.status
    outcome = Outcome.BROKEN_STREAM if begun else _outcome(stated, facts)
    wait = retry_after(names, now)
    request_id = next((names[name] for name in _REQUEST_ID_HEADERS if name in names), facts.request_id)
    details = [
        f"HTTP {stated}" if stated is not None else "an error",
        *([f"code {facts.code!r}"] if facts.code else []),
        *([f"type {facts.type!r}"] if facts.type else []),
        *([f"request {request_id!r}"] if _REQUEST_ID.fullmatch(request_id) else []),
    ]
    return ProviderError(
        f"{subject} {model!r} answered {', '.join(details)}: {_MEANINGS[outcome]}.",
        outcome=outcome,
        status=stated,
        retry_after=facts.retry_delay if wait is None else wait,
        should_retry=_SHOULD_RETRY.get(names.get("x-should-retry", "").strip().lower()),
    )


_TIMEOUTS = frozenset({"connect_timeout", "pool_timeout", "silence", "total"})
"""Failures that are ours to have given up waiting."""


def classify_transport(
    kind: FailureKind,
    *,
    sent: bool,
    after_first_byte: bool,
    model: str,
    status: int | None = None,
    subject: str = "Model",
) -> ProviderError:
    """Classify a call that got no complete answer.

    Args:
        kind: What failed.
        sent: Whether any of the request may have reached the provider.
        after_first_byte: Whether the reply had begun.
        model: The model that was asked for, for the message.
        status: HTTP status, if the answer's head came.
        subject: What `model` is, if it is something else.
    """
    if after_first_byte:
        outcome, consequence = Outcome.BROKEN_STREAM, f"; {_MEANINGS[Outcome.BROKEN_STREAM]}"
    elif sent:
        outcome, consequence = Outcome.UNKNOWN, f"; {_MEANINGS[Outcome.UNKNOWN]}"
    else:
        outcome, consequence = Outcome.NOT_SENT, "; nothing was sent"
    return ProviderError(
        f"The call of {subject.lower()} {model!r} failed: {_TRANSPORT_MEANINGS[kind]}{consequence}.",
        outcome=outcome,
        status=status,
        timed_out=kind in _TIMEOUTS,
    )


def _outcome(status: int | None, facts: ErrorFacts) -> Outcome:
    if facts.in_flight:
        return Outcome.RATE_LIMITED
    if facts.marks & BILLING_MARKS or facts.daily_quota:
        return Outcome.BILLING
    if facts.marks & CONTEXT_MARKS or (facts.names_context and status in (400, 413, 422)):
        return Outcome.CONTEXT_LENGTH
    if facts.marks & FILTER_MARKS or (facts.flagged and status in (None, 400, 403)):
        return Outcome.CONTENT_FILTER
    # Under 4xx a rate mark can mean "this one request exceeds the limit" (413 with some servers): waiting is no cure.
    if facts.marks & RATE_MARKS and status in (None, 429, 503):
        return Outcome.RATE_LIMITED
    if facts.marks & OVERLOAD_MARKS and (status is None or status >= 500):
        return Outcome.OVERLOADED
    if status is None:
        named = (TYPE_OUTCOMES[mark] for mark in sorted(facts.marks) if mark in TYPE_OUTCOMES)
        return next(named, Outcome.UNKNOWN)
    return STATUS_OUTCOMES.get(status, Outcome.INVALID_REQUEST if 300 <= status < 500 else Outcome.UNKNOWN)
