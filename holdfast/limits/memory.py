"""The limiter of one process."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta

from holdfast.limits.protocol import Admitted, Dimension, Scope, Wait
from holdfast.limits.window import Meter, Timing, distinct, limits_for

MANY_SCOPES = 1_024


class MemoryLimiter:
    """Keeps the limits of calls that all leave from this process.

    Args:
        clock: Seconds that never go back.
        window: What the limits per minute are measured over. Shorter is smoother, and leaves less room for large calls.
        slot_ttl: After this long a concurrency slot that is neither renewed nor settled is free again.
        lapse: How long after its moment a ticket may come back to its place.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        window: timedelta = timedelta(minutes=1),
        slot_ttl: timedelta = timedelta(minutes=1),
        lapse: timedelta = timedelta(seconds=30),
    ) -> None:
        self._clock = clock
        self._timing = Timing.of(window, slot_ttl, lapse)
        self._meters: dict[str, Meter] = {}
        self._calls: OrderedDict[str, int] = OrderedDict()
        self._admissions = itertools.count(1)
        self._numbers = itertools.count(1)
        self._sweep_at = MANY_SCOPES

    async def admit(self, ticket: str, scopes: Sequence[Scope], tokens: int) -> Admitted | Wait:
        """Take what a call needs in every scope, or a place in line."""
        limited = distinct(scopes)
        if not limited:
            return Admitted(ticket, "", (), tokens, 0)
        limits = [limits_for(scope, self._timing, tokens) for scope in limited]
        now = int(self._clock() * 1_000_000)
        self._forget(now)
        meters = [self._meter(scope.key) for scope in limited]
        number: int | None = None
        for meter in meters:
            meter.advance(now)
            if meter.line.numbers:
                number = meter.line.numbers.get(ticket, number)
        obstacles = [meter.obstacle(number, bounds, tokens, now) for meter, bounds in zip(meters, limits, strict=True)]
        if any(obstacles):
            if number is None:
                number = next(self._numbers)
            return self._wait(ticket, number, limited, meters, obstacles, tokens, now)
        call = f"{ticket}/{next(self._admissions)}"
        for meter, bounds in zip(meters, limits, strict=True):
            meter.take(ticket, call, bounds, tokens, now)
        self._calls[call] = now + self._timing.call_ttl
        return Admitted(ticket, call, limited, tokens, now)

    def _wait(
        self,
        ticket: str,
        number: int,
        scopes: Sequence[Scope],
        meters: Sequence[Meter],
        obstacles: Sequence[tuple[int, Dimension] | None],
        tokens: int,
        now: int,
    ) -> Wait:
        turn, key, dimension = -1, "", Dimension.REQUESTS
        for scope, meter, obstacle in zip(scopes, meters, obstacles, strict=True):
            if obstacle is None:
                continue
            meter.line.join(ticket, number, tokens)
            if obstacle[0] > turn:
                turn, key, dimension = obstacle[0], scope.key, obstacle[1]
        wait = self._timing.wait(turn, number)
        for meter in meters:
            meter.line.keep_until(ticket, now + wait + self._timing.lapse)
        return Wait(
            duration=timedelta(microseconds=wait),
            scope=key,
            dimension=dimension,
            turn=timedelta(microseconds=max(turn, wait)),
        )

    async def settle(self, admitted: Admitted, actual_tokens: int | None) -> None:
        """Free the slots and correct the tokens; a second time does nothing."""
        now = int(self._clock() * 1_000_000)
        self._forget(now)
        if self._calls.pop(admitted.call, None) is None:
            return
        for scope in admitted.scopes:
            meter = self._meter(scope.key)
            meter.advance(now)
            counted = actual_tokens if scope.tokens_per_minute is not None else None
            meter.settle(admitted.call, admitted.tokens, counted, admitted.at, now)

    async def renew(self, admitted: Admitted) -> None:
        """Keep the slots of a call that is still running."""
        now = int(self._clock() * 1_000_000)
        self._forget(now)
        if self._calls.pop(admitted.call, None) is None:
            return
        self._calls[admitted.call] = now + self._timing.call_ttl
        for scope in admitted.scopes:
            if scope.concurrency is not None:
                meter = self._meter(scope.key)
                meter.advance(now)
                meter.slots[admitted.call] = now + self._timing.slot_ttl
                meter.slots.move_to_end(admitted.call)

    async def withdraw(self, ticket: str, scopes: Sequence[Scope]) -> None:
        """Give a place in line back at once."""
        for scope in scopes:
            if scope.key in self._meters:
                self._meters[scope.key].line.leave(ticket)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _meter(self, key: str) -> Meter:
        meter = self._meters.get(key)
        if meter is None:
            if len(self._meters) >= self._sweep_at:
                self._sweep()
            meter = self._meters[key] = Meter(self._timing)
        return meter

    def _sweep(self) -> None:
        """Forget scopes that nobody uses: their keys may be the names of tenants, of which there are many."""
        now = int(self._clock() * 1_000_000)
        for key, meter in list(self._meters.items()):
            meter.advance(now)
            if meter.idle:
                del self._meters[key]
        self._sweep_at = max(MANY_SCOPES, 2 * len(self._meters))

    def _forget(self, now: int) -> None:
        while self._calls:
            oldest = next(iter(self._calls))
            if self._calls[oldest] > now:
                return
            del self._calls[oldest]
