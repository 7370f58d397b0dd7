"""Parts of a budget: whatever a team of agents does, it never spends more than the request at its top may."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import budget
from holdfast.contracts import MAX_DEPTH, Limits, Usage
from holdfast.errors import LimitExceeded

HOUR = timedelta(hours=1)
LIMITS = Limits(tokens=1_000, cost_usd=Decimal("1.00"), deadline=HOUR)
NOTHING = Usage()

spans = st.timedeltas(timedelta(seconds=1), timedelta(days=60))
dollars = st.decimals(0, 50, places=6)
limits = st.builds(
    Limits, tokens=st.integers(1, 50_000), cost_usd=dollars, attempts=st.just(50), deadline=st.just(timedelta(days=60))
)


def test_parts_are_equal_and_one_is_kept() -> None:
    spent = Usage(input_tokens=100, cost_usd=Decimal("0.10"))
    part = budget.carve(LIMITS, spent, 2, HOUR)
    assert (part.tokens, part.cost_usd) == (300, Decimal("0.30"))
    assert part.deadline == timedelta(minutes=54)
    assert part.attempts == LIMITS.attempts, "only what can be added up is divided"


def test_without_a_ceiling_in_dollars_parts_have_none_either() -> None:
    assert budget.carve(Limits(tokens=100), Usage(cost_usd=None), 1, HOUR).cost_usd is None


def test_an_unpriced_call_under_a_ceiling_leaves_no_dollars_for_delegates() -> None:
    assert budget.carve(LIMITS, Usage(cost_usd=None), 1, HOUR).cost_usd == 0


@pytest.mark.parametrize(
    ("spent", "children", "time_left", "limit"),
    [
        (999, 1, HOUR, "tokens"),
        (1_000, 1, HOUR, "tokens"),
        (0, 1_000, HOUR, "tokens"),
        (0, 1, timedelta(0), "deadline"),
    ],
)
def test_what_is_used_up_cannot_be_given_away(spent: int, children: int, time_left: timedelta, limit: str) -> None:
    with pytest.raises(LimitExceeded) as refused:
        budget.carve(LIMITS, Usage(input_tokens=spent), children, time_left)
    assert refused.value.limit == limit


@given(limits, spans, st.integers(1, 64))
def test_a_part_s_deadline_ends_before_the_whole_s(whole: Limits, time_left: timedelta, children: int) -> None:
    try:
        part = budget.carve(whole, NOTHING, children, time_left)
    except LimitExceeded:
        return
    assert timedelta(0) < part.deadline < time_left
    assert time_left - part.deadline <= budget.RESERVED_TIME


def test_what_delegates_spent_is_missing_from_the_request_s_own_calls() -> None:
    assert budget.without(LIMITS, NOTHING) == LIMITS
    own = budget.without(LIMITS, Usage(output_tokens=400, cost_usd=Decimal("0.25")))
    assert (own.tokens, own.cost_usd) == (600, Decimal("0.75"))
    used_up = budget.without(LIMITS, Usage(output_tokens=5_000, cost_usd=None))
    assert used_up.cost_usd == 0
    with pytest.raises(LimitExceeded):
        budget.check(used_up, NOTHING, 0, Usage(input_tokens=1, output_tokens=1))


class Member:
    """One agent's request: spends its own money by calls and its part of others' by delegates."""

    def __init__(self, ceilings: Limits) -> None:
        self.limits = ceilings
        self.own = NOTHING
        self.delegated = NOTHING

    @property
    def spent(self) -> Usage:
        """Of the member and everyone below it."""
        return self.own + self.delegated

    def call(self, worst: Usage) -> None:
        """A model call as the ledger admits it."""
        try:
            budget.check(budget.without(self.limits, self.delegated), self.own, 0, worst)
        except LimitExceeded:
            return
        self.own += worst


shares = st.sampled_from([Decimal(1), Decimal("0.7"), Decimal("0.3"), Decimal("0.05")])
"""How much of its own limits somebody wants for one call."""


def play(member: Member, depth: int, data: st.DataObject) -> None:
    """Let a member do anything that it may, its delegates first of all."""
    for action in data.draw(
        st.lists(st.sampled_from(["call", "delegate"]), min_size=1, max_size=4 if depth < 3 else 2)
    ):
        if action == "call" or depth >= MAX_DEPTH:
            share = data.draw(shares)
            assert member.limits.cost_usd is not None
            wanted = Usage(
                input_tokens=int(member.limits.tokens * share), output_tokens=1, cost_usd=member.limits.cost_usd * share
            )
            member.call(wanted)
            member.call(wanted.model_copy(update={"input_tokens": 0, "cost_usd": Decimal(0)}))
            continue
        together = data.draw(st.integers(1, 3))
        try:
            part = budget.carve(member.limits, member.spent, together, HOUR)
        except LimitExceeded:
            continue
        children = [Member(part) for _ in range(together)]
        for child in children:
            play(child, depth + 1, data)
        for child in children:
            member.delegated += child.spent


@given(limits, st.data())
def test_a_team_never_spends_more_than_the_request_at_its_top_may(whole: Limits, data: st.DataObject) -> None:
    root = Member(whole)
    play(root, 1, data)
    assert root.spent.total_tokens <= whole.tokens
    assert root.spent.cost_usd is not None
    assert whole.cost_usd is not None
    assert root.spent.cost_usd <= whole.cost_usd
