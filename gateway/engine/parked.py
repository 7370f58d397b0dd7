"""Narrows the search for the nearest deadlines, because the engine's index counts quickly but cannot sort by them.

With 1,000 runs parked on the development server, a count takes 2 to 7 ms and reading a run 0.6 ms, so it pays to count
a dozen times and to read little more than is shown.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple

SPARE = 8
"""So many runs more than needed, and a quarter of those shown, may be read and sorted here."""

_LONGEST = timedelta(days=366)
"""No request may wait longer."""
_FINEST = timedelta(milliseconds=1)
"""Closer together, deadlines count as the same."""

CountUntil = Callable[[datetime | None], Awaitable[int]]
"""How many have a deadline up to a moment; of `None`, how many there are at all."""


class Window(NamedTuple):
    """A stretch of time that holds what is looked for, and not much else."""

    after: datetime | None
    before: int
    """How many deadlines lie up to `after`; none of what is looked for is among them."""
    until: datetime | None
    within: int
    """How many deadlines lie up to `until`, those up to `after` included."""


async def window(
    count_until: CountUntil, offset: int, limit: int, now: datetime, guess: datetime | None = None
) -> Window:
    """The stretch of time with the deadlines from the `offset`-th nearest on, `limit` of them.

    Args:
        count_until: Asks the index.
        offset: How many of the nearest to leave out.
        limit: How many are wanted.
        now: Where the search begins; most deadlines lie a little after it.
        guess: Where an earlier search ended. Little changes between two looks at a list, so it serves as a rule, and
            then one count does for the five of a search.
    """
    spare = SPARE + limit // 4
    everything = await count_until(None)
    after, before = None, 0
    if offset > spare:
        early, late = await _cut(count_until, everything, offset - spare, offset, now)
        after, before = late if late.moment is not None and late.within <= offset else early
    if everything <= offset + limit + spare:
        return Window(after, before, None, everything)
    least, most = offset + limit, offset + limit + spare
    if guess is not None and least <= (within := await count_until(guess)) <= most:
        return Window(after, before, guess, within)
    _, late = await _cut(count_until, everything, least, most, now)
    return Window(after, before, *late)


class _Mark(NamedTuple):
    moment: datetime | None
    within: int


async def _cut(count_until: CountUntil, everything: int, least: int, most: int, now: datetime) -> tuple[_Mark, _Mark]:
    """Two moments, the earlier with fewer than `least` deadlines before it, the later with at least so many.

    The later one has at most `most`, unless more than that lie at the same moment.
    """
    beginning = now - _LONGEST
    early, late, reach = _Mark(None, 0), _Mark(now, await count_until(now)), timedelta(hours=1)
    while late.within < least:
        early = late
        if early.moment == now + _LONGEST:
            return early, _Mark(None, everything)
        moment = now + min(reach, _LONGEST)
        late, reach = _Mark(moment, await count_until(moment)), reach * 4
    evenly = True
    while late.within > most and late.moment is not None:
        start = early.moment or beginning
        if late.moment - start <= _FINEST:
            break
        # Deadlines lie evenly as a rule, which finds the place at once; halving finds it in any case.
        share = 0.5
        if evenly:
            share = min(0.95, max(0.05, ((least + most) / 2 - early.within) / (late.within - early.within)))
        evenly = not evenly
        middle = start + (late.moment - start) * share
        if (count := await count_until(middle)) >= least:
            late = _Mark(middle, count)
        else:
            early = _Mark(middle, count)
    return early, late
