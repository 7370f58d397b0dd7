"""What one chat completion does: the behaviour, its fields, and how a mapping becomes one.

Behaviours arrive as JSON (script, `X-Simulate` header) or TOML (profile). A field that does not exist or a value out of
range is refused with the field's name and what it accepts, because a fault that is silently not injected makes a test
pass for the wrong reason.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How the call ends."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    UNAUTHORIZED = "unauthorized"
    CONTEXT_LENGTH = "context_length"
    OVERLOADED_503 = "overloaded_503"
    ERROR_500 = "error_500"
    ERROR_502 = "error_502"
    HANG = "hang"
    """The request is accepted and never answered."""
    DISCONNECT_BEFORE_RESPONSE = "disconnect_before_response"
    HANG_MID_STREAM = "hang_mid_stream"
    DISCONNECT_MID_STREAM = "disconnect_mid_stream"
    """The TCP connection is closed after some tokens, without a terminator."""
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    TOOL_CALLS = "tool_calls"
    NO_USAGE = "no_usage"
    MALFORMED_JSON = "malformed_json"
    """200 with a body (in a stream: an event) that is not JSON."""
    HTML_200 = "html_200"
    SCHEMA_VIOLATING_JSON = "schema_violating_json"
    REPAIRABLE_JSON = "repairable_json"
    """The content is right JSON in a code fence with a trailing comma."""

    @property
    def is_refusal(self) -> bool:
        """Whether the request is turned away before generation, and so never billed."""
        return self in _TURNED_AWAY


_TURNED_AWAY = frozenset(
    {
        Kind.RATE_LIMITED,
        Kind.INSUFFICIENT_QUOTA,
        Kind.UNAUTHORIZED,
        Kind.CONTEXT_LENGTH,
        Kind.OVERLOADED_503,
    }
)


class RetryAfterFormat(StrEnum):
    """Which header says how long to wait."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    """The header is `retry-after-ms`."""
    HTTP_DATE = "http_date"
    NONE = "none"


@dataclass(frozen=True)
class Behaviour:
    """Everything that can be asked of one chat completion."""

    kind: Kind = Kind.OK
    first_token_ms: float = 0.0
    """Latency to the first token, milliseconds."""
    token_ms: float = 0.0
    """Latency of every further token, milliseconds; the median when `token_sigma` is set."""
    token_sigma: float = 0.0
    """Sigma of the log-normal that multiplies `token_ms`; 0 makes it fixed."""
    completion_tokens: int = 24
    """Length of a plain answer that is not drawn from passages."""
    content: str | None = None
    """The exact text to answer with."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Calls for `tool_calls`: `{"name", "arguments"}`; empty calls the request's tool with generated arguments."""
    after_tokens: int | None = None
    """Tokens before a break, hang, cut or filter; `None` is 5, or half the answer for `truncated`."""
    retry_after: float | None = None
    """Seconds a client is asked to wait; `None` is 1 for `rate_limited` and no header for `overloaded_503`."""
    retry_after_format: RetryAfterFormat = RetryAfterFormat.SECONDS
    error_code: str | None = None
    """Replaces the `code` of an error body, e.g. `credit_balance_exhausted`."""
    cached_tokens: int = 0
    """Prompt tokens to report as read from the prompt cache."""
    bill_on_error: bool = False
    """Bill the prompt and the full completion although the client does not get it."""


@dataclass(frozen=True)
class ModelProfile:
    """What a model does when nobody scripts it."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    fault_probability: float = 0.0
    """Share of the calls, 0 to 1, that get `fault_kind` instead."""
    fault_kind: Kind = Kind.ERROR_500
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt plus requested completion tokens; `None` sets no limit."""


