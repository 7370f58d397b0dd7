"""Any interleaving of calls, deaths and corrections: no window holds more than its limit, and both limiters agree."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from holdfast.limits import Admitted, MemoryLimiter, RedisLimiter, Scope, TooLarge, Wait
from tests import services
from tests.limits.conftest import Clock, set_clock_script

SCOPES = (
    Scope("deployment", requests_per_minute=6, tokens_per_minute=100, concurrency=4),
    Scope("tenant", tokens_per_minute=60),
    Scope("credential", requests_per_minute=4),
    Scope("slots", concurrency=2),
    Scope("free"),
)
WINDOW = 60_000_000
BUCKET = 500_000
SLOT_TTL = 60_000_000


@dataclass
class Call:
    """What an observer knows of an admitted call."""

    admitted: Admitted
    tokens: int
    at: int
    slot_until: int
    ended: bool = False


@dataclass
class Waiting:
    """A ticket in line, and the latest moment at which it may come back to its place."""

    scopes: tuple[Scope, ...]
    tokens: int
    due: int


class Calls(RuleBasedStateMachine):
    """Drives a limiter, beside it optionally one on Redis, and keeps the books independently."""

    runner: ClassVar[asyncio.Runner]
    url: ClassVar[str | None] = None
    server: ClassVar["redis.Redis | None"] = None
    runs: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.memory = MemoryLimiter(self.clock)
        self.shared: RedisLimiter | None = None
        self.prefix = f"{Calls.runs}-{uuid.uuid4().hex}"
        if Calls.url is not None:
            self.shared = RedisLimiter(Calls.url, self.prefix, clock=set_clock_script(self.prefix))
        self.pairs: dict[str, Admitted] = {}
        self.calls: list[Call] = []
        self.waiting: dict[str, Waiting] = {}
        self.tickets = 0
        self.overrun = 0
        self.tell()

    @property
    def now(self) -> int:
        return self.clock.microseconds

    def tell(self) -> None:
        if Calls.server is not None:
            Calls.server.set(f"{{{self.prefix}:limits}}:now", self.now)

    def ask(self, ticket: str, scopes: tuple[Scope, ...], tokens: int) -> Admitted | Wait | None:
        answer: Admitted | Wait
        try:
            answer = Calls.runner.run(self.memory.admit(ticket, scopes, tokens))
        except TooLarge:
            smallest = min(scope.tokens_per_minute or tokens for scope in scopes)
            assert tokens > smallest
            return None
        if self.shared is not None:
            other = Calls.runner.run(self.shared.admit(ticket, scopes, tokens))
            if isinstance(other, Admitted) and isinstance(answer, Admitted):
                assert replace(other, call=answer.call) == answer
                self.pairs[answer.call] = other
            else:
                assert other == answer
        if isinstance(answer, Admitted):
            self.waiting.pop(ticket, None)
            self.calls.append(Call(answer, tokens, self.now, self.now + SLOT_TTL))
            self.check_windows()
        else:
            assert timedelta(0) < answer.duration <= answer.turn
            due = self.now + answer.duration // timedelta(microseconds=1)
            self.waiting[ticket] = Waiting(scopes, tokens, due)
        return answer

    def check_windows(self) -> None:
        """With the newest call, no limit is passed in the window that ends now."""
        for scope in SCOPES:
            recent = [call for call in self.calls if call.at > self.now - WINDOW and scope in call.admitted.scopes]
            if scope.requests_per_minute is not None:
                assert len(recent) <= scope.requests_per_minute
            if scope.tokens_per_minute is not None:
                assert sum(call.tokens for call in recent) <= scope.tokens_per_minute + self.overrun
            if scope.concurrency is not None:
                holding = [call for call in self.calls if scope in call.admitted.scopes and self.holds(call)]
                assert len(holding) <= scope.concurrency

    def holds(self, call: Call) -> bool:
        return not call.ended and call.slot_until > self.now

    @precondition(lambda self: len(self.waiting) < 10)
    @rule(
        scopes=st.sets(st.sampled_from(SCOPES), min_size=1, max_size=3),
        tokens=st.integers(0, 40) | st.integers(0, 110),
    )
    def somebody_new_asks(self, scopes: set[Scope], tokens: int) -> None:
        self.tickets += 1
        self.ask(f"t{self.tickets}", tuple(sorted(scopes, key=lambda scope: scope.key)), tokens)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_asks_again(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.waiting)))
        self.ask(ticket, self.waiting[ticket].scopes, self.waiting[ticket].tokens)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_goes_elsewhere(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.waiting)))
        scopes = self.waiting.pop(ticket).scopes
        Calls.runner.run(self.memory.withdraw(ticket, scopes))
        if self.shared is not None:
            Calls.runner.run(self.shared.withdraw(ticket, scopes))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_dies_waiting(self, data: st.DataObject) -> None:
        self.waiting.pop(data.draw(st.sampled_from(list(self.waiting))))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), actual=st.none() | st.integers(0, 50))
    def a_call_ends_perhaps_for_the_second_time(self, data: st.DataObject, actual: int | None) -> None:
        self.end(data.draw(st.sampled_from(self.calls)), actual)

    def end(self, call: Call, actual: int | None = None) -> None:
        Calls.runner.run(self.memory.settle(call.admitted, actual))
        if self.shared is not None and call.admitted.call:
            Calls.runner.run(self.shared.settle(self.pairs[call.admitted.call], actual))
        if not call.ended and actual is not None:
            if actual > call.admitted.tokens:
                self.overrun += actual - call.admitted.tokens
            elif self.remembered(call):
                call.tokens = actual
        call.ended = True

    def remembered(self, call: Call) -> bool:
        """Whether a refund still counts: the call is not forgotten and its bucket is in the window."""
        in_window = self.now // BUCKET - call.at // BUCKET <= WINDOW // BUCKET
        return in_window and call.slot_until + 2 * BUCKET > self.now

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_says_that_it_still_runs(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        Calls.runner.run(self.memory.renew(call.admitted))
        if self.shared is not None:
            pair = self.pairs.get(call.admitted.call)
            if pair is not None:
                Calls.runner.run(self.shared.renew(pair))
        # A slot that expired is taken again, for the call does run; that is no admission.
        if not call.ended and any(scope.concurrency for scope in call.admitted.scopes) and self.holds(call):
            call.slot_until = self.now + SLOT_TTL

    @rule(seconds=st.integers(0, 3) | st.floats(0, 1, width=16) | st.sampled_from([10, 29, 30, 31, 59, 60, 61, 200]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.tell()

    @invariant()
    def what_is_counted_is_what_was_admitted(self) -> None:
        """A refusal took nothing anywhere: the sums are those of the admitted calls alone."""
        if self.overrun:
            return
        for scope in SCOPES:
            meter = self.memory._meters.get(scope.key)
            if meter is None:
                continue
            meter.advance(self.now)
            counted = [
                call
                for call in self.calls
                if scope in call.admitted.scopes and self.now // BUCKET - call.at // BUCKET <= WINDOW // BUCKET
            ]
            if scope.requests_per_minute is not None:
                assert meter.requests.used == len(counted)
            if scope.tokens_per_minute is not None:
                assert meter.tokens.used == sum(call.tokens for call in counted)

    def teardown(self) -> None:
        try:
            self.check_everybody_comes_through()
        finally:
            if self.shared is not None:
                Calls.runner.run(self.shared.aclose())

    def check_everybody_comes_through(self) -> None:
        """Everybody who waits and keeps asking is admitted in the end."""
        for call in self.calls:
            self.end(call)
        for _ in range(1_000):
            if not self.waiting:
                break
            ticket = min(self.waiting, key=lambda name: (self.waiting[name].due, name))
            self.clock.microseconds = max(self.now + 200_000, self.waiting[ticket].due)
            self.tell()
            answer = self.ask(ticket, self.waiting[ticket].scopes, self.waiting[ticket].tokens)
            if isinstance(answer, Admitted):
                self.end(self.calls[-1])
        assert not self.waiting


@contextmanager
def asynchronous(url: str | None) -> Iterator[None]:
    Calls.runs = f"test-{uuid.uuid4().hex}"
    Calls.url = url
    Calls.server = None if url is None else redis.Redis.from_url(url)
    try:
        with asyncio.Runner() as Calls.runner:
            yield
    finally:
        if Calls.server is not None:
            keys = list(Calls.server.scan_iter(match=f"*{Calls.runs}*", count=1000))
            for start in range(0, len(keys), 1000):
                Calls.server.delete(*keys[start : start + 1000])
            Calls.server.close()


@pytest.mark.parametrize("examples", [150])
def test_no_window_ever_holds_more_than_its_limit(examples: int) -> None:
    with asynchronous(None):
        run_state_machine_as_test(
            Calls, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
        )


def test_the_limiter_on_redis_answers_like_the_one_in_memory() -> None:
    with asynchronous(services.redis_url()):
        run_state_machine_as_test(
            Calls,
            settings=settings(
                max_examples=40,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
