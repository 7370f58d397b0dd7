"""The search for the nearest deadlines among many questions that wait."""

import asyncio
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine import parked

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DEADLINES = st.lists(
    st.one_of(st.integers(-3_600, 3_600), st.integers(-30_000_000, 30_000_000), st.just(60)).map(
        lambda seconds: NOW + timedelta(seconds=seconds)
    ),
    max_size=120,
)


GUESSES = st.none() | st.integers(-3_600, 3_600).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(DEADLINES, st.integers(0, 100), st.integers(1, 30), GUESSES)
def test_the_window_holds_what_is_looked_for_and_little_else(
    deadlines: list[datetime], offset: int, limit: int, guess: datetime | None
) -> None:
    asked = []

    async def count_until(moment: datetime | None) -> int:
        asked.append(moment)
        return sum(moment is None or deadline <= moment for deadline in deadlines)

    found = asyncio.run(parked.window(count_until, offset, limit, NOW, guess))
    ordered = sorted(deadlines)
    after, until = found.after or ordered[0] - timedelta(1) if ordered else NOW, found.until
    inside = [deadline for deadline in ordered if deadline > after and (until is None or deadline <= until)]
    assert len(inside) == found.within - found.before
    assert inside[offset - found.before :][:limit] == ordered[offset : offset + limit]
    edges = [ordered[place] for place in (offset, offset + limit - 1) if place < len(ordered)]
    same = sum(any(abs(deadline - edge) <= 2 * timedelta(milliseconds=1) for edge in edges) for deadline in deadlines)
    assert len(inside) <= limit + 2 * (parked.SPARE + limit // 4) + same
    assert len(asked) <= 180


@given(DEADLINES, st.integers(1, 30))
def test_where_the_last_search_ended_is_found_again_with_one_count(deadlines: list[datetime], limit: int) -> None:
    asked = []

    async def count_until(moment: datetime | None) -> int:
        asked.append(moment)
        return sum(moment is None or deadline <= moment for deadline in deadlines)

    found = asyncio.run(parked.window(count_until, 0, limit, NOW))
    asked.clear()
    assert asyncio.run(parked.window(count_until, 0, limit, NOW, found.until)) == found
    crowded = found.within > limit + parked.SPARE + limit // 4
    assert crowded or len(asked) <= 2
