"""Every row of the providers' error tables, and what an error may never say."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import Outcome, ProviderError
from holdfast.providers import BILLING_MARKS, classify, classify_transport
from holdfast.providers.classify import FailureKind

NOW = datetime(2026, 11, 6, 12, 0, tzinfo=UTC)


def classified(status: int | None, body: Any = None, **headers: str) -> ProviderError:
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, named, raw, now=NOW, model="gpt-test")


def openai(code: str | None, kind: str | None = None) -> dict[str, Any]:
    return {"error": {"message": "words", "type": kind, "param": None, "code": code}}


def anthropic(kind: str, error_code: str | None = None) -> dict[str, Any]:
    details = {"details": {"error_code": error_code}} if error_code else {}
    return {"type": "error", "error": {"type": kind, "message": "words", **details}, "request_id": "req_body"}


def gemini(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": "words", "status": status, "details": list(details)}}


def worded(message: str) -> dict[str, Any]:
    """Anthropic, where only the message tells."""
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def said(message: str) -> dict[str, Any]:
    """Gemini without details."""
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}}


def behind(raw: str) -> dict[str, Any]:
    """OpenRouter, on behalf of a provider behind it."""
    metadata = {"provider_name": "Somebody", "raw": raw}
    return {"error": {"code": 429, "message": "Provider returned error", "metadata": metadata}}


PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}],
}
PER_MINUTE = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "10"}],
}
NO_QUOTA = {"violations": [{"quotaId": "GenerateContentInputTokensPerModelPerMinute", "quotaValue": "0"}]}

ROWS: list[tuple[int | None, Any, Outcome]] = [
    # OpenAI: errors and headers
    (429, openai("rate_limit_exceeded", "requests"), Outcome.RATE_LIMITED),
    (429, openai("rate_limit_exceeded", "tokens"), Outcome.RATE_LIMITED),
    (429, openai("slow_down", "rate_limit_error"), Outcome.RATE_LIMITED),
    (503, openai("slow_down", "rate_limit_error"), Outcome.RATE_LIMITED),
    (429, openai("credit_balance_exhausted", "insufficient_quota"), Outcome.BILLING),
    (429, openai("organization_spend_limit_exceeded", "insufficient_quota"), Outcome.BILLING),
    (429, openai("project_spend_limit_exceeded", "insufficient_quota"), Outcome.BILLING),
    (429, openai("organization_usage_limit_exceeded", "insufficient_quota"), Outcome.BILLING),
    (429, openai("insufficient_quota", "insufficient_quota"), Outcome.BILLING),
    (503, openai("server_is_overloaded", "service_unavailable_error"), Outcome.OVERLOADED),
    (500, openai("server_is_overloaded", "service_unavailable_error"), Outcome.OVERLOADED),
    (400, openai("context_length_exceeded", "invalid_request_error"), Outcome.CONTEXT_LENGTH),
    (400, openai("content_filter", "invalid_request_error"), Outcome.CONTENT_FILTER),
    (400, openai("content_policy_violation", "invalid_request_error"), Outcome.CONTENT_FILTER),
    (400, openai("invalid_value", "invalid_request_error"), Outcome.INVALID_REQUEST),
    (401, openai("invalid_api_key", "invalid_request_error"), Outcome.AUTHENTICATION),
    (404, openai("model_not_found", "invalid_request_error"), Outcome.INVALID_REQUEST),
    # Azure OpenAI
    (
        400,
        {"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        Outcome.CONTENT_FILTER,
    ),
    # Anthropic
    (400, anthropic("invalid_request_error"), Outcome.INVALID_REQUEST),
    (400, worded("Output blocked by content filtering policy"), Outcome.CONTENT_FILTER),
    (400, worded("prompt is too long: 210000 tokens > 200000 maximum"), Outcome.CONTEXT_LENGTH),
    (401, anthropic("authentication_error"), Outcome.AUTHENTICATION),
    (402, anthropic("billing_error"), Outcome.BILLING),
    (403, anthropic("permission_error"), Outcome.AUTHENTICATION),
    (404, anthropic("not_found_error"), Outcome.INVALID_REQUEST),
    (409, anthropic("conflict_error"), Outcome.OVERLOADED),
    (413, anthropic("request_too_large"), Outcome.INVALID_REQUEST),
    (429, anthropic("rate_limit_error"), Outcome.RATE_LIMITED),
    (429, anthropic("rate_limit_error", "ramp_limit_exceeded"), Outcome.RATE_LIMITED),
    (429, anthropic("rate_limit_error", "enforced_spend_limit_reached"), Outcome.BILLING),
    (429, anthropic("rate_limit_error", "contract_spend_limit_reached"), Outcome.BILLING),
    (500, anthropic("api_error"), Outcome.UNKNOWN),
    (504, anthropic("timeout_error"), Outcome.UNKNOWN),
    (529, anthropic("overloaded_error"), Outcome.OVERLOADED),
    # Gemini
    (429, gemini(429, "RESOURCE_EXHAUSTED", PER_MINUTE), Outcome.RATE_LIMITED),
    (429, gemini(429, "RESOURCE_EXHAUSTED", PER_DAY), Outcome.BILLING),
    (429, gemini(429, "RESOURCE_EXHAUSTED", NO_QUOTA), Outcome.BILLING),
    (429, [gemini(429, "RESOURCE_EXHAUSTED", PER_DAY)], Outcome.BILLING),
    (429, openai("quota_exceeded"), Outcome.BILLING),
    (402, gemini(402, "FAILED_PRECONDITION"), Outcome.BILLING),
    (503, gemini(503, "UNAVAILABLE"), Outcome.OVERLOADED),
    (429, gemini(429, "RESOURCE_EXHAUSTED"), Outcome.RATE_LIMITED),
    (429, said("Quota exceeded for metric: requests, limit: 0, model: g"), Outcome.BILLING),
    (429, said("You exceeded your current quota. Please retry in 10h17m3.5s."), Outcome.BILLING),
    (429, said("You exceeded your current quota, limit: 10. Please retry in 46.1s."), Outcome.RATE_LIMITED),
    # OpenRouter
    (402, {"error": {"code": 402, "message": "words"}}, Outcome.BILLING),
    (
        402,
        {"error": {"code": 402, "message": "words", "metadata": {"limit_source": "openrouter_in_flight_budget"}}},
        Outcome.RATE_LIMITED,
    ),
    (
        403,
        {"error": {"code": 403, "message": "words", "metadata": {"reasons": ["violence"], "flagged_input": "words"}}},
        Outcome.CONTENT_FILTER,
    ),
    (403, {"error": {"code": 403, "message": "words"}}, Outcome.AUTHENTICATION),
    (408, {"error": {"code": 408, "message": "words"}}, Outcome.UNKNOWN),
    (429, behind('{"error": {"code": "insufficient_quota"}}'), Outcome.BILLING),
    (429, behind('{"error": {"type": "overloaded_error"}}'), Outcome.RATE_LIMITED),
    (429, behind("<html>words</html>"), Outcome.RATE_LIMITED),
    (400, behind('{"error": {"code": "context_length_exceeded"}}'), Outcome.CONTEXT_LENGTH),
    (502, {"error": {"code": 502, "message": "words"}}, Outcome.UNKNOWN),
    (503, {"error": {"code": 503, "message": "words"}}, Outcome.OVERLOADED),
    # codes of the future
    (429, openai("a_code_of_the_future", "a_type_of_the_future"), Outcome.RATE_LIMITED),
    (400, openai("a_code_of_the_future"), Outcome.INVALID_REQUEST),
    (500, anthropic("an_error_of_the_future"), Outcome.UNKNOWN),
    (200, anthropic("an_error_of_the_future"), Outcome.UNKNOWN),
    (451, None, Outcome.INVALID_REQUEST),
    (599, None, Outcome.UNKNOWN),
    # vLLM, llama.cpp, servers that count a too large request as a rate
    (
        400,
        {
            "object": "error",
            "type": "BadRequestError",
            "code": 400,
            "message": "This model's maximum context length is 4",
        },
        Outcome.CONTEXT_LENGTH,
    ),
    (400, {"error": {"code": 400, "type": "exceed_context_size_error"}}, Outcome.CONTEXT_LENGTH),
    (413, openai("context_length_exceeded"), Outcome.CONTEXT_LENGTH),
    (413, openai("rate_limit_exceeded", "tokens"), Outcome.INVALID_REQUEST),
    # status alone
    (302, None, Outcome.INVALID_REQUEST),
    (400, None, Outcome.INVALID_REQUEST),
    (402, None, Outcome.BILLING),
    (408, None, Outcome.UNKNOWN),
    (409, None, Outcome.OVERLOADED),
    (413, None, Outcome.INVALID_REQUEST),
    (422, None, Outcome.INVALID_REQUEST),
    (429, None, Outcome.RATE_LIMITED),
    (500, None, Outcome.UNKNOWN),
    (502, b"<html><title>502 Bad Gateway</title></html>", Outcome.UNKNOWN),
    (503, b"<html>busy</html>", Outcome.OVERLOADED),
    (504, b"", Outcome.UNKNOWN),
    (520, None, Outcome.UNKNOWN),
    (529, None, Outcome.OVERLOADED),
    (204, None, Outcome.UNKNOWN),
    # an error inside a 200 answer
    (200, openai(None, "server_error"), Outcome.UNKNOWN),
    (200, openai("rate_limit_exceeded"), Outcome.RATE_LIMITED),
    (200, openai("insufficient_quota"), Outcome.BILLING),
    (200, anthropic("overloaded_error"), Outcome.OVERLOADED),
    (200, anthropic("invalid_request_error"), Outcome.INVALID_REQUEST),
    (200, {"error": {"code": 429, "message": "words"}}, Outcome.RATE_LIMITED),
    (200, {"error": {"code": 502, "message": "words"}}, Outcome.UNKNOWN),
    (None, {"error": "overloaded"}, Outcome.OVERLOADED),
]


@pytest.mark.parametrize(("status", "body", "outcome"), ROWS)
def test_every_row_of_the_error_tables(status: int | None, body: Any, outcome: Outcome) -> None:
    assert classified(status, body).outcome is outcome


@pytest.mark.parametrize("mark", sorted(BILLING_MARKS))
@pytest.mark.parametrize("status", [400, 402, 403, 429])
def test_a_billing_code_is_never_retried_under_any_status(mark: str, status: int) -> None:
    for body in (openai(mark), openai(None, mark), openai("other", mark), anthropic("rate_limit_error", mark)):
        error = classified(status, body, retry_after="1")
        assert error.outcome is Outcome.BILLING
        assert not error.outcome.retryable


@pytest.mark.parametrize("status", [429, 409, 503, 529, 500])
def test_a_provider_that_says_do_not_retry_is_obeyed(status: int) -> None:
    assert classified(status).retryable
    assert classified(status).should_retry is None
    assert not classified(status, X_Should_Retry="false").retryable
    assert classified(status, x_should_retry=" True ").retryable
    assert classified(status, x_should_retry="perhaps").should_retry is None


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413])
def test_a_provider_that_says_retry_makes_no_final_outcome_repeatable(status: int) -> None:
    error = classified(status, x_should_retry="true")
    assert error.should_retry is True
    assert not error.retryable


def test_do_not_retry_never_turns_a_possibly_billed_call_into_a_free_one() -> None:
    assert classified(500, x_should_retry="false").outcome.billed is None


def test_the_providers_wait_is_carried() -> None:
    assert classified(429, retry_after="90").retry_after == timedelta(seconds=90)
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46.5s"}
    assert classified(429, gemini(429, "RESOURCE_EXHAUSTED", retry_info)).retry_after == timedelta(seconds=46.5)
    assert classified(503).retry_after is None


def test_the_wait_of_a_quota_of_the_day_is_the_one_until_the_day_ends() -> None:
    retry_info = {"retryDelay": "46s"}
    assert classified(429, gemini(429, "RESOURCE_EXHAUSTED", PER_DAY, retry_info)).retry_after is None
    told = classified(429, said("You exceeded your current quota. Please retry in 10h17m3.5s."))
    assert told.retry_after == timedelta(hours=10, minutes=17, seconds=3)
    assert classified(429, said("Please retry in 46.1s.")).retry_after == timedelta(seconds=46)


@pytest.mark.parametrize("body", [openai("insufficient_quota"), anthropic("overloaded_error"), None])
def test_whatever_an_error_says_in_the_middle_of_a_reply_the_reply_is_broken_and_billed(body: Any) -> None:
    error = classify(200, {}, body, now=NOW, model="m", begun=True)
    assert error.outcome is Outcome.BROKEN_STREAM
    assert error.outcome.billed


def test_the_message_names_status_code_type_and_request() -> None:
    error = classified(429, openai("insufficient_quota", "billing"), x_request_id="req_123")
    assert error.status == 429
    for part in ("gpt-test", "HTTP 429", "'insufficient_quota'", "'billing'", "'req_123'"):
        assert part in str(error)
    assert "'req_body'" in str(classified(500, anthropic("api_error")))


@pytest.mark.parametrize("secret", ["sk-proj-abc123", "AIzaSyA1b2", "my card is 4111", "x" * 500, "a\nb"])
def test_the_message_never_repeats_what_the_provider_quotes(secret: str) -> None:
    bodies: list[Any] = [
        {"error": {"message": secret, "code": secret, "type": secret, "status": secret}},
        {"error": secret},
        [{"error": {"code": secret}}],
        {"message": secret, "type": secret, "detail": secret},
    ]
    for body in bodies:
        assert secret not in str(classified(400, body))


BODY_KEYS = ["error", "code", "details", "violations", "innererror", "metadata", "raw", "message"]


@given(
    st.none() | st.integers(100, 999),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(BODY_KEYS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
)
def test_no_body_makes_the_classifier_fail(status: int | None, body: Any) -> None:
    assert isinstance(classified(status, body), ProviderError)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_classifier_fail(body: bytes) -> None:
    assert classified(500, body).outcome is Outcome.UNKNOWN


def test_a_body_nested_beyond_reason_is_ignored() -> None:
    assert classified(500, b"[" * 100_000).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "sent", "begun", "outcome"),
    [
        ("connect", False, False, Outcome.NOT_SENT),
        ("connect_timeout", False, False, Outcome.NOT_SENT),
        ("pool_timeout", False, False, Outcome.NOT_SENT),
        ("proxy", False, False, Outcome.NOT_SENT),
        ("write", True, False, Outcome.UNKNOWN),
        ("silence", True, False, Outcome.UNKNOWN),
        ("protocol", True, False, Outcome.UNKNOWN),
        ("read", True, True, Outcome.BROKEN_STREAM),
        ("silence", True, True, Outcome.BROKEN_STREAM),
        ("total", True, True, Outcome.BROKEN_STREAM),
        ("too_large", True, True, Outcome.BROKEN_STREAM),
    ],
)
def test_a_transport_failure_is_billed_by_how_far_it_got(
    kind: FailureKind, sent: bool, begun: bool, outcome: Outcome
) -> None:
    assert classify_transport(kind, sent=sent, after_first_byte=begun, model="m").outcome is outcome
