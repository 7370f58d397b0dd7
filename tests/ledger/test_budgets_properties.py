"""Any sequence of calls and outcomes over nested budgets and credit: no ceiling is passed, and the books agree."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from holdfast.contracts import AtLimit, FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened
from holdfast.spending import Period, ScopeKind, Standing, usd_of
from tests.ledger.databases import postgresql_database

START = datetime(2026, 11, 29, 12, tzinfo=UTC)
LIMITS = Limits(tokens=10_000_000, attempts=50)
PLACES: tuple[tuple[ScopeKind, str, Period, dict[str, Any]], ...] = (
    (ScopeKind.TENANT, "", Period.MONTH, {"tokens": 3_000, "cost_usd": Decimal(3), "at_limit": AtLimit.ASK}),
    (ScopeKind.USER, "ada", Period.DAY, {"tokens": 1_500, "at_limit": AtLimit.QUEUE}),
    (ScopeKind.USER, "grace", Period.TOTAL, {"cost_usd": Decimal("1.5"), "at_limit": AtLimit.ASK}),
    (ScopeKind.SESSION, "s1", Period.TOTAL, {"tokens": 700, "at_limit": AtLimit.DEGRADE}),
)


def usages(most_tokens: int) -> st.SearchStrategy[Usage]:
    return st.builds(
        Usage,
        input_tokens=st.integers(0, most_tokens),
        output_tokens=st.integers(0, most_tokens),
        cost_usd=st.none() | st.decimals(0, 1, places=6),
    )


@dataclass
class Call:
    """What an independent observer knows of one call."""

    request: str
    user: str
    session: str | None
    opened_at: datetime
    hold: Usage
    counted: Usage
    """What the books should count."""
    dead: bool = False
    settled: bool = False

    def counts_in(self, budget: Standing, tenant: str) -> bool:
        """Whether it belongs to a budget and its present period."""
        names = {ScopeKind.USER: self.user, ScopeKind.SESSION: self.session}
        return budget.period.window(self.opened_at) == budget.window and budget.name == names.get(budget.kind, tenant)


class Spending(RuleBasedStateMachine):
    """Drives a real ledger beside a list of calls that is summed anew each time."""

    ledger: ClassVar[Ledger]
    runner: ClassVar[asyncio.Runner]
    tenants: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        Spending.tenants += 1
        self.tenant = f"tenant{Spending.tenants}"
        self.now = START
        self.calls: dict[str, Call] = {}
        self.permitted: dict[str, tuple[int, Decimal]] = {}
        self.decisions = 0
        self.has_credit = False
        self.granted = Decimal(0)
        for kind, name, period, ceilings in PLACES:
            self.run(self.ledger.budgets.set(self.tenant, kind, name or self.tenant, period, **ceilings))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def standings(self) -> tuple[Standing, ...]:
        found: tuple[Standing, ...] = self.run(self.ledger.budgets.list(self.tenant, now=self.now))
        return found

    @rule(hours=st.integers(1, 40))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(cents=st.integers(1, 200), again=st.booleans())
    def grant(self, cents: int, again: bool) -> None:
        self.granted += Decimal(cents) / 100
        self.has_credit = True
        for _ in range(1 + again):
            entry = f"{self.granted}"
            self.run(self.ledger.budgets.grant(self.tenant, Decimal(cents) / 100, entry_id=entry, by="grace"))

    @rule(request=st.integers(1, 3), tokens=st.integers(0, 500), cents=st.integers(0, 50))
    def permit(self, request: int, tokens: int, cents: int) -> None:
        name = self.request(request)
        before = self.permitted.get(name, (0, Decimal(0)))
        cost = Decimal(cents) / 100
        self.permitted[name] = (before[0] + tokens, before[1] + cost)
        self.decisions += 1
        approval = f"decision {self.decisions}"
        self.run(self.ledger.budgets.extend(name, approval=approval, tokens=tokens, cost_usd=cost, by="grace"))

    def request(self, number: int) -> str:
        return f"req_{self.tenant}_{number}"

    @rule(
        request=st.integers(1, 3),
        user=st.sampled_from(["ada", "grace"]),
        session=st.sampled_from([None, "s1", "s2"]),
        hold=usages(300),
        racers=st.integers(1, 3),
    )
    def open(self, request: int, user: str, session: str | None, hold: Usage, racers: int) -> None:
        """Calls of several requests at the same moment."""
        scopes = SpendScopes(tenant=self.tenant, user=user, session=session)
        before = {standing.budget_id: standing for standing in self.standings()}

        async def ask(name: str) -> Opened | BudgetExceeded:
            try:
                opened = await self.ledger.attempts.open(
                    AttemptKey(self.tenant, name, 1),
                    deployment="d",
                    model="m",
                    hold=hold,
                    limits=LIMITS,
                    scopes=scopes,
                    now=self.now,
                )
            except BudgetExceeded as denied:
                return denied
            assert isinstance(opened, Opened)
            return opened

        async def race() -> list[Opened | BudgetExceeded]:
            names = [self.request(1 + (request + racer) % 3) for racer in range(racers)]
            return await asyncio.gather(*map(ask, names))

        results = self.run(race())
        for racer, result in enumerate(results):
            name = self.request(1 + (request + racer) % 3)
            for call in self.calls.values():
                if call.request == name and not call.settled:
                    call.dead = True
            if isinstance(result, Opened):
                self.calls[result.attempt_id] = Call(name, user, session, self.now, hold, hold)
        admitted = sum(isinstance(result, Opened) for result in results)
        for standing in self.standings():
            moved = standing.spent - before[standing.budget_id].spent
            in_scope = Call("", user, session, self.now, hold, hold).counts_in(standing, self.tenant)
            assert moved.tokens == (admitted * hold.total_tokens if in_scope else 0)
            if admitted and in_scope:
                self.stays_below(standing, before[standing.budget_id])
                if standing.cost is not None:
                    assert hold.cost_usd is not None

    def stays_below(self, after: Standing, before: Standing) -> None:
        """Opening never passes a ceiling, but for what an overrun had passed before or a person permits."""
        asks = after.at_limit is AtLimit.ASK
        tokens = sum(tokens for tokens, _ in self.permitted.values()) if asks else 0
        cost = sum((cost for _, cost in self.permitted.values()), Decimal(0)) if asks else Decimal(0)
        if after.tokens is not None and after.spent.tokens > before.spent.tokens:
            assert after.spent.tokens <= max(after.tokens, before.spent.tokens) + tokens
        if after.cost is not None and after.spent.cost > before.spent.cost:
            assert usd_of(after.spent.cost) <= usd_of(max(after.cost, before.spent.cost)) + cost

    @precondition(lambda self: any(not call.settled for call in self.calls.values()))
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), usage=st.none() | usages(600))
    def settle(self, data: st.DataObject, outcome: Outcome, usage: Usage | None) -> None:
        """A worker, perhaps one taken for dead, books how its call ended."""
        open_calls = sorted(name for name, call in self.calls.items() if not call.settled)
        attempt_id = data.draw(st.sampled_from(open_calls))
        call = self.calls[attempt_id]
        call.settled = True
        if outcome.billed and usage is not None:
            # The turn must not be answered, or the request's next call would be given its reply.
            outcome = Outcome.CANCELLED if outcome is Outcome.OK else outcome
            call.counted = usage
        elif outcome.billed:
            outcome = Outcome.CANCELLED
        elif outcome.billed is False and not call.dead:
            call.counted = Usage()
        self.run(
            self.ledger.attempts.settle(
                attempt_id, outcome, usage=usage, output="reply", finish_reason=FinishReason.STOP, model="m"
            )
        )

    @invariant()
    def counters_are_the_sums_of_the_calls(self) -> None:
        for standing in self.standings():
            counted = [call for call in self.calls.values() if call.counts_in(standing, self.tenant)]
            if standing.kind is ScopeKind.CREDIT:
                continue
            assert standing.spent.tokens == sum(call.counted.total_tokens for call in counted)
            assert usd_of(standing.spent.cost) == sum((_cost(call) for call in counted), Decimal(0))
            assert standing.spent.unpriced == sum(
                call.counted.cost_usd is None and call.hold.cost_usd is None for call in counted
            )

    @invariant()
    def credit_is_what_its_entries_say(self) -> None:
        if not self.has_credit:
            return
        (account,) = [standing for standing in self.standings() if standing.kind is ScopeKind.CREDIT]
        entries = self.run(self.ledger.budgets.entries(self.tenant, limit=10_000))
        available = sum((entry.change_usd for entry in entries), Decimal(0))
        assert account.cost is not None
        assert available == usd_of(account.cost) - usd_of(account.spent.cost)
        assert usd_of(account.cost) == self.granted


def _cost(call: Call) -> Decimal:
    """What a call counts in dollars: without a price for what it used, the price of its hold stands."""
    return (call.counted.cost_usd if call.counted.cost_usd is not None else call.hold.cost_usd) or Decimal(0)


@pytest.mark.parametrize(("dialect", "examples"), [("sqlite", 60), ("postgresql", 15)])
def test_no_sequence_of_calls_passes_a_budget_and_the_books_agree(dialect: str, examples: int, tmp_path: Path) -> None:
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        url = f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"
        if dialect == "postgresql":
            database = postgresql_database()
            url = runner.run(database.__aenter__())
            stack.callback(lambda: runner.run(database.__aexit__(None, None, None)))
        Spending.runner = runner
        Spending.ledger = runner.run(Ledger.open(url))
        stack.callback(lambda: runner.run(Spending.ledger.aclose()))
        run_state_machine_as_test(
            Spending,
            settings=settings(
                max_examples=examples,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
