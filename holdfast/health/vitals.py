"""All that is kept of one key, as one value that is replaced as a whole: breaker and speed. No clock, no I/O."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from holdfast.breaker import BreakerPolicy, BreakerState, Phase, Sample, record
from holdfast.errors import Outcome
from holdfast.health.protocol import Condition, Standing

WEIGHT = 0.2
"""Of the newest reply in the means."""
REMEMBERED = 64
"""Replies of which the time to the first token is kept, for the percentile."""


@dataclass(frozen=True)
class Speed:
    """How fast a key answers."""

    first_token_ms: float | None = None
    last_first_tokens_ms: tuple[int, ...] = ()
    tokens_per_second: float | None = None

    def seen(self, first_token: timedelta | None, duration: timedelta | None, output_tokens: int) -> "Speed":
        """With one more reply."""
        if first_token is None:
            return self
        ms = round(first_token / timedelta(milliseconds=1))
        speed = replace(
            self,
            first_token_ms=_mean(self.first_token_ms, ms),
            last_first_tokens_ms=(*self.last_first_tokens_ms, ms)[-REMEMBERED:],
        )
        if duration is None or output_tokens < 2 or duration <= first_token:
            return speed
        # The first token came with `first_token`; the others took the rest.
        per_second = (output_tokens - 1) / (duration - first_token).total_seconds()
        return replace(speed, tokens_per_second=_mean(self.tokens_per_second, per_second))

    @property
    def p95(self) -> timedelta | None:
        """95th percentile of the remembered times to the first token, by nearest rank."""
        if not self.last_first_tokens_ms:
            return None
        ordered = sorted(self.last_first_tokens_ms)
        return timedelta(milliseconds=ordered[math.ceil(0.95 * len(ordered)) - 1])


@dataclass(frozen=True)
class Report:
    """How a call ended, as the caller said it."""

    outcome: Outcome
    first_token: timedelta | None = None
    duration: timedelta | None = None
    output_tokens: int = 0
    retry_after: timedelta | None = None
    timed_out: bool = False


@dataclass(frozen=True)
class Vitals:
    """Breaker and speed of one key."""

    breaker: BreakerState = field(default_factory=BreakerState)
    speed: Speed = field(default_factory=Speed)

    def after(self, report: Report, now: datetime, policy: BreakerPolicy) -> "Vitals":
        """With one more call ended."""
        sample = Sample(
            report.outcome,
            timed_out=report.timed_out,
            began=None if report.duration is None else now - report.duration,
            answered=report.first_token is not None,
            retry_after=report.retry_after,
        )
        return Vitals(
            record(self.breaker, sample, now, policy),
            self.speed.seen(report.first_token, report.duration, report.output_tokens),
        )

    def condition(self, now: datetime, in_flight: int) -> Condition:
        """For those who choose."""
        breaker = self.breaker
        state, until, reason = Standing.CLOSED, None, None
        if breaker.phase is Phase.HALF_OPEN or (
            breaker.phase is Phase.OPEN and breaker.until is not None and breaker.until <= now
        ):
            state, until, reason = Standing.HALF_OPEN, breaker.until, breaker.cause
        elif breaker.phase is Phase.OPEN:
            state, until, reason = Standing.OPEN, breaker.until, breaker.cause
        cooling = breaker.cooling_until
        if cooling is not None and cooling > now and (until is None or cooling > until):
            state, until, reason = Standing.COOLING, cooling, breaker.cooling_cause
        first_token_ms = self.speed.first_token_ms
        return Condition(
            state=state,
            until=until,
            reason=reason,
            first_token=None if first_token_ms is None else timedelta(milliseconds=first_token_ms),
            first_token_p95=self.speed.p95,
            tokens_per_second=self.speed.tokens_per_second,
            in_flight=in_flight,
        )

    def kept_for(self, now: datetime) -> timedelta:
        """How long a store keeps it: past every deadline in it, and a while for the speed."""
        deadlines = [moment for moment in (self.breaker.until, self.breaker.cooling_until) if moment is not None]
        return max([timedelta(0), *(moment - now for moment in deadlines)]) + timedelta(minutes=15)


_VITALS = TypeAdapter(Vitals)


def to_text(vitals: Vitals) -> str:
    """For a store."""
    return _VITALS.dump_json(vitals, exclude_defaults=True).decode()


def from_text(text: str) -> Vitals:
    """From a store; an empty text is a key of which nothing is known."""
    return _VITALS.validate_json(text) if text else Vitals()


def _mean(so_far: float | None, newest: float) -> float:
    return newest if so_far is None else so_far + WEIGHT * (newest - so_far)
