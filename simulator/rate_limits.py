"""Requests and tokens per minute, and how much of them is left.

Limits are token buckets that refill continuously, as OpenAI's do (platform documentation, "Rate limits": a limit of
60,000 a minute may be enforced as 1,000 a second). A model without limits reports large nominal ones and is never
refused.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

NOMINAL_REQUESTS_PER_MINUTE = 30_000
NOMINAL_TOKENS_PER_MINUTE = 150_000_000


def go_duration(seconds: float) -> str:
    """Write a duration as Go's `time.Duration` prints it: `12ms`, `1s`, `6m0s`, `1h0m0.5s`; rounded up to 1 ms."""
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


class _Bucket:
    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._updated = now

    def refill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self._updated) * self.per_minute / 60)
        self._updated = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * 60 / self.per_minute)


@dataclass(frozen=True)
class Refusal:
    """Why a request is over a limit."""

    dimension: Literal["requests", "tokens"]
    limit: int
    retry_after: float | None
    """Seconds until there is room; `None` when the request alone is larger than the limit."""


class RateLimit:
    """The two limits of one model.

    Args:
        requests_per_minute: `None` sets no limit.
        tokens_per_minute: `None` sets no limit.
        clock: Seconds that never go backwards.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._requests = None if requests_per_minute is None else _Bucket(requests_per_minute, clock())
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute, clock())

    def take(self, tokens: int) -> Refusal | None:
        """Charge one request of some tokens to both limits, or to neither.

        Returns:
            `None` when there was room.
        """
        now = self._clock()
        if self._requests is not None:
            self._requests.refill(now)
            if self._requests.level < 1:
                return Refusal("requests", self._requests.per_minute, self._requests.seconds_until(1))
        if self._tokens is not None:
            self._tokens.refill(now)
            if self._tokens.level < tokens:
                fits = tokens <= self._tokens.per_minute
                wait = self._tokens.seconds_until(tokens) if fits else None
                return Refusal("tokens", self._tokens.per_minute, wait)
        if self._requests is not None:
            self._requests.level -= 1
        if self._tokens is not None:
            self._tokens.level -= tokens
        return None

    def report(self) -> "Report":
        """Both limits as of the last `take`."""
        if self._requests is None and self._tokens is None:
            return UNLIMITED
        return Report(
            UNLIMITED.requests if self._requests is None else _room(self._requests),
            UNLIMITED.tokens if self._tokens is None else _room(self._tokens),
        )


class Room(NamedTuple):
    """What is left of one limit."""

    limit: int
    remaining: int
    reset: float
    """Seconds until all of it is there again."""


class Report(NamedTuple):
    """What is left of both limits, for the response's headers."""

    requests: Room
    tokens: Room


UNLIMITED = Report(
    Room(NOMINAL_REQUESTS_PER_MINUTE, NOMINAL_REQUESTS_PER_MINUTE, 0.0),
    Room(NOMINAL_TOKENS_PER_MINUTE, NOMINAL_TOKENS_PER_MINUTE, 0.0),
)
"""What a model without limits reports."""


def _room(bucket: _Bucket) -> Room:
    return Room(bucket.per_minute, int(bucket.level), bucket.seconds_until(bucket.per_minute))
