"""Every error of the HTTP edge as a problem document (RFC 9457).

A document names what is wrong (`detail`), where (`field`) and what to do (`remedy`). It never repeats a value that the
caller sent, and a fault of our own shows nothing but a reference into the log.
"""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast.errors import (
    ContentMissing,
    DecisionRefused,
    HoldfastError,
    IdempotencyConflict,
    InvalidInput,
    LimitExceeded,
    Unavailable,
    UnknownAgent,
    UnreadableDocument,
)

logger = logging.getLogger("holdfast.gateway")

URN = "urn:holdfast:problem:"


class Problem(Exception):
    """An answer other than success.

    Args:
        status: HTTP status.
        slug: Stable last part of the problem's `type`; clients may switch on it.
        title: The kind of problem, the same for every occurrence.
        detail: What happened this time.
        remedy: What the caller can do.
        field: Path of the offending field, dotted.
        headers: Additional response headers.
        extra: Additional members of the document.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        remedy: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.field = field
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def document(self, path: str, reference: str) -> dict[str, object]:
        """The problem as JSON members.

        Args:
            path: Path of the request, without the query.
            reference: The request's `X-Request-Id`, by which the log can be searched.
        """
        members: dict[str, object] = {
            "type": URN + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": path,
            "remedy": self.remedy,
            "reference": reference,
        }
        return members | ({"field": self.field} if self.field else {}) | self.extra


class _Kind(NamedTuple):
    status: int
    slug: str
    title: str
    remedy: str


_KINDS: dict[type[HoldfastError], _Kind] = {
    UnknownAgent: _Kind(
        422,
        "unknown-agent",
        "Unknown agent",
        "Name an agent that a file in `agents/` of the configuration defines. The files are read at start: after "
        "writing a new one, restart gateway and workers.",
    ),
    UnreadableDocument: _Kind(
        422, "unreadable-document", "Unreadable document", "Send the document as UTF-8 text, or leave it out."
    ),
    InvalidInput: _Kind(422, "invalid-input", "Invalid input", "Correct the named field and send the request again."),
    IdempotencyConflict: _Kind(
        409,
        "idempotency-key-reused",
        "Idempotency key reused",
        "Use a new Idempotency-Key for a new request, or send the first body again to get the first request.",
    ),
    LimitExceeded: _Kind(422, "limit-exceeded", "Limit exceeded", "Raise the limit, or ask for less."),
    ContentMissing: _Kind(
        410, "content-missing", "Text no longer stored", "Send the request again; its text was pruned from the store."
    ),
    Unavailable: _Kind(
        503, "unavailable", "Temporarily unavailable", "Try again shortly; `/readyz` and `holdfast doctor` say more."
    ),
}

_DECISIONS = {
    "not_open": (409, "List what is open: `holdfast approvals list`, or GET /v1/approvals."),
    "already_decided": (409, "Nothing needs to be done; read the request to see its outcome."),
    "already_voted": (409, "Nothing needs to be done; others have to approve too."),
    "no_escalation": (409, "Approve or reject, or let the deadline pass."),
    "too_late": (409, "Read the approval again: others may be asked now; if it is over, send a new request."),
    "other_content": (409, "Read the approval again and send the `content_sha256` and `round` it shows."),
    "not_named": (403, "Ask one of the approvers that the approval names to decide."),
    "own_request": (403, "Ask someone else to decide, or set `requester_may_decide` in the agent's `[approval]`."),
    "no_edit": (422, "Approve or reject; to change the budget itself, use `holdfast budget set`."),
    "no_payload": (422, "Send the new text in `payload`."),
    "invalid_decision": (422, "Leave the NUL character out and decide again; the question is still open."),
    "invalid_edit": (422, "Mend the text and decide again; the question is still open."),
}

_OPENAI = {
    "unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "unknown-agent": (404, "invalid_request_error", "model_not_found"),
    "insufficient-quota": (429, "insufficient_quota", "insufficient_quota"),
    "foreign-origin": (403, "permission_error", "foreign_origin"),
    "rejected": (403, "permission_error", "rejected"),
}
"""Status, type and code by which OpenAI's clients know some problems."""

_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")

_HTTP_REMEDIES = {
    404: "Check the address; the API is listed at /openapi.json.",
    405: "Use one of the methods in the Allow header.",
}


