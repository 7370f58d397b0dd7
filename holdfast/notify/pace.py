"""When the next attempt comes, as one pure function.

The wait depends only on how long a notification has been on its way, not on a count: four times as long at every
attempt, so about 5 s, 20 s, 80 s, 5 min, 21 min, 85 min after the first one and then every four hours, for a day. A
target that was away for a minute hears of it a minute late, and one that is away for a night is asked a dozen times.
"""

from datetime import timedelta

from holdfast.notify.configuration import Pace

GROWTH = 4


def next_wait(
    pace: Pace, waited: timedelta, *, asked: timedelta | None = None, spread: float = 0.0
) -> timedelta | None:
    """How long to wait before the next attempt.

    Args:
        pace: The settings.
        waited: How long the notification has been on its way.
        asked: What the target asked for with Retry-After; it is not asked again earlier.
        spread: At random, lengthens the wait by this part of it, so that not all come at once.

    Returns:
        The wait, or `None` when the notification is given up now.
    """
    left = pace.give_up_after - waited
    if left <= timedelta(0) or (asked is not None and asked > left):
        return None
    grown = max(pace.first_wait, min((GROWTH - 1) * waited, pace.longest_wait))
    spaced = min(grown * (1 + spread), left)
    return spaced if asked is None else max(spaced, asked)
