"""What one call of a model does: the behaviour, its fields, and how each is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simulator.fields import (
    BehaviourError,
    Read,
    boolean,
    calls,
    integer,
    member,
    number,
    optional,
    price,
    text,
    turns,
    weights,
)
from simulator.prices import Price
from simulator.turns import Turn

__all__ = [
    "CALL_FIELDS",
    "PROFILE_FIELDS",
    "SCRIPT_FIELDS",
    "Behaviour",
    "BehaviourError",
    "ErrorFormat",
    "Kind",
    "ModelProfile",
    "RetryAfterFormat",
]


class Kind(StrEnum):
    """How the call ends."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    SLOW_DOWN = "slow_down"
    """429 for traffic that grew too fast, below the limits."""
    INSUFFICIENT_QUOTA = "insufficient_quota"
    """429 of a spending limit: waiting does not help."""
    BILLING_402 = "billing_402"
    BILLING_400 = "billing_400"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    REQUEST_TOO_LARGE = "request_too_large"
    CONFLICT_409 = "conflict_409"
    CONTEXT_LENGTH = "context_length"
    POLICY_400 = "policy_400"
    """The prompt is turned away by a content policy."""
    OVERLOADED_503 = "overloaded_503"
    OVERLOADED_529 = "overloaded_529"
    ERROR_500 = "error_500"
    ERROR_502 = "error_502"
    ERROR_504 = "error_504"
    ERROR_MID_STREAM = "error_mid_stream"
    """200, some tokens, then an error in the stream; without a stream, 200 with an error as body."""
    HANG = "hang"
    """The request is accepted and never answered."""
    DISCONNECT_BEFORE_RESPONSE = "disconnect_before_response"
    HANG_MID_STREAM = "hang_mid_stream"
    DISCONNECT_MID_STREAM = "disconnect_mid_stream"
    """The TCP connection is closed after some tokens, without a terminator."""
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    CONTEXT_WINDOW_EXCEEDED = "context_window_exceeded"
    """The answer is cut because the context window is full, not because of `max_tokens`."""
    TOOL_CALLS = "tool_calls"
    NO_USAGE = "no_usage"
    MALFORMED_JSON = "malformed_json"
    """200 with a body (in a stream: an event) that is not JSON."""
    HTML_200 = "html_200"
    SCHEMA_VIOLATING_JSON = "schema_violating_json"
    REPAIRABLE_JSON = "repairable_json"
    """The content is right JSON in a code fence with a trailing comma."""
    CONFIDENTLY_WRONG = "confidently_wrong"
    """Right in form and wrong in substance: another passage is quoted, other values fill the schema."""

    @property
    def is_refusal(self) -> bool:
        """Whether the request is turned away before generation, and so never billed."""
        return self in _TURNED_AWAY

    @property
    def is_withheld(self) -> bool:
        """Whether the client gets no complete answer although one may have been generated."""
        return self in _WITHHELD


_TURNED_AWAY = frozenset(
    {
        *(Kind.RATE_LIMITED, Kind.SLOW_DOWN, Kind.INSUFFICIENT_QUOTA, Kind.BILLING_402, Kind.BILLING_400),
        *(Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.MODEL_NOT_FOUND, Kind.REQUEST_TOO_LARGE, Kind.CONFLICT_409),
        *(Kind.CONTEXT_LENGTH, Kind.POLICY_400, Kind.OVERLOADED_503, Kind.OVERLOADED_529),
    }
)
_WITHHELD = frozenset(
    {
        *(Kind.ERROR_500, Kind.ERROR_502, Kind.ERROR_504, Kind.ERROR_MID_STREAM),
        *(Kind.HANG, Kind.DISCONNECT_BEFORE_RESPONSE, Kind.HANG_MID_STREAM, Kind.DISCONNECT_MID_STREAM),
    }
)