class BehaviourError(ValueError):
    """A behaviour that cannot be carried out.

    Args:
        message: What is wrong with the field and what it accepts.
        field: The field.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


def _refuse(field: str, value: object, accepted: str) -> BehaviourError:
    return BehaviourError(f"Field {field!r} is {value!r:.80}; it accepts {accepted}.", field=field)


def _number(low: float, high: float | None = None) -> Callable[[str, object], float]:
    accepted = f"a number from {low:g}" + ("" if high is None else f" to {high:g}")

    def read(field: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refuse(field, value, accepted)
        if not low <= value <= (high if high is not None else float("1e12")):
            raise _refuse(field, value, accepted)
        return float(value)

    return read


def _integer(low: int, high: int = 10_000_000) -> Callable[[str, object], int]:
    def read(field: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(field, value, f"an integer from {low} to {high}")
        return value

    return read


def _member(enum: type[StrEnum]) -> Callable[[str, object], StrEnum]:
    def read(field: str, value: object) -> StrEnum:
        try:
            return enum(str(value))
        except ValueError:
            raise _refuse(field, value, "one of " + ", ".join(enum)) from None

    return read


def _boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refuse(field, value, "true or false")
    return value


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise _refuse(field, value, "a string")
    return value


def _calls(field: str, value: object) -> tuple[Mapping[str, Any], ...]:
    accepted = 'a list of {"name": string, "arguments": object}'
    if not isinstance(value, list | tuple):
        raise _refuse(field, value, accepted)
    for call in value:
        if not isinstance(call, Mapping) or set(call) - {"name", "arguments"} or not isinstance(call.get("name"), str):
            raise _refuse(field, call, accepted)
        if not isinstance(call.get("arguments", {}), Mapping):
            raise _refuse(field, call, accepted)
    return tuple(value)


def _optional(read: Callable[[str, object], object]) -> Callable[[str, object], object]:
    return lambda field, value: None if value is None else read(field, value)


CALL_FIELDS: Mapping[str, Callable[[str, object], object]] = {
    "kind": _member(Kind),
    "first_token_ms": _number(0),
    "token_ms": _number(0),
    "token_sigma": _number(0, 5),
    "completion_tokens": _integer(1, 200_000),
    "content": _optional(_text),
    "tool_calls": _calls,
    "after_tokens": _optional(_integer(0)),
    "retry_after": _optional(_number(0)),
    "retry_after_format": _member(RetryAfterFormat),
    "error_code": _optional(_text),
    "cached_tokens": _integer(0),
    "bill_on_error": _boolean,
}
"""The fields a script, a header or a profile may set, and how each is read."""

PROFILE_FIELDS: Mapping[str, Callable[[str, object], object]] = {
    "fault_probability": _number(0, 1),
    "fault_kind": _member(Kind),
    "requests_per_minute": _optional(_integer(1, 1_000_000_000)),
    "tokens_per_minute": _optional(_integer(1, 1_000_000_000)),
}
"""The further fields of a profile: they describe many calls, not one."""

SCRIPT_FIELDS: Mapping[str, Callable[[str, object], object]] = {
    "model": _optional(_text),
    "times": _integer(1, 1_000_000),
}
"""The further fields of a scripted behaviour: which calls consume it."""


def read_fields(
    given: object, *, also: Mapping[str, Callable[[str, object], object]] | None = None, where: str = "behaviour"
) -> dict[str, Any]:
    """Check a mapping of behaviour fields and convert its values.

    Args:
        given: The mapping as it came from JSON or TOML.
        also: Fields accepted beside `CALL_FIELDS`.
        where: What the mapping is, for the message.

    Raises:
        BehaviourError: The mapping is none, or a field or its value is unknown.
    """
    fields = {**CALL_FIELDS, **(also or {})}
    if not isinstance(given, Mapping):
        raise BehaviourError(f"A {where} is an object with the fields {_names(fields)}.", field=where)
    for name in given:
        if name not in fields:
            raise BehaviourError(
                f"Field {name!r:.80} is not a {where} field. The fields are {_names(fields)}.", field=str(name)
            )
    return {name: fields[name](name, value) for name, value in given.items()}


def _names(fields: Collection[str]) -> str:
    return ", ".join(sorted(fields))
