"""When a deployment is left alone and how it comes back: a pure reducer, without clock and without I/O.

```
closed ── enough failures in the window, or a key that is refused ──> open
open ── its time is over, or nothing else is there ──> half open: one probe goes, everyone else waits
half open ── the probe is answered ──> closed          ── it fails ──> open, for longer
```

What is not the deployment's failure never opens it. A rate limit pauses it for as long as it asks and needs no probe
afterwards. Timeouts are counted apart and open it only when they lie far enough apart: a stall of our own event loop
lets many calls time out in one moment, and says nothing about the deployment.

Stores keep one `BreakerState` for each key and replace it as a whole; whoever turns open into half open is the probe.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from holdfast.errors import Outcome

LONGEST_PAUSE = timedelta(days=1)
"""No pause is believed to be longer, whatever an answer says."""
SLICES = 10
"""The window is forgotten in this many steps."""


class Phase(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(StrEnum):
    """What a call may do."""

    ALLOW = "allow"
    PROBE = "probe"
    """Go, as the only one; its outcome decides."""
    REFUSE = "refuse"


class Cause(StrEnum):
    """Why a deployment is left alone."""

    FAILURES = "failures"
    TIMEOUTS = "timeouts"
    PROBE_FAILED = "probe failed"
    PROBING = "a probe is under way"
    RATE_LIMITED = "rate limited"
    PAUSED = "asked to be left alone"
    BILLING = "billing"
    AUTHENTICATION = "authentication"


@dataclass(frozen=True)
class BreakerPolicy:
    """The numbers."""

    window: timedelta = timedelta(seconds=30)
    minimum_calls: int = 5
    failure_rate: float = 0.5
    open_for: timedelta = timedelta(seconds=15)
    growth: int = 2
    """Each probe that fails multiplies the time until the next."""
    open_at_most: timedelta = timedelta(minutes=5)
    timeout_span: timedelta = timedelta(seconds=10)
    """Timeouts count only when the first and the last in the window lie this far apart."""
    probe_ttl: timedelta = timedelta(minutes=1)
    """A probe that has not reported by then is taken for dead, and another may go."""
    cooldown: timedelta = timedelta(seconds=5)
    """Pause after a rate limit that does not say how long."""
    refused_for: timedelta = timedelta(minutes=5)
    """How long a key stays open after a billing or authentication failure that does not say how long."""
    sole_every: timedelta = timedelta(seconds=1)
    """Between two probes of a deployment without alternative."""
    look: timedelta = timedelta(seconds=1)
    """When to ask again while somebody else's probe is under way."""


DEFAULT = BreakerPolicy()


class Slice(NamedTuple):
    """What happened in a tenth of the window."""

    began: datetime
    answered: int = 0
    failed: int = 0
    timed_out: int = 0
    first_timeout: datetime | None = None


@dataclass(frozen=True)
class BreakerState:
    """Where the breaker of one key stands. Its size is bounded."""

    phase: Phase = Phase.CLOSED
    slices: tuple[Slice, ...] = ()
    until: datetime | None = None
    """Open: until when. Half open: when the probe is taken for dead."""
    cause: Cause | None = None
    openings: int = 0
    """Since it was last closed."""
    probed_at: datetime | None = None
    """When the last probe went. Calls that are older say nothing about what it found."""
    cooling_until: datetime | None = None
    cooling_cause: Cause | None = None


@dataclass(frozen=True)
class Sample:
    """How a call ended."""

    outcome: Outcome
    timed_out: bool = False
    """The failure is ours to have given up waiting; counted apart."""
    began: datetime | None = None
    """When it was sent, at the latest; tells a probe from calls that were under way before it."""
    answered: bool = False
    """Whether anything of a reply came, whatever happened then."""
    retry_after: timedelta | None = None


class Ruling(NamedTuple):
    """A verdict and, when it is to refuse, until when and why."""

    verdict: Verdict
    until: datetime | None = None
    cause: Cause | None = None


def admit(
    state: BreakerState, now: datetime, policy: BreakerPolicy = DEFAULT, *, sole: bool = False
) -> tuple[BreakerState, Ruling]:
    """Whether a call may go now.

    Args:
        state: Where the breaker stands.
        now: The store's time.
        policy: The numbers.
        sole: There is no other deployment. An open breaker is then probed at once and again and again, one probe at a
            time; what the provider itself asked for, a pause or another key, is respected all the same.

    Returns:
        The new state and the ruling. With `PROBE`, whoever makes the new state the store's is the probe.
    """
    if state.cooling_until is not None and now < state.cooling_until:
        until, cause = state.cooling_until, state.cooling_cause
        if state.phase is Phase.OPEN and state.until is not None and state.until > until and not sole:
            until, cause = state.until, state.cause
        return state, Ruling(Verdict.REFUSE, until, cause)
    if state.phase is Phase.CLOSED:
        return state, Ruling(Verdict.ALLOW)
    until = state.until or now
    if state.phase is Phase.HALF_OPEN and now < until:
        return state, Ruling(Verdict.REFUSE, min(until, now + policy.look), Cause.PROBING)
    if state.phase is Phase.OPEN and now < until:
        if not sole or state.cause in (Cause.BILLING, Cause.AUTHENTICATION):
            return state, Ruling(Verdict.REFUSE, until, state.cause)
        pace = now if state.probed_at is None else state.probed_at + policy.sole_every
        if now < pace:
            return state, Ruling(Verdict.REFUSE, min(pace, until), state.cause)
    probing = replace(state, phase=Phase.HALF_OPEN, until=now + policy.probe_ttl, probed_at=now)
    return probing, Ruling(Verdict.PROBE, probing.until, state.cause)