class RetryAfterFormat(StrEnum):
    """Which header says how long to wait."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    """The header is `retry-after-ms`."""
    HTTP_DATE = "http_date"
    NONE = "none"


class ErrorFormat(StrEnum):
    """How an error body is written when not in the shape of the endpoint."""

    GEMINI = "gemini"
    """`{"error": {"code", "message", "status", "details"}}`; the wait is a `RetryInfo` in it and in no header."""
    GEMINI_ARRAY = "gemini_array"
    """The same inside a JSON array."""


@dataclass(frozen=True)
class Behaviour:
    """Everything that can be asked of one call."""

    kind: Kind = Kind.OK
    first_token_ms: float = 0.0
    """Latency to the first token, milliseconds; the median when `first_token_sigma` is set."""
    first_token_sigma: float = 0.0
    """Sigma of the log-normal that multiplies `first_token_ms`; 0 makes it fixed."""
    token_ms: float = 0.0
    """Latency of every further token, milliseconds; the median when `token_sigma` is set."""
    token_sigma: float = 0.0
    """Sigma of the log-normal that multiplies `token_ms`; 0 makes it fixed."""
    latency_factor: float = 1.0
    """Multiplies both latencies: 1.5 is a model that is 50 % slower than usual."""
    completion_tokens: int = 24
    """Length of a plain answer that is not drawn from passages."""
    content: str | None = None
    """The exact text to answer with; of `tool_calls`, the text before the calls."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Calls for `tool_calls`: `{"name", "arguments"}`; empty calls the request's tool with generated arguments, and
    arguments that are a text, not an object, are sent as they are, which only OpenAI's format can."""
    turns: tuple[Turn, ...] = ()
    """What the model does turn by turn while it works with tools; for calls of kind `ok` that say no `content`."""
    after_tokens: int | None = None
    """Tokens before a break, hang, cut, filter or error; `None` is 5, or half the answer for the two kinds of cut."""
    confidence: float = 0.95
    """Probability of each token, for requests with `logprobs`."""
    retry_after: float | None = None
    """Seconds a client is asked to wait; `None` is 1 for `rate_limited` and `slow_down`, else no header."""
    retry_after_format: RetryAfterFormat = RetryAfterFormat.SECONDS
    should_retry: bool | None = None
    """The error's header `x-should-retry`; `None` leaves it out."""
    error_code: str | None = None
    """Replaces the `code` of an error body, e.g. `credit_balance_exhausted`; Anthropic's `details.error_code`."""
    error_format: ErrorFormat | None = None
    """`None` is the shape of the endpoint."""
    cached_tokens: int | None = None
    """Prompt tokens read from the prompt cache; `None` lets the cache decide."""
    cache_write_tokens: int | None = None
    """Prompt tokens written to the prompt cache; `None` lets the cache decide."""
    bill_on_error: bool = False
    """Bill the prompt and the full completion although the client does not get it."""
    batch_ms: float = 500.0
    """How long a batch with this call in it takes, milliseconds."""


@dataclass(frozen=True)
class ModelProfile:
    """What a model does when nobody scripts it."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    fault_probability: float = 0.0
    """Share of the calls, 0 to 1, that get a fault instead."""
    fault_kind: Kind = Kind.ERROR_500
    fault_kinds: tuple[tuple[Kind, float], ...] = ()
    """The kinds to draw from with their weights; when given, `fault_kind` is not used."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt plus requested completion tokens; `None` sets no limit."""
    price: Price | None = None
    """`None` leaves the model without a price on the bill."""
    cache_minimum_tokens: int = 1024
    """The shortest prefix that the prompt cache keeps."""


CALL_FIELDS: Mapping[str, Read] = {
    "kind": member(Kind),
    "first_token_ms": number(0),
    "first_token_sigma": number(0, 5),
    "token_ms": number(0),
    "token_sigma": number(0, 5),
    "latency_factor": number(0, 10_000),
    "completion_tokens": integer(1, 200_000),
    "content": optional(text),
    "tool_calls": calls,
    "turns": turns,
    "after_tokens": optional(integer(0)),
    "confidence": number(0, 1),
    "retry_after": optional(number(0)),
    "retry_after_format": member(RetryAfterFormat),
    "should_retry": optional(boolean),
    "error_code": optional(text),
    "error_format": optional(member(ErrorFormat)),
    "cached_tokens": optional(integer(0)),
    "cache_write_tokens": optional(integer(0)),
    "bill_on_error": boolean,
    "batch_ms": number(0),
}
"""The fields a script, a header or a profile may set, and how each is read."""

PROFILE_FIELDS: Mapping[str, Read] = {
    "fault_probability": number(0, 1),
    "fault_kind": member(Kind),
    "fault_kinds": weights(Kind),
    "requests_per_minute": optional(integer(1, 1_000_000_000)),
    "tokens_per_minute": optional(integer(1, 1_000_000_000)),
    "price": optional(price),
    "cache_minimum_tokens": integer(0),
}
"""The further fields of a profile: they describe many calls, not one."""

SCRIPT_FIELDS: Mapping[str, Read] = {
    "model": optional(text),
    "api_key": optional(text),
    "times": integer(1, 1_000_000),
    "for_ms": optional(number(0)),
}
"""The further fields of a scripted behaviour: which calls it applies to."""
