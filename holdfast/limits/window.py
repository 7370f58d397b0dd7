"""The arithmetic of the limiter, without clock and without I/O: a sliding window, a line, and slots.

**Window.** Time is cut into buckets of 1/120 of the window. A call counts in the bucket it was admitted in until that
bucket lies a whole window back, so for at least one window and at most one bucket more. The sum of what counts never
passes the limit, hence no span as long as the window ever sees more than the limit, wherever it begins: there is no
burst at a window's border. The price is at most 1/120 of the throughput. Only tokens used beyond a reservation can
bring the sum above the limit; the next calls then wait for it.

**Line.** A call without room draws a number and stands in the line of each scope that refuses it. It is admitted when
there is room for itself *and* for everyone ahead, so nobody is overtaken at his expense and a large call is not starved
by small ones. Numbers are drawn once for all scopes: whoever holds the lowest is behind nobody anywhere, so calls of
several scopes never wait for each other in a circle. Whoever stands in line is told when to look again: at his turn, if
that is near, else after a part of the way, because calls ahead give back what they did not use.

All times are whole microseconds and all amounts whole numbers, so that `holdfast/limits/scripts.py` can do the very
same on the Redis server; a test drives both with the same operations.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from holdfast.limits.protocol import Dimension, Scope, TooLarge

BUCKETS = 120
CHUNK = 32
"""Numbers in line are summed in chunks: what is ahead of one is a few sums and less than a chunk of numbers."""
WHOLE = 10_000
"""The share of reserved tokens that calls use is kept in ten-thousandths."""
LEAST_WAIT_US = 20_000
FIRST_HOLD_US = 1_000_000
"""How long a slot is taken to be held until calls have shown it."""
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Timing:
    """The limiter's spans, in microseconds."""

    window: int
    slot_ttl: int
    lapse: int

    @staticmethod
    def of(window: timedelta, slot_ttl: timedelta, lapse: timedelta) -> "Timing":
        """From durations."""
        microsecond = timedelta(microseconds=1)
        return Timing(window // microsecond, slot_ttl // microsecond, lapse // microsecond)

    @property
    def bucket(self) -> int:
        """Length of a bucket, rounded up so that all buckets together are never less than the window."""
        return -(-self.window // BUCKETS)

    @property
    def look(self) -> int:
        """Up to this far a turn is waited for at once; beyond, it is looked for on the way."""
        return self.window // 12

    @property
    def call_ttl(self) -> int:
        """How long a call that is neither renewed nor settled is remembered."""
        return max(self.slot_ttl, self.window + 2 * self.bucket)

    def per_window(self, per_minute: int) -> int:
        """A limit per minute, for this window."""
        return per_minute * self.window // MINUTE_US

    def wait(self, turn: int, number: int) -> int:
        """How long to wait for a turn before looking again; by number it differs, lest all come at once."""
        if turn <= self.look:
            return max(turn, LEAST_WAIT_US)
        part = min(max(turn // 4, self.look), self.window)
        return min(part + part * (number % 16) // 64, turn)


@dataclass(frozen=True)
class Limits:
    """A scope's limits for one window; `None` is without limit."""

    requests: int | None
    tokens: int | None
    slots: int | None

    @staticmethod
    def of(scope: Scope, timing: Timing) -> "Limits":
        """What a scope allows in one window."""
        requests, tokens = scope.requests_per_minute, scope.tokens_per_minute
        return Limits(
            requests=None if requests is None else timing.per_window(requests),
            tokens=None if tokens is None else timing.per_window(tokens),
            slots=scope.concurrency,
        )


def distinct(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """The scopes that limit anything, each key once."""
    return tuple({scope.key: scope for scope in scopes if scope.limited}.values())


def limits_for(scope: Scope, timing: Timing, tokens: int) -> Limits:
    """A scope's limits, once it is known that a call of so many tokens can ever pass.

    Raises:
        TooLarge: It cannot.
    """
    limits = Limits.of(scope, timing)
    for dimension, needed, limit in (
        (Dimension.REQUESTS, 1, limits.requests),
        (Dimension.TOKENS, tokens, limits.tokens),
        (Dimension.CONCURRENCY, 1, limits.slots),
    ):
        if limit is not None and needed > limit:
            raise TooLarge(
                f"The call needs {needed} and scope {scope.key!r} allows {limit} {dimension.value}: shorten the prompt "
                f"or the reply limit, or raise the limit in `config/models.toml`",
                scope=scope.key,
                limit=limit,
                needed=needed,
            )
    return limits


@dataclass(slots=True)
class Window:
    """What counts now, by bucket."""

    amounts: dict[int, int] = field(default_factory=dict)
    used: int = 0

    def advance(self, bucket: int) -> None:
        """Forget what no longer counts."""
        amounts = self.amounts
        while amounts:
            oldest = next(iter(amounts))
            if bucket - oldest <= BUCKETS:
                return
            self.used -= amounts.pop(oldest)

    def add(self, bucket: int, amount: int) -> None:
        """Count something; a bucket that is not the newest must be there already."""
        self.amounts[bucket] = self.amounts.get(bucket, 0) + amount
        self.used += amount

    def correct(self, counted_in: int, bucket: int, difference: int) -> None:
        """Correct a reservation: where it was made while that counts, else only upwards and now."""
        if counted_in in self.amounts:
            self.add(counted_in, difference)
        elif difference > 0:
            self.add(bucket, difference)

    def turn(self, short: int, limit: int, now: int, length: int) -> int:
        """When `short` more will have been freed, if those ahead take their turns: microseconds from now."""
        period = (BUCKETS + 1) * length
        rounds, rest = divmod(short - 1, limit)
        rest += 1
        for bucket, amount in self.amounts.items():
            rest -= amount
            if rest <= 0:
                return rounds * period + (bucket + BUCKETS + 1) * length - now
        return rounds * period + period


@dataclass(slots=True)
class Line:
    """Who waits for one scope, in the order of the numbers drawn."""

    numbers: dict[str, int] = field(default_factory=dict)
    needs: dict[int, int] = field(default_factory=dict)
    chunks: dict[int, tuple[int, int]] = field(default_factory=dict)
    lapses: dict[str, int] = field(default_factory=dict)
    agenda: list[tuple[int, str]] = field(default_factory=list)
    tokens: int = 0

    def join(self, ticket: str, number: int, tokens: int) -> None:
        """Take the place of the number, unless the ticket stands there already."""
        if ticket in self.numbers:
            return
        self.numbers[ticket] = number
        self.needs[number] = tokens
        people, sum_of_tokens = self.chunks.get(number // CHUNK, (0, 0))
        self.chunks[number // CHUNK] = (people + 1, sum_of_tokens + tokens)
        self.tokens += tokens

    def leave(self, ticket: str) -> None:
        """Give the place up, if there is one."""
        number = self.numbers.pop(ticket, None)
        if number is None:
            return
        self.lapses.pop(ticket, None)
        tokens = self.needs.pop(number)
        people, sum_of_tokens = self.chunks[number // CHUNK]
        if people == 1:
            del self.chunks[number // CHUNK]
        else:
            self.chunks[number // CHUNK] = (people - 1, sum_of_tokens - tokens)
        self.tokens -= tokens

    def keep_until(self, ticket: str, lapse: int) -> None:
        """Keep a place until then."""
        if ticket in self.numbers:
            self.lapses[ticket] = lapse
            heapq.heappush(self.agenda, (lapse, ticket))

    def advance(self, now: int) -> None:
        """Give up the places of those who did not come back."""
        while self.agenda and self.agenda[0][0] <= now:
            lapse, ticket = heapq.heappop(self.agenda)
            if self.lapses.get(ticket) == lapse:
                self.leave(ticket)

    def ahead(self, number: int | None) -> tuple[int, int]:
        """How many are ahead of a number, and their tokens; of one not yet drawn, everyone."""
        if number is None:
            return len(self.numbers), self.tokens
        people = tokens = 0
        for chunk, (chunk_people, chunk_tokens) in self.chunks.items():
            if chunk < number // CHUNK:
                people += chunk_people
                tokens += chunk_tokens
        for before in range(number - number % CHUNK, number):
            need = self.needs.get(before)
            if need is not None:
                people += 1
                tokens += need
        return people, tokens


@dataclass(slots=True)
class Meter:
    """All that is counted for one scope."""

    timing: Timing
    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    line: Line = field(default_factory=Line)
    slots: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Calls by when their slot frees itself; every slot lives equally long, so the order is that of time."""
    share: int = WHOLE
    hold: int = FIRST_HOLD_US

    def advance(self, now: int) -> None:
        """Forget what is past."""
        bucket = now // self.timing.bucket
        self.requests.advance(bucket)
        self.tokens.advance(bucket)
        if self.line.agenda:
            self.line.advance(now)
        while self.slots:
            oldest = next(iter(self.slots))
            if self.slots[oldest] > now:
                return
            del self.slots[oldest]

    def obstacle(self, number: int | None, limits: Limits, tokens: int, now: int) -> tuple[int, Dimension] | None:
        """What stands in a call's way: the turn of the dimension that comes last; `None` when there is room."""
        people_ahead, tokens_ahead = self.line.ahead(number) if self.line.numbers else (0, 0)
        worst: tuple[int, Dimension] | None = None
        length = self.timing.bucket
        if limits.requests is not None:
            short = people_ahead + 1 + self.requests.used - limits.requests
            if short > 0:
                worst = (self.requests.turn(short, limits.requests, now, length), Dimension.REQUESTS)
        if limits.tokens is not None:
            short = tokens_ahead + tokens + self.tokens.used - limits.tokens
            if short > 0:
                likely = max(1, short * self.share // WHOLE)
                turn = self.tokens.turn(likely, limits.tokens, now, length)
                if worst is None or turn > worst[0]:
                    worst = (turn, Dimension.TOKENS)
        if limits.slots is not None:
            short = people_ahead + 1 + len(self.slots) - limits.slots
            if short > 0:
                turn = self.hold * short // limits.slots
                if worst is None or turn > worst[0]:
                    worst = (turn, Dimension.CONCURRENCY)
        return worst

    def take(self, ticket: str, call: str, limits: Limits, tokens: int, now: int) -> None:
        """Charge an admitted call."""
        bucket = now // self.timing.bucket
        if self.line.numbers:
            self.line.leave(ticket)
        if limits.requests is not None:
            self.requests.add(bucket, 1)
        if limits.tokens is not None:
            self.tokens.add(bucket, tokens)
        if limits.slots is not None:
            self.slots[call] = now + self.timing.slot_ttl

    def settle(self, call: str, reserved: int, actual: int | None, at: int, now: int) -> None:
        """Free the slot of a call that was admitted then, and correct its tokens unless `actual` is `None`."""
        if self.slots.pop(call, None) is not None:
            self.hold += (now - at - self.hold) // 8
        if actual is None:
            return
        if reserved > 0:
            used = min(WHOLE, actual * WHOLE // reserved)
            self.share = max(WHOLE // 20, self.share + (used - self.share) // 16)
        self.tokens.correct(at // self.timing.bucket, now // self.timing.bucket, actual - reserved)

    @property
    def idle(self) -> bool:
        """Whether forgetting this scope would change nothing."""
        return not (self.requests.amounts or self.tokens.amounts or self.line.numbers or self.slots)
