"""The health of deployments as one process sees it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from holdfast.breaker import DEFAULT, BreakerPolicy, Verdict, admit
from holdfast.errors import Outcome
from holdfast.health.protocol import Admission, Condition
from holdfast.health.vitals import Report, Vitals


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryHealth:
    """Keeps breakers and speeds in this process.

    Args:
        policy: When a breaker opens and for how long.
        clock: The time, aware.
    """

    def __init__(self, policy: BreakerPolicy = DEFAULT, clock: Callable[[], datetime] = _now) -> None:
        self._policy = policy
        self._clock = clock
        self._vitals: dict[str, Vitals] = {}
        self._in_flight: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget everything: every key is taken for well, as at the start."""
        self._vitals.clear()
        self._in_flight.clear()

    async def admit(self, key: str, *, sole: bool = False) -> Admission:
        """Whether a call may go."""
        vitals = self._vitals.get(key, Vitals())
        breaker, ruling = admit(vitals.breaker, self._clock(), self._policy, sole=sole)
        self._vitals[key] = replace(vitals, breaker=breaker)
        if ruling.verdict is not Verdict.REFUSE:
            self._in_flight[key] += 1
        return Admission(ruling.verdict, ruling.until, ruling.cause)

    async def record(
        self,
        key: str,
        outcome: Outcome,
        *,
        first_token: timedelta | None,
        duration: timedelta | None,
        output_tokens: int = 0,
        retry_after: timedelta | None = None,
        timed_out: bool = False,
    ) -> None:
        """How an admitted call ended."""
        report = Report(outcome, first_token, duration, output_tokens, retry_after, timed_out)
        self._vitals[key] = self._vitals.get(key, Vitals()).after(report, self._clock(), self._policy)
        self._in_flight[key] = max(0, self._in_flight[key] - 1)

    async def look(self, keys: Sequence[str]) -> dict[str, Condition]:
        """What is known."""
        now = self._clock()
        return {key: self._vitals.get(key, Vitals()).condition(now, self._in_flight[key]) for key in keys}

    async def aclose(self) -> None:
        """Nothing to let go of."""
