"""Error bodies as OpenAI, Anthropic and Gemini write them."""

import json
from collections.abc import Mapping
from typing import Any

from simulator.behaviour import ErrorFormat
from simulator.errors import ApiError

_ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_GOOGLE_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_GOOGLE_RPC = "type.googleapis.com/google.rpc."
_DAILY_QUOTA = "GenerateRequestsPerDayPerProjectPerModel"
_MINUTE_QUOTA = "GenerateRequestsPerMinutePerProjectPerModel"


def openai_error(error: ApiError) -> Any:
    """`{"error": {"message", "type", "param", "code"}}`, or Gemini's shape when the error asks for it."""
    if error.format is not None:
        return _gemini_error(error, error.format)
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def anthropic_error(error: ApiError, request_id: str | None = None) -> Any:
    """`{"type": "error", "error": {"type", "message", "details"?}, "request_id"}`."""
    if error.format is not None:
        return _gemini_error(error, error.format)
    default = "api_error" if error.status >= 500 else "invalid_request_error"
    body: dict[str, Any] = {"type": _ANTHROPIC_TYPES.get(error.status, default), "message": error.message}
    if error.details_code is not None:
        body["details"] = {"error_code": error.details_code}
    return {"type": "error", "error": body, "request_id": request_id}


def written(error: Any) -> bytes:
    """An error body as bytes."""
    return json.dumps(error).encode()


def _gemini_error(error: ApiError, format: ErrorFormat) -> Any:
    details: list[dict[str, Any]] = []
    if error.status == 429:
        quota = _DAILY_QUOTA if error.type == "insufficient_quota" else _MINUTE_QUOTA
        details.append({"@type": f"{_GOOGLE_RPC}QuotaFailure", "violations": [{"quotaId": quota}]})
    if error.retry_after is not None:
        details.append({"@type": f"{_GOOGLE_RPC}RetryInfo", "retryDelay": f"{error.retry_after:.9g}s"})
    status = _GOOGLE_STATUSES.get(error.status, "INTERNAL" if error.status >= 500 else "FAILED_PRECONDITION")
    body = {"error": {"code": error.status, "message": error.message, "status": status, "details": details}}
    return [body] if format is ErrorFormat.GEMINI_ARRAY else body