def problem_of(error: HoldfastError) -> Problem | None:
    """The problem that a domain error is to the caller; `None` when it is our own fault."""
    if isinstance(error, DecisionRefused):
        status, remedy = _DECISIONS.get(error.code, (409, "Read the approval again."))
        return Problem(
            status, "decision-refused", "Decision refused", str(error), remedy=remedy, extra={"code": error.code}
        )
    for kind in type(error).__mro__:
        if kind in _KINDS:
            row = _KINDS[kind]
            return Problem(
                row.status,
                row.slug,
                row.title,
                str(error),
                remedy=row.remedy,
                field=error.field if isinstance(error, InvalidInput) else None,
                headers={"Retry-After": "1"} if isinstance(error, Unavailable) else None,
            )
    return None


def internal_problem() -> Problem:
    """A fault of our own, without any detail of it."""
    return Problem(
        500,
        "internal",
        "Internal error",
        "The gateway failed on this request.",
        remedy="Try again; if it repeats, report the `reference`, which the gateway's log explains.",
    )


def speaks_openai(path: str) -> bool:
    """Whether an address belongs to the OpenAI-compatible API, errors included."""
    return path.startswith(("/v1/chat/", "/v1/models"))


def openai_error(problem: Problem) -> tuple[int, dict[str, object]]:
    """A problem as OpenAI's API would tell it: the status, and the body's `error`."""
    status, kind, code = _OPENAI.get(problem.slug, (problem.status, "", problem.slug.replace("-", "_")))
    if status == 422:
        status = 400
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, object] = {
        "message": f"{problem.detail} {problem.remedy}",
        "type": kind,
        "param": problem.field,
        "code": code,
    }
    return status, error | problem.extra


_PROGRAMS = ("/v1/", "/static/", "/openapi.json", "/metrics", "/healthz", "/readyz")
"""Addresses that nobody reads in a browser; their errors are documents, whoever asks."""


def prefers_page(request: Request) -> bool:
    """Whether an error is to be a page for a person instead of a document for a program.

    It is when `Accept` names `text/html` and names no JSON type with the same weight or a greater one (RFC 9110,
    section 12.5.1), as a browser does that opens an address or sends a form. `*/*` names nothing.
    """
    if request.url.path.startswith(_PROGRAMS):
        return False
    html = json = 0.0
    for entry in request.headers.get("accept", "").split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((_weight(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
        if media_type == "text/html":
            html = max(html, weight)
        elif media_type == "application/json" or media_type.endswith("+json"):
            json = max(json, weight)
    return html > json


def _weight(given: str) -> float:
    return float(given) if _WEIGHT.fullmatch(given) else 0.0


def respond(problem: Problem, request: Request) -> Response:
    """Render a problem: as a page where a person reads it and there are pages, else as a document."""
    if prefers_page(request) and (page := getattr(request.app.state, "error_page", None)) is not None:
        made: Response = page(request, problem)
        return made
    if speaks_openai(request.url.path):
        status, error = openai_error(problem)
        return JSONResponse({"error": error}, status_code=status, headers=problem.headers)
    return JSONResponse(
        problem.document(request.url.path, reference_of(request)),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=problem.headers,
    )


def reference_of(request: Request) -> str:
    """The id under which the log speaks of this HTTP request."""
    return str(request.scope.get("holdfast.reference", "-"))


async def on_problem(request: Request, error: Exception) -> Response:
    """Exception handler of `Problem`."""
    if not isinstance(error, Problem):
        raise error
    return respond(error, request)


async def on_holdfast_error(request: Request, error: Exception) -> Response:
    """Exception handler of the domain's error tree."""
    problem = problem_of(error) if isinstance(error, HoldfastError) else None
    if problem is None:
        logger.error("request %s: %s", reference_of(request), type(error).__name__, exc_info=error)
        problem = internal_problem()
    elif problem.status >= 500:
        logger.warning("request %s: %s", reference_of(request), error)
    return respond(problem, request)


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """Exception handler of FastAPI's checks of query, path and header parameters."""
    problems: list[dict[str, Any]] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    location = [str(part) for part in problems[0]["loc"]] if problems else []
    where = location[0] if len(location) > 1 else "request"
    field = ".".join(location[1:]) or None
    return respond(
        Problem(
            400,
            "invalid-parameter",
            "Invalid parameter",
            f"The {where} parameter `{field}` is not acceptable: {problems[0]['msg'] if problems else 'invalid'}.",
            remedy=f"Correct `{field}` and send the request again.",
            field=field,
        ),
        request,
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler of the framework's own answers: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    phrase = HTTPStatus(status).phrase
    return respond(
        Problem(
            status,
            phrase.lower().replace(" ", "-"),
            phrase,
            f"{request.method} {request.url.path[:200]}: {phrase.lower()}.",
            remedy=_HTTP_REMEDIES.get(status, "Correct the request and send it again."),
            headers=headers,
        ),
        request,
    )
