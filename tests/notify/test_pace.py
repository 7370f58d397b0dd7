"""When the next attempt comes: later every time, never earlier than asked, and not for ever."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.notify import Pace, next_wait

DAY = timedelta(days=1)
spans = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))
paces = st.builds(Pace, timeout=spans, first_wait=spans, longest_wait=spans, give_up_after=spans)
parts = st.floats(0, 1)


def test_a_receiver_that_is_away_for_a_day_is_asked_a_dozen_times() -> None:
    waited, waits = timedelta(0), []
    while (wait := next_wait(Pace(), waited)) is not None:
        waits.append(wait)
        waited += wait
    assert [wait.total_seconds() for wait in waits[:6]] == [5, 15, 60, 240, 960, 3840]
    assert len(waits) == 12
    assert waited == DAY


@given(paces, st.lists(parts, max_size=50))
def test_every_notification_is_given_up_at_its_time(pace: Pace, spreads: list[float]) -> None:
    waited, attempts = timedelta(0), 1
    while (wait := next_wait(pace, waited, spread=spreads[attempts % len(spreads)] if spreads else 0.0)) is not None:
        assert wait > timedelta(0)
        waited, attempts = waited + wait, attempts + 1
        assert waited <= pace.give_up_after
        if attempts > 100:
            # However short the waits, they grow to the longest or quadruple.
            assert wait >= pace.longest_wait or wait >= pace.first_wait
            break


@given(paces, spans, spans, parts)
def test_nobody_is_asked_again_earlier_than_they_said(
    pace: Pace, waited: timedelta, asked: timedelta, spread: float
) -> None:
    wait = next_wait(pace, waited, asked=asked, spread=spread)
    if wait is None:
        assert waited + asked > pace.give_up_after or waited >= pace.give_up_after
    else:
        assert wait >= asked
        assert waited + wait <= pace.give_up_after


def test_a_receiver_that_asks_for_longer_than_a_notification_lives_is_given_up() -> None:
    assert next_wait(Pace(), timedelta(hours=1), asked=timedelta(hours=23)) == timedelta(hours=23)
    assert next_wait(Pace(), timedelta(hours=1), asked=timedelta(hours=24)) is None
