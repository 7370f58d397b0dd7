"""What holds for any candidates and any demand."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.contracts import Strategy
from holdfast.routing import HANDLER, HARD, IN_PROCESS, SOFT, Candidate, Complexity, Demand, decide, explain
from holdfast.routing.constraints import Budget, Capabilities, ContextWindow, Residency, Usable
from tests.routing.making import Doing, candidate, conditions, demands, pools


def fits(one: Candidate, demand: Demand) -> bool:
    """The hard constraints, written down a second time."""
    tokens = demand.prompt_tokens + demand.output_tokens
    cost = one.worst_case_usd(demand.prompt_tokens, demand.output_tokens)
    return (
        (not demand.regions or one.region == IN_PROCESS or one.region in demand.regions)
        and one.enabled
        and one.name not in demand.excluded
        and demand.needs <= one.capabilities
        and tokens <= one.context_window
        and (demand.tokens_left is None or tokens <= demand.tokens_left)
        and (demand.usd_left is None or (cost is not None and cost <= demand.usd_left))
    )


@given(pools, demands)
def test_no_policy_brings_back_what_a_hard_constraint_forbids(pool: tuple[Candidate, ...], demand: Demand) -> None:
    decision = decide(pool, demand)
    for one in (decision.chosen, *decision.alternatives):
        assert one is None or fits(one, demand)


@given(pools, demands)
def test_whoever_may_answer_somebody_is_chosen(pool: tuple[Candidate, ...], demand: Demand) -> None:
    demand = replace(demand, cause=None, fallbacks={}, deployments=tuple(one.name for one in pool))
    feasible = [one for one in pool if fits(one, demand) and one.provider != HANDLER]
    decision = decide(pool, demand)
    if feasible:
        assert decision.chosen is not None
    elif decision.chosen is not None:
        assert decision.chosen.provider == HANDLER


@given(pools, demands)
def test_a_decision_is_the_same_every_time_and_reads_well(pool: tuple[Candidate, ...], demand: Demand) -> None:
    decision = decide(pool, demand)
    assert decision == decide(list(pool), demand)
    line = decision.one_line()
    assert "\n" not in line
    assert explain(decision).startswith(line)
    assert line.startswith(decision.chosen.name if decision.chosen else "no deployment is left")


@given(pools, demands)
def test_every_candidate_is_ranked_or_dropped_once_with_a_reason(pool: tuple[Candidate, ...], demand: Demand) -> None:
    decision = decide(pool, demand)
    ranked = [one.name for one in (decision.chosen, *decision.alternatives) if one]
    dropped = [reason.candidate for reason in decision.reasons if reason.effect == "dropped"]
    assert Counter([*ranked, *dropped]) == Counter(one.name for one in pool)
    assert all(reason.text for reason in decision.reasons)


@given(pools, demands, st.permutations(HARD))
def test_the_order_of_hard_constraints_does_not_matter(
    pool: tuple[Candidate, ...],
    demand: Demand,
    order: list[Residency | Usable | Capabilities | ContextWindow | Budget],
) -> None:
    demand = replace(demand, cause=None)
    assert decide(pool, demand).chosen == decide(pool, demand, [*order, *SOFT]).chosen


@given(conditions, demands)
def test_the_only_deployment_is_never_abandoned(condition: Doing | None, demand: Demand) -> None:
    one = candidate("a", condition=condition, capabilities=frozenset({"text", "tools"}), region="local")
    demand = replace(demand, cause=None, fallbacks={}, deployments=("a",))
    assume(fits(one, demand))
    decision = decide([one], demand)
    assert decision.chosen == one
    assert decision.sole


@given(pools, demands)
def test_what_is_down_is_chosen_only_when_all_are_and_then_the_first_to_recover(
    pool: tuple[Candidate, ...], demand: Demand
) -> None:
    pool = tuple(
        replace(
            one,
            provider="openai",
            region="local",
            enabled=True,
            context_window=128_000,
            capabilities=frozenset({"text", "tools"}),
        )
        for one in pool
    )
    demand = replace(demand, cause=None, deployments=(), fallbacks={}, excluded={}, tokens_left=None, usd_left=None)
    decision = decide(pool, demand)
    if not pool:
        assert decision.chosen is None
        return
    assert decision.chosen is not None
    if any(usable(one) for one in pool):
        assert all(usable(one) for one in (decision.chosen, *decision.alternatives))
    else:
        assert decision.sole
        assert recovery(decision.chosen) == min(recovery(one) for one in pool)


def usable(one: Candidate) -> bool:
    """Closed, or half open without a probe under way."""
    state = one.condition.state if one.condition else "closed"
    return state == "closed" or (state == "half_open" and one.condition is not None and not one.condition.in_flight)


def recovery(one: Candidate) -> float:
    """When it may be tried again, in seconds; 0 for now."""
    until = one.condition.until if one.condition else None
    return until.timestamp() if until else 0.0


@pytest.mark.parametrize("strategy", ["balanced", "complexity", "cheapest"])
def test_idle_deployments_of_one_model_share_by_weight(strategy: Strategy) -> None:
    pool = [candidate(name, model="m", weight=weight) for name, weight in (("a", 1), ("b", 2), ("c", 5), ("d", 0))]
    demand = Demand(strategy=strategy, complexity=Complexity(0.5, "medium"))
    draws = 4_000
    chosen = Counter(
        decision.chosen.name
        for number in range(draws)
        if (decision := decide(pool, replace(demand, seed=f"req_{number}"))).chosen
    )
    # Four standard deviations of a binomial share around each weight's part of eight.
    for name, part in (("a", 1 / 8), ("b", 2 / 8), ("c", 5 / 8)):
        assert abs(chosen[name] / draws - part) < 4 * (part * (1 - part) / draws) ** 0.5
    assert chosen["d"] == 0, "weight 0 stands by"
