"""Error responses in OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`, and the scripted ones."""

import json
import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple

from simulator.behaviour import Behaviour, Kind, RetryAfterFormat
from simulator.rate_limits import Refusal, go_duration


class ApiError(Exception):
    """A request that ends with an error response.

    Args:
        status: HTTP status.
        message: For a person.
        type: OpenAI's error type.
        code: OpenAI's error code.
        param: The request parameter at fault.
        headers: Further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The response body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


class _Shape(NamedTuple):
    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None


_SHAPES: Mapping[Kind, _Shape] = {
    Kind.RATE_LIMITED: _Shape(429, "Rate limit reached (simulated).", "requests", "rate_limit_exceeded"),
    Kind.INSUFFICIENT_QUOTA: _Shape(
        429, "You exceeded your current quota (simulated).", "insufficient_quota", "insufficient_quota"
    ),
    Kind.UNAUTHORIZED: _Shape(401, "Incorrect API key (simulated).", "invalid_request_error", "invalid_api_key"),
    Kind.CONTEXT_LENGTH: _Shape(
        400,
        "The messages exceed the model's maximum context length (simulated).",
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
    Kind.OVERLOADED_503: _Shape(
        503, "The server is overloaded (simulated).", "service_unavailable_error", "server_is_overloaded"
    ),
    Kind.ERROR_500: _Shape(500, "The server had an error (simulated).", "server_error"),
    Kind.ERROR_502: _Shape(502, "Bad gateway (simulated).", "server_error", "bad_gateway"),
}
ERROR_KINDS = frozenset(_SHAPES)
"""The kinds that end with an error response."""


def simulated_error(behaviour: Behaviour) -> ApiError:
    """The error response that a behaviour asks for; its kind is one of `ERROR_KINDS`."""
    shape = _SHAPES[behaviour.kind]
    headers: dict[str, str] = {}
    if behaviour.kind in (Kind.RATE_LIMITED, Kind.OVERLOADED_503):
        wait = behaviour.retry_after
        if wait is None and behaviour.kind is Kind.RATE_LIMITED:
            wait = 1.0
        if wait is not None:
            headers = _retry_after(wait, behaviour.retry_after_format)
        if wait is not None and behaviour.kind is Kind.RATE_LIMITED:
            headers |= {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": go_duration(wait)}
    return ApiError(
        shape.status,
        shape.message,
        type=shape.type,
        code=behaviour.error_code or shape.code,
        param=shape.param,
        headers=headers,
    )


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


def limit_error(model: str, refusal: Refusal) -> ApiError:
    """429 of a limit that is really exhausted; its wait is in both headers, as OpenAI sends it."""
    unit = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[refusal.dimension]
    message = f"Rate limit reached for {model} on {unit}: Limit {refusal.limit}."
    headers: dict[str, str] = {}
    if refusal.retry_after is not None:
        milliseconds = math.ceil(refusal.retry_after * 1000)
        headers = {"retry-after": str(math.ceil(refusal.retry_after)), "retry-after-ms": str(milliseconds)}
        message += f" Please try again in {go_duration(refusal.retry_after)}."
    else:
        message += " The request alone is larger than the limit."
    return ApiError(429, message, type=refusal.dimension, code="rate_limit_exceeded", headers=headers)
