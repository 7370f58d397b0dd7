"""Requests that end with an error, in terms that every wire format can write, and the scripted ones."""

import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple

from simulator.behaviour import Behaviour, BehaviourError, ErrorFormat, Kind, RetryAfterFormat
from simulator.rate_limits import Refusal, go_duration


class ApiError(Exception):
    """A request that ends with an error response.

    Args:
        status: HTTP status.
        message: For a person.
        type: OpenAI's error type; Anthropic's follows from the status.
        code: OpenAI's error code.
        details_code: Anthropic's `details.error_code`.
        param: The request parameter at fault.
        headers: Further response headers.
        retry_after: Seconds a client is asked to wait, for formats that say it in the body.
        format: How the body is written when not in the shape of the endpoint.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str,
        code: str | None = None,
        details_code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        format: ErrorFormat | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.details_code = details_code
        self.param = param
        self.headers = dict(headers or {})
        self.retry_after = retry_after
        self.format = format


class _Shape(NamedTuple):
    status: int
    message: str
    type: str
    code: str | None = None
    details_code: str | None = None
    param: str | None = None


_SHAPES: Mapping[Kind, _Shape] = {
    Kind.RATE_LIMITED: _Shape(429, "Rate limit reached (simulated).", "requests", "rate_limit_exceeded"),
    Kind.SLOW_DOWN: _Shape(
        429, "Traffic grew too fast (simulated).", "rate_limit_error", "slow_down", "ramp_limit_exceeded"
    ),
    Kind.INSUFFICIENT_QUOTA: _Shape(
        429,
        "You exceeded your current quota (simulated).",
        "insufficient_quota",
        "insufficient_quota",
        "enforced_spend_limit_reached",
    ),
    Kind.BILLING_402: _Shape(
        402, "The account has no credit left (simulated).", "insufficient_quota", "credit_balance_exhausted"
    ),
    Kind.BILLING_400: _Shape(
        400,
        "A spending limit has been reached (simulated).",
        "invalid_request_error",
        "billing_hard_limit_reached",
        "linked_organization_spend_limit_reached",
    ),
    Kind.UNAUTHORIZED: _Shape(401, "Incorrect API key (simulated).", "invalid_request_error", "invalid_api_key"),
    Kind.FORBIDDEN: _Shape(403, "The key may not use this model (simulated).", "invalid_request_error", "forbidden"),
    Kind.MODEL_NOT_FOUND: _Shape(
        404, "The model does not exist (simulated).", "invalid_request_error", "model_not_found", None, "model"
    ),
    Kind.REQUEST_TOO_LARGE: _Shape(
        413, "The request exceeds the maximum size (simulated).", "invalid_request_error", "request_too_large"
    ),
    Kind.CONFLICT_409: _Shape(409, "The request conflicts with another (simulated).", "conflict_error", "conflict"),
    Kind.CONTEXT_LENGTH: _Shape(
        400,
        "prompt is too long: the messages exceed the model's maximum context length (simulated).",
        "invalid_request_error",
        "context_length_exceeded",
        None,
        "messages",
    ),
    Kind.POLICY_400: _Shape(
        400, "The prompt was blocked by a content policy (simulated).", "invalid_request_error", "content_filter"
    ),
    Kind.OVERLOADED_503: _Shape(
        503, "The server is overloaded (simulated).", "service_unavailable_error", "server_is_overloaded"
    ),
    Kind.OVERLOADED_529: _Shape(529, "Overloaded (simulated).", "overloaded_error", "overloaded"),
    Kind.ERROR_500: _Shape(500, "The server had an error (simulated).", "server_error"),
    Kind.ERROR_502: _Shape(502, "Bad gateway (simulated).", "server_error", "bad_gateway"),
    Kind.ERROR_504: _Shape(504, "The request timed out (simulated).", "server_error", "timeout"),
}
ERROR_KINDS = frozenset(_SHAPES)
"""The kinds that end with an error response."""
_MID_STREAM = _Shape(529, "Overloaded (simulated).", "server_error", "server_error")
"""What breaks a stream: Anthropic documents `overloaded_error` there, OpenAI's clients meet `server_error`."""
_WAITS = (Kind.RATE_LIMITED, Kind.SLOW_DOWN)


def simulated_error(behaviour: Behaviour) -> ApiError:
    """The error that a behaviour asks for: its kind is one of `ERROR_KINDS`, or `error_mid_stream`."""
    shape = _SHAPES.get(behaviour.kind, _MID_STREAM)
    wait = behaviour.retry_after
    if wait is None and behaviour.kind in _WAITS:
        wait = 1.0
    headers: dict[str, str] = {}
    if wait is not None and behaviour.error_format is None:
        headers = _retry_after(wait, behaviour.retry_after_format)
    if behaviour.should_retry is not None:
        headers["x-should-retry"] = "true" if behaviour.should_retry else "false"
    return ApiError(
        shape.status,
        shape.message,
        type=shape.type,
        code=behaviour.error_code or shape.code,
        details_code=behaviour.error_code or shape.details_code,
        param=shape.param,
        headers=headers,
        retry_after=wait,
        format=behaviour.error_format,
    )


def exhausted_requests(behaviour: Behaviour) -> float | None:
    """Seconds until there is room for requests again, when the behaviour says that there is none."""
    if behaviour.kind is not Kind.RATE_LIMITED:
        return None
    return 1.0 if behaviour.retry_after is None else behaviour.retry_after


def behaviour_refused(error: BehaviourError) -> ApiError:
    """422 for a behaviour that cannot be carried out."""
    return ApiError(422, str(error), type="invalid_request_error", code="invalid_behaviour", param=error.field)


def _retry_after(seconds: float, format: RetryAfterFormat) -> dict[str, str]:
    match format:
        case RetryAfterFormat.SECONDS:
            return {"retry-after": f"{seconds:.10g}"}
        case RetryAfterFormat.MILLISECONDS:
            return {"retry-after-ms": f"{seconds * 1000:.10g}"}
        case RetryAfterFormat.HTTP_DATE:
            # Whole seconds, rounded up, so that the date is never before the wait is over.
            return {"retry-after": formatdate(math.ceil(time.time() + seconds), usegmt=True)}
        case RetryAfterFormat.NONE:
            return {}


def limit_error(model: str, refusal: Refusal, format: ErrorFormat | None = None) -> ApiError:
    """429 of a limit that is really exhausted; its wait is in both headers, as OpenAI sends it."""
    unit = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[refusal.dimension]
    message = f"Rate limit reached for {model} on {unit}: Limit {refusal.limit}."
    headers: dict[str, str] = {}
    if refusal.retry_after is not None:
        message += f" Please try again in {go_duration(refusal.retry_after)}."
        if format is None:
            milliseconds = math.ceil(refusal.retry_after * 1000)
            headers = {"retry-after": str(math.ceil(refusal.retry_after)), "retry-after-ms": str(milliseconds)}
    else:
        message += " The request alone is larger than the limit."
    return ApiError(
        429,
        message,
        type=refusal.dimension,
        code="rate_limit_exceeded",
        headers=headers,
        retry_after=refusal.retry_after,
        format=format,
    )