def record(state: BreakerState, sample: Sample, now: datetime, policy: BreakerPolicy = DEFAULT) -> BreakerState:
    """The state after a call has ended."""
    outcome = sample.outcome
    if outcome is Outcome.RATE_LIMITED or (outcome.counts_against_health and sample.retry_after is not None):
        cause = Cause.RATE_LIMITED if outcome is Outcome.RATE_LIMITED else Cause.PAUSED
        state = cool_down(state, now + (sample.retry_after or policy.cooldown), cause, now)
    outdated = sample.began is not None and state.probed_at is not None and sample.began < state.probed_at
    if state.phase is Phase.HALF_OPEN and not outdated:
        return _probed(state, sample, now, policy)
    if outcome in (Outcome.BILLING, Outcome.AUTHENTICATION):
        return _refuse_key(state, sample, now, policy)
    if state.phase is Phase.OPEN and outcome.counts_against_health and not sample.timed_out:
        # Calls that were under way when it opened: the deployment is still failing now.
        again = now + _open_for(state.openings, policy)
        return state if state.until is not None and state.until >= again else replace(state, until=again)
    if state.phase is not Phase.CLOSED or outdated or outcome is Outcome.RATE_LIMITED:
        return state
    if outcome is Outcome.CANCELLED and not sample.answered:
        return state
    return _counted(state, sample, now, policy)


def cool_down(state: BreakerState, until: datetime, cause: Cause, now: datetime) -> BreakerState:
    """Leave a key alone until then; a pause is extended by another and never shortened."""
    until = min(until, now + LONGEST_PAUSE)
    if state.cooling_until is not None and state.cooling_until >= until:
        return state
    return replace(state, cooling_until=until, cooling_cause=cause)


def _probed(state: BreakerState, sample: Sample, now: datetime, policy: BreakerPolicy) -> BreakerState:
    outcome = sample.outcome
    if outcome in (Outcome.BILLING, Outcome.AUTHENTICATION):
        return _refuse_key(state, sample, now, policy)
    if outcome is Outcome.RATE_LIMITED:
        # It answers, and not yet to us: the pause decides when the next probe goes.
        return replace(state, phase=Phase.OPEN, until=max(now, state.cooling_until or now), cause=Cause.RATE_LIMITED)
    if outcome is Outcome.CANCELLED and not sample.answered:
        return replace(state, phase=Phase.OPEN, until=now)
    if outcome.counts_against_health:
        openings = state.openings + 1
        until = now + _open_for(openings, policy)
        return replace(state, phase=Phase.OPEN, until=until, cause=Cause.PROBE_FAILED, openings=openings)
    return BreakerState(probed_at=state.probed_at, cooling_until=state.cooling_until, cooling_cause=state.cooling_cause)


def _refuse_key(state: BreakerState, sample: Sample, now: datetime, policy: BreakerPolicy) -> BreakerState:
    cause = Cause.BILLING if sample.outcome is Outcome.BILLING else Cause.AUTHENTICATION
    until = now + min(sample.retry_after or policy.refused_for, LONGEST_PAUSE)
    if state.phase is Phase.OPEN and state.until is not None:
        until = max(until, state.until)
    return replace(state, phase=Phase.OPEN, until=until, cause=cause, openings=max(state.openings, 1), slices=())


def _open_for(openings: int, policy: BreakerPolicy) -> timedelta:
    factor: int = policy.growth ** min(max(openings - 1, 0), 32)
    if factor >= policy.open_at_most / policy.open_for:
        return policy.open_at_most
    return policy.open_for * factor


def _counted(state: BreakerState, sample: Sample, now: datetime, policy: BreakerPolicy) -> BreakerState:
    recent = [piece for piece in state.slices if piece.began > now - policy.window]
    newest = recent.pop() if recent and now - recent[-1].began < policy.window / SLICES else Slice(now)
    if not sample.outcome.counts_against_health:
        newest = newest._replace(answered=newest.answered + 1)
    elif sample.timed_out:
        newest = newest._replace(timed_out=newest.timed_out + 1, first_timeout=newest.first_timeout or now)
    else:
        newest = newest._replace(failed=newest.failed + 1)
    state = replace(state, slices=(*recent, newest))
    answered = sum(piece.answered for piece in state.slices)
    failed = sum(piece.failed for piece in state.slices)
    timed_out = sum(piece.timed_out for piece in state.slices)
    if not sample.outcome.counts_against_health:
        return state
    if _too_many(failed, answered + failed, policy):
        cause = Cause.FAILURES
    elif (
        sample.timed_out
        and _span(state.slices, now) >= policy.timeout_span
        and _too_many(failed + timed_out, answered + failed + timed_out, policy)
    ):
        cause = Cause.TIMEOUTS
    else:
        return state
    until = now + _open_for(1, policy)
    return replace(state, phase=Phase.OPEN, until=until, cause=cause, openings=1, slices=())


def _too_many(failures: int, calls: int, policy: BreakerPolicy) -> bool:
    return calls >= policy.minimum_calls and failures >= policy.failure_rate * calls


def _span(slices: tuple[Slice, ...], now: datetime) -> timedelta:
    firsts = [piece.first_timeout for piece in slices if piece.first_timeout is not None]
    return now - min(firsts) if firsts else timedelta(0)
