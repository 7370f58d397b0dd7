"""The breaker: example by example, and for any sequence of calls."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from holdfast.breaker import (
    DEFAULT,
    SLICES,
    BreakerState,
    Cause,
    Phase,
    Ruling,
    Sample,
    Verdict,
    admit,
    cool_down,
    record,
)
from holdfast.errors import Outcome

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
FAILED = Sample(Outcome.OVERLOADED)
OK = Sample(Outcome.OK)
TIMED_OUT = Sample(Outcome.UNKNOWN, timed_out=True)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def after(*samples: Sample, every: float = 1.0, state: BreakerState | None = None) -> BreakerState:
    state = state or BreakerState()
    for number, sample in enumerate(samples):
        state = record(state, sample, at(number * every))
    return state


def opened() -> BreakerState:
    """Open since second 4, until second 19."""
    return after(*[FAILED] * 5)


def verdict(state: BreakerState, seconds: float, *, sole: bool = False) -> Ruling:
    return admit(state, at(seconds), sole=sole)[1]


def test_it_opens_with_enough_calls_of_which_enough_failed() -> None:
    assert after(*[FAILED] * 4).phase is Phase.CLOSED
    state = after(*[FAILED] * 5)
    assert (state.phase, state.cause, state.until) == (Phase.OPEN, Cause.FAILURES, at(4 + 15))
    assert verdict(state, 5) == Ruling(Verdict.REFUSE, at(19), Cause.FAILURES)


def test_a_minority_of_failures_does_not_open_it() -> None:
    assert after(*[OK, OK, FAILED] * 20).phase is Phase.CLOSED
    assert after(*[OK] * 5, *[FAILED] * 4).phase is Phase.CLOSED
    assert after(*[OK] * 5, *[FAILED] * 5).phase is Phase.OPEN


def test_failures_outside_the_window_are_forgotten() -> None:
    assert after(*[FAILED] * 20, every=9.0).phase is Phase.CLOSED


@pytest.mark.parametrize(
    "outcome", [Outcome.INVALID_REQUEST, Outcome.CONTEXT_LENGTH, Outcome.CONTENT_FILTER, Outcome.CANCELLED]
)
def test_what_is_the_callers_doing_never_opens_it(outcome: Outcome) -> None:
    assert after(*[Sample(outcome)] * 50).phase is Phase.CLOSED


def test_timeouts_in_one_moment_do_not_open_it_and_over_a_while_they_do() -> None:
    """A stalled event loop times out any number of calls at once."""
    stalled = after(*[TIMED_OUT] * 500, every=0.001)
    assert stalled.phase is Phase.CLOSED
    over_a_while = after(*[TIMED_OUT] * 6, every=2.0)
    assert (over_a_while.phase, over_a_while.cause) == (Phase.OPEN, Cause.TIMEOUTS)


def test_timeouts_of_one_stall_do_not_lend_weight_to_a_single_failure() -> None:
    state = after(*[TIMED_OUT] * 50, every=0.001)
    assert record(state, FAILED, at(20)).phase is Phase.CLOSED


def test_after_its_time_one_probe_goes_and_nobody_else() -> None:
    state, ruling = admit(opened(), at(19))
    assert ruling.verdict is Verdict.PROBE
    for _ in range(3):
        state, other = admit(state, at(20), sole=True)
        assert other == Ruling(Verdict.REFUSE, at(21), Cause.PROBING)


def test_a_probe_that_is_answered_closes_it() -> None:
    probing, _ = admit(opened(), at(19))
    closed = record(probing, Sample(Outcome.OK, began=at(19)), at(22))
    assert verdict(closed, 22) == Ruling(Verdict.ALLOW)
    assert record(closed, FAILED, at(23)).phase is Phase.CLOSED


def test_an_answer_that_is_no_success_still_shows_that_it_lives() -> None:
    probing, _ = admit(opened(), at(19))
    assert record(probing, Sample(Outcome.INVALID_REQUEST, began=at(19)), at(20)).phase is Phase.CLOSED


def test_a_probe_that_fails_opens_it_for_longer_up_to_a_bound() -> None:
    state, now, spans = opened(), at(19), []
    for _ in range(8):
        state, ruling = admit(state, now)
        assert ruling.verdict is Verdict.PROBE
        state = record(state, Sample(Outcome.UNKNOWN, began=now, timed_out=True), now)
        assert state.until is not None
        spans.append((state.until - now).total_seconds())
        now = state.until
    assert spans == [30, 60, 120, 240, 300, 300, 300, 300]


def test_a_probe_that_never_reports_lapses() -> None:
    state, _ = admit(opened(), at(19))
    assert verdict(state, 19 + 59).verdict is Verdict.REFUSE
    state, ruling = admit(state, at(19 + 60))
    assert ruling.verdict is Verdict.PROBE
    assert verdict(state, 19 + 61).verdict is Verdict.REFUSE


def test_a_cancelled_probe_says_nothing_and_the_next_goes_at_once() -> None:
    probing, _ = admit(opened(), at(19))
    state = record(probing, Sample(Outcome.CANCELLED, began=at(19)), at(20))
    assert verdict(state, 20).verdict is Verdict.PROBE


def test_a_cancelled_probe_that_had_an_answer_closes_it() -> None:
    probing, _ = admit(opened(), at(19))
    assert record(probing, Sample(Outcome.CANCELLED, began=at(19), answered=True), at(20)).phase is Phase.CLOSED


def test_calls_older_than_the_probe_do_not_speak_for_it() -> None:
    probing, _ = admit(opened(), at(19))
    assert record(probing, Sample(Outcome.OK, began=at(3)), at(20)) == probing
    assert record(probing, Sample(Outcome.OVERLOADED, began=at(3)), at(20)) == probing


def test_calls_older_than_the_probe_do_not_open_it_again() -> None:
    probing, _ = admit(opened(), at(19))
    state = record(probing, Sample(Outcome.OK, began=at(19)), at(20))
    for _ in range(50):
        state = record(state, Sample(Outcome.OVERLOADED, began=at(18)), at(21))
    assert state.phase is Phase.CLOSED


def test_a_later_failure_extends_the_deadline_and_an_earlier_one_never_shortens_it() -> None:
    state = record(opened(), FAILED, at(10))
    assert state.until == at(25)
    assert record(state, FAILED, at(9)).until == at(25)


def test_a_rate_limit_pauses_for_as_long_as_it_asks_and_needs_no_probe() -> None:
    state = record(BreakerState(), Sample(Outcome.RATE_LIMITED, retry_after=timedelta(seconds=7)), at(0))
    assert verdict(state, 6.9, sole=True) == Ruling(Verdict.REFUSE, at(7), Cause.RATE_LIMITED)
    assert verdict(state, 7) == Ruling(Verdict.ALLOW)


def test_a_pause_is_extended_and_never_shortened() -> None:
    state = record(BreakerState(), Sample(Outcome.RATE_LIMITED, retry_after=timedelta(seconds=60)), at(0))
    shorter = record(state, Sample(Outcome.RATE_LIMITED, retry_after=timedelta(seconds=1)), at(1))
    assert shorter.cooling_until == at(60)
    longer = record(shorter, Sample(Outcome.RATE_LIMITED, retry_after=timedelta(seconds=60)), at(2))
    assert longer.cooling_until == at(62)


def test_a_rate_limit_without_a_time_pauses_for_five_seconds() -> None:
    state = record(BreakerState(), Sample(Outcome.RATE_LIMITED), at(0))
    assert state.cooling_until == at(5)


def test_rate_limits_never_open_it() -> None:
    assert after(*[Sample(Outcome.RATE_LIMITED)] * 50).phase is Phase.CLOSED


def test_rate_limits_do_not_hide_failures() -> None:
    assert after(*[Sample(Outcome.RATE_LIMITED)] * 20, *[FAILED] * 5, every=0.5).phase is Phase.OPEN


def test_an_overloaded_deployment_that_says_how_long_is_left_alone_so_long() -> None:
    state = record(BreakerState(), Sample(Outcome.OVERLOADED, retry_after=timedelta(seconds=40)), at(0))
    assert verdict(state, 39) == Ruling(Verdict.REFUSE, at(40), Cause.PAUSED)


def test_an_absurd_pause_is_not_believed() -> None:
    state = cool_down(BreakerState(), at(10**8), Cause.RATE_LIMITED, at(0))
    assert state.cooling_until == at(24 * 3600)


@pytest.mark.parametrize("outcome", [Outcome.BILLING, Outcome.AUTHENTICATION])
def test_a_refused_key_is_open_for_five_minutes_and_is_then_probed(outcome: Outcome) -> None:
    state = record(BreakerState(), Sample(outcome), at(0))
    assert verdict(state, 299, sole=True).verdict is Verdict.REFUSE
    assert verdict(state, 300).verdict is Verdict.PROBE


def test_a_used_up_quota_is_open_until_it_resets() -> None:
    state = record(BreakerState(), Sample(Outcome.BILLING, retry_after=timedelta(hours=2)), at(0))
    assert verdict(state, 7199) == Ruling(Verdict.REFUSE, at(7200), Cause.BILLING)


def test_a_sole_deployment_is_probed_at_once_again_and_again_but_one_at_a_time() -> None:
    state, ruling = admit(opened(), at(5), sole=True)
    assert ruling.verdict is Verdict.PROBE
    assert verdict(state, 5.5, sole=True).verdict is Verdict.REFUSE
    state = record(state, Sample(Outcome.OVERLOADED, began=at(5)), at(5.2))
    assert verdict(state, 5.5, sole=True) == Ruling(Verdict.REFUSE, at(6), Cause.PROBE_FAILED)
    assert verdict(state, 6, sole=True).verdict is Verdict.PROBE
    assert verdict(state, 6).verdict is Verdict.REFUSE


@dataclass
class Underway:
    began: datetime
    probe: bool


class Traffic(RuleBasedStateMachine):
    """Any calls, ending in any way and order, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.state = BreakerState()
        self.now = START
        self.underway: list[Underway] = []
        self.ended: list[tuple[datetime, Sample]] = []

    @rule(sole=st.booleans())
    def a_call_asks(self, sole: bool) -> None:
        before = self.state
        self.state, ruling = admit(self.state, self.now, sole=sole)
        if ruling.verdict is Verdict.REFUSE:
            assert ruling.until is not None
            assert ruling.until > self.now
            assert self.state == before
            return
        if ruling.verdict is Verdict.PROBE:
            others = [call for call in self.underway if call.probe and self.now < call.began + DEFAULT.probe_ttl]
            assert not others, "one probe at a time"
            assert before.phase is not Phase.CLOSED
        else:
            assert before.phase is Phase.CLOSED
        assert before.cooling_until is None or before.cooling_until <= self.now
        self.underway.append(Underway(self.now, ruling.verdict is Verdict.PROBE))

    @precondition(lambda self: self.underway)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Outcome.OK, Outcome.OVERLOADED, Outcome.UNKNOWN]) | st.sampled_from(Outcome),
        timed_out=st.booleans(),
        retry_after=st.none() | st.none() | st.timedeltas(timedelta(seconds=1), timedelta(minutes=10)),
    )
    def a_call_ends(
        self, data: st.DataObject, outcome: Outcome, timed_out: bool, retry_after: timedelta | None
    ) -> None:
        call = self.underway.pop(data.draw(st.integers(0, len(self.underway) - 1)))
        sample = Sample(
            outcome,
            timed_out=timed_out and outcome is Outcome.UNKNOWN,
            began=call.began,
            retry_after=retry_after,
            answered=outcome is Outcome.OK,
        )
        before = self.state
        self.state = record(self.state, sample, self.now)
        self.ended.append((self.now, sample))
        if before.phase is Phase.CLOSED and self.state.phase is Phase.OPEN:
            self.check_opening(sample)
        if self.state.phase is Phase.CLOSED and before.phase is not Phase.CLOSED:
            assert call.probe, "only a probe closes it"
        if before.cooling_until is not None:
            assert self.state.cooling_until is not None
            assert self.state.cooling_until >= before.cooling_until
        if before.phase is Phase.OPEN and self.state.phase is Phase.OPEN and before.until is not None:
            assert self.state.until is not None
            assert self.state.until >= before.until

    def check_opening(self, last: Sample) -> None:
        if last.outcome in (Outcome.BILLING, Outcome.AUTHENTICATION):
            return
        assert last.outcome.counts_against_health
        recent = [(moment, sample) for moment, sample in self.ended if moment > self.now - DEFAULT.window]
        failures = [sample for _, sample in recent if sample.outcome.counts_against_health]
        assert len(recent) >= DEFAULT.minimum_calls
        assert len(failures) >= DEFAULT.minimum_calls * DEFAULT.failure_rate
        if self.state.cause is Cause.TIMEOUTS:
            timeouts = [moment for moment, sample in recent if sample.timed_out]
            assert timeouts[-1] - timeouts[0] >= DEFAULT.timeout_span
        else:
            hard = [sample for sample in failures if not sample.timed_out]
            assert len(hard) >= DEFAULT.minimum_calls * DEFAULT.failure_rate

    @rule(seconds=st.sampled_from([0.0, 0.2, 1, 3, 5, 15, 30, 61, 300]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def its_size_is_bounded(self) -> None:
        assert len(self.state.slices) <= SLICES + 1

    @invariant()
    def it_is_always_probed_in_the_end(self) -> None:
        """Whatever happened, whoever keeps asking gets through within the longest pause."""
        state, now = self.state, self.now
        for _ in range(400):
            _, ruling = admit(state, now)
            if ruling.verdict is not Verdict.REFUSE:
                break
            assert ruling.until is not None
            now = ruling.until
        assert ruling.verdict is not Verdict.REFUSE
        assert now <= self.now + max(DEFAULT.open_at_most, DEFAULT.probe_ttl, timedelta(minutes=10))


def test_for_any_traffic_one_probe_goes_at_a_time_and_it_opens_for_a_reason_and_comes_back() -> None:
    run_state_machine_as_test(Traffic, settings=settings(max_examples=200, stateful_step_count=60, deadline=None))
