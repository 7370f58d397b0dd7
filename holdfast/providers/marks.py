"""The words by which providers name a failure: one table for each meaning.

A word that no table knows has no meaning of its own; the status decides, so a code invented later is still handled.
"""

from holdfast.errors import Outcome

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

CONTEXT_MARKS = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "model_context_window_exceeded",
        "exceed_context_size_error",
        "string_above_max_length",
    }
)

CONTEXT_PHRASES = (
    "maximum context length",
    "exceeds the maximum number of tokens",
    "prompt is too long",
    "exceed context limit",
)
"""vLLM, Gemini and Anthropic have no code for it, only these words in the message."""

FILTER_MARKS = frozenset(
    {
        "content_filter",
        "content_policy",
        "content_policy_violation",
        "content_filter_error",
        "responsibleaipolicyviolation",
        "moderation_blocked",
    }
)

FILTER_PHRASES = ("content filtering policy",)
"""Anthropic has no code for a reply that its filter withheld, only these words in the message."""

OVERLOAD_MARKS = frozenset(
    {"server_is_overloaded", "service_unavailable_error", "overloaded_error", "overloaded", "unavailable"}
)

RATE_MARKS = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "slow_down",
        "ramp_limit_exceeded",
        "too_many_requests",
        "resource_exhausted",
    }
)

TYPE_OUTCOMES = {
    "invalid_request_error": Outcome.INVALID_REQUEST,
    "not_found_error": Outcome.INVALID_REQUEST,
    "request_too_large": Outcome.INVALID_REQUEST,
    "authentication_error": Outcome.AUTHENTICATION,
    "permission_error": Outcome.AUTHENTICATION,
    "invalid_api_key": Outcome.AUTHENTICATION,
    "conflict_error": Outcome.OVERLOADED,
}
"""Used only for an error inside a 200 answer, where no status speaks."""

STATUS_OUTCOMES = {
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
