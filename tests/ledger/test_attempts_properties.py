"""Any sequence of calls, failures, deaths and races: ceilings hold, and nothing billed is missing from the record."""

import asyncio
import contextlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from holdfast.contracts import FinishReason, Limits, Usage
from holdfast.errors import IdempotencyConflict, LimitExceeded, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened, Recorded
from tests.ledger.databases import postgresql_database

LIMITS = Limits(tokens=1_000, cost_usd=Decimal(1), attempts=8)


def usages(most_tokens: int) -> st.SearchStrategy[Usage]:
    return st.builds(
        Usage,
        input_tokens=st.integers(0, most_tokens),
        cache_write_tokens=st.integers(0, 20),
        output_tokens=st.integers(0, most_tokens),
        cost_usd=st.decimals(0, Decimal("0.4"), places=3),
    )


@dataclass
class Call:
    """What an independent observer knows of one call."""

    turn: int
    counted: Usage
    """What the ledger should count."""
    billed_at_most: Usage
    """What the provider may have billed."""
    alive: bool = True
    """Whether its worker has not been taken for dead."""
    said: dict[str, Any] | None = None
    """How it was settled."""

    @property
    def answered(self) -> bool:
        return self.said is not None and self.said["outcome"] is Outcome.OK


class Billing(RuleBasedStateMachine):
    """Drives a real ledger and a ten-line model of it. A death is a call that is never settled."""

    ledger: ClassVar[Ledger]
    runner: ClassVar[asyncio.Runner]
    requests: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        Billing.requests += 1
        self.request_id = f"req_{Billing.requests}"
        self.calls: dict[str, Call] = {}

    def expect(self, turn: int, hold: Usage) -> str | None:
        """What the model says about opening a call: its id, or `None` when it is refused."""
        for call in self.calls.values():
            if call.turn == turn and call.said is None:
                call.alive = False
        spent = sum((call.counted for call in self.calls.values()), Usage())
        assert LIMITS.cost_usd is not None
        fits = (
            len(self.calls) < LIMITS.attempts
            and spent.total_tokens + hold.total_tokens <= LIMITS.tokens
            and hold.cost_usd is not None
            and spent.cost_usd is not None
            and spent.cost_usd + hold.cost_usd <= LIMITS.cost_usd
        )
        if not fits:
            return None
        attempt_id = f"{self.request_id}.{len(self.calls) + 1}"
        self.calls[attempt_id] = Call(turn, counted=hold, billed_at_most=hold)
        return attempt_id

    async def opened(self, turn: int, hold: Usage) -> Opened | Recorded | None:
        key = AttemptKey("acme", self.request_id, turn)
        try:
            return await self.ledger.attempts.open(key, deployment="d", model="m", hold=hold, limits=LIMITS)
        except LimitExceeded:
            return None

    @rule(turn=st.integers(1, 3), hold=usages(150), priced=st.integers(0, 9), racers=st.integers(1, 3))
    def open(self, turn: int, hold: Usage, priced: int, racers: int) -> None:
        """One or more workers ask for the same call at the same time."""
        if priced == 0:
            hold = hold.model_copy(update={"cost_usd": None})

        async def race() -> list[Opened | Recorded | None]:
            return await asyncio.gather(*(self.opened(turn, hold) for _ in range(racers)))

        results = self.runner.run(race())
        if any(call.turn == turn and call.answered for call in self.calls.values()):
            assert all(isinstance(result, Recorded) for result in results)
            return
        expected = {self.expect(turn, hold) for _ in range(racers)}
        assert {result.attempt_id if result is not None else None for result in results} == expected
        for result in results:
            if result is not None:
                assert isinstance(result, Opened)
                assert result.spent.total_tokens <= LIMITS.tokens
                assert result.spent.cost_usd is not None
                assert LIMITS.cost_usd is not None
                assert result.spent.cost_usd <= LIMITS.cost_usd

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), usage=st.none() | usages(300), again=st.booleans())
    def settle(self, data: st.DataObject, outcome: Outcome, usage: Usage | None, again: bool) -> None:
        """A worker, perhaps one taken for dead, books how its call ended; perhaps twice."""
        attempt_id = data.draw(st.sampled_from(sorted(self.calls)))
        call = self.calls[attempt_id]
        said: dict[str, Any] = {"outcome": outcome, "usage": usage, "output": f"reply {usage}"}
        said |= {"finish_reason": FinishReason.STOP, "model": "m"}
        if call.said is not None and not again and said != call.said:
            with pytest.raises(IdempotencyConflict):
                self.runner.run(self.ledger.attempts.settle(attempt_id, **said))
            return
        if call.said is None:
            call.said = said
            if outcome.billed and usage is not None:
                call.counted = call.billed_at_most = usage
            elif outcome.billed is False:
                call.billed_at_most = Usage()
                if call.alive:
                    call.counted = Usage()
        settled = self.runner.run(self.ledger.attempts.settle(attempt_id, **call.said))
        assert settled.usage == call.counted

    @invariant()
    def the_record_is_what_the_observer_expects_and_never_below_the_bill(self) -> None:
        totals = self.runner.run(self.ledger.attempts.totals(self.request_id))
        assert totals.attempts == len(self.calls)
        assert totals.usage == sum((call.counted for call in self.calls.values()), Usage())
        billed = sum((call.billed_at_most for call in self.calls.values()), Usage())
        assert totals.usage.total_tokens >= billed.total_tokens
        assert totals.usage.cost_usd is not None
        assert billed.cost_usd is not None
        assert totals.usage.cost_usd >= billed.cost_usd


@pytest.mark.parametrize(("dialect", "examples"), [("sqlite", 60), ("postgresql", 15)])
def test_no_sequence_of_events_overspends_or_loses_a_bill(dialect: str, examples: int, tmp_path: Path) -> None:
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        url = f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"
        if dialect == "postgresql":
            database = postgresql_database()
            url = runner.run(database.__aenter__())
            stack.callback(lambda: runner.run(database.__aexit__(None, None, None)))
        Billing.runner = runner
        Billing.ledger = runner.run(Ledger.open(url))
        stack.callback(lambda: runner.run(Billing.ledger.aclose()))
        run_state_machine_as_test(
            Billing,
            settings=settings(
                max_examples=examples,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
