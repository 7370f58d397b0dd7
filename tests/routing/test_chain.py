"""Each policy by example, as it reads in a trace."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from holdfast.contracts import Cause
from holdfast.routing import Candidate, Complexity, Decision, Demand, IntentMatch, decide, explain
from tests.routing.making import Doing, candidate, down, slow

SIMPLE = Complexity(0.12, "simple")
COMPLEX = Complexity(0.91, "complex")


def order(decision: Decision) -> list[str]:
    """Names, best first."""
    return [one.name for one in (decision.chosen, *decision.alternatives) if one]


def listed(*names: str, **given: object) -> Demand:
    """A demand of an agent that lists some deployments."""
    return replace(Demand(prompt_tokens=1_000, output_tokens=500, deployments=names), **given)  # type: ignore[arg-type]  # fields by name


def test_ordered_takes_the_agents_list_whatever_order_the_candidates_come_in() -> None:
    decision = decide([candidate("b"), candidate("a"), candidate("c")], listed("a", "b", "c"))
    assert order(decision) == ["a", "b", "c"]
    assert decision.one_line() == "a: the first choice"


def test_the_line_of_a_trace_says_what_was_chosen_and_why_the_others_were_not() -> None:
    pool = [
        candidate("sim-eu", tier="small", condition=down(3 + 10 / 60)),
        candidate("sim-small", tier="small"),
        candidate("sim-large", tier="large", input_usd_per_million=Decimal(8), output_usd_per_million=Decimal(16)),
    ]
    demand = listed("sim-large", "sim-eu", "sim-small", strategy="complexity", complexity=SIMPLE)
    assert decide(pool, demand).one_line() == (
        "sim-small: simple (0.12); skipped: sim-eu is down until 12:03:10 UTC (timeouts); sim-large costs 8x"
    )


def test_residency_admits_listed_regions_and_what_answers_in_process() -> None:
    pool = [
        candidate("us", region="us"),
        candidate("nowhere"),
        candidate("here", region="local"),
        candidate("eu", region="eu"),
    ]
    decision = decide(pool, Demand(regions=frozenset({"eu"})))
    assert order(decision) == ["here", "eu"]
    assert "us computes in us, allowed: eu" in decision.one_line()
    assert "nowhere computes in an unknown region" in decision.one_line()


def test_capabilities_and_switches_are_named() -> None:
    pool = [
        candidate("off", enabled=False),
        candidate("plain"),
        candidate("able", capabilities=frozenset({"text", "tools"})),
    ]
    decision = decide(pool, Demand(needs=frozenset({"text", "tools"})))
    assert order(decision) == ["able"]
    assert decision.sole
    assert {"off is not enabled", "plain lacks tools"} <= {str(reason) for reason in decision.reasons}


def test_when_nothing_is_left_the_line_names_everyone() -> None:
    pool = [candidate("a"), candidate("b", enabled=False)]
    decision = decide(pool, Demand(excluded={"a": "failed this request"}))
    assert decision.chosen is None
    assert decision.one_line() == "no deployment is left: a failed this request; b is not enabled"
    assert decide([], Demand()).one_line() == "no deployment is left: none is listed"


def test_a_budget_in_dollars_refuses_what_is_too_dear_and_what_has_no_price() -> None:
    pool = [
        candidate("dear"),
        candidate("unpriced", input_usd_per_million=None),
        candidate("cheap", output_usd_per_million=Decimal(1)),
    ]
    decision = decide(pool, listed("dear", "unpriced", "cheap", usd_left=Decimal("0.0015")))
    assert order(decision) == ["cheap"]
    assert "dear may cost $0.002, left: $0.0015" in decision.one_line()
    assert "unpriced has no price" in decision.one_line()
    assert decide(pool, listed("dear", tokens_left=1_499)).chosen is None


def test_a_prompt_that_fits_nowhere_on_the_list_goes_to_the_list_for_it() -> None:
    pool = [candidate("small", context_window=1_000), candidate("wide"), candidate("spare")]
    fallbacks = {Cause.CONTEXT_WINDOW: ("wide",), Cause.CONTENT_POLICY: ("spare",)}
    decision = decide(pool, listed("small", fallbacks=fallbacks))
    assert order(decision) == ["wide"]
    assert "first of the fallbacks for context window" in decision.one_line()
    assert "spare is a fallback for another cause" in decision.one_line()


def test_after_a_refused_prompt_only_a_larger_window_will_do() -> None:
    small, same, wide = (
        candidate("small", context_window=8_000),
        candidate("same", context_window=8_000),
        candidate("wide"),
    )
    demand = listed("small", "same", "wide", cause=Cause.CONTEXT_WINDOW, failed=small, excluded={"small": "refused"})
    decision = decide([small, same, wide], demand)
    assert order(decision) == ["wide"]
    assert "same has no more room than small" in decision.one_line()


def test_the_list_for_an_outage_stands_behind_the_agents_own() -> None:
    pool = [candidate("a"), candidate("b"), candidate("spare")]
    demand = listed("a", "b", fallbacks={Cause.OUTAGE: ("spare",)})
    assert order(decide(pool, demand)) == ["a", "b", "spare"]
    pool[:2] = [candidate("a", condition=down(1)), candidate("b", condition=down(2))]
    assert order(decide(pool, demand)) == ["spare"], "the own list is down, nothing has failed yet"


@pytest.mark.parametrize("cause", [Cause.CONTENT_POLICY, Cause.BUDGET])
def test_the_list_of_a_cause_comes_first_and_in_its_own_order(cause: Cause) -> None:
    pool = [candidate("a"), candidate("x"), candidate("y", input_usd_per_million=Decimal(0))]
    demand = listed("a", cause=cause, strategy="cheapest", fallbacks={cause: ("x", "y")})
    assert order(decide(pool, demand)) == ["x", "y", "a"]


@pytest.mark.parametrize("cause", [Cause.CONTEXT_WINDOW, Cause.CONTENT_POLICY, Cause.UNSURE])
def test_a_list_given_for_a_cause_is_not_reordered_by_the_strategy(cause: Cause) -> None:
    pool = [candidate("s", tier="small"), candidate("l", tier="large")]
    demand = listed("l", "s", cause=cause, strategy="complexity", complexity=SIMPLE)
    assert order(decide(pool, demand)) == ["l", "s"]


def test_degrading_without_a_list_takes_the_cheapest_first() -> None:
    pool = [candidate("dear"), candidate("cheap", input_usd_per_million=Decimal("0.1"))]
    assert order(decide(pool, listed("dear", "cheap", cause=Cause.BUDGET))) == ["cheap", "dear"]


def test_an_unsure_reply_goes_to_the_list_or_else_to_a_higher_tier_only() -> None:
    small, medium, large = candidate("s", tier="small"), candidate("m"), candidate("l", tier="large")
    demand = listed("s", "m", "m2", "l", cause=Cause.UNSURE, failed=medium, excluded={"m": "was unsure"})
    assert order(decide([small, medium, large, candidate("m2")], demand)) == ["l"]
    demand = replace(demand, fallbacks={Cause.UNSURE: ("s",)})
    assert order(decide([small, medium, large], demand)) == ["s"]
    demand = listed("s", "l", cause=Cause.UNSURE, failed=large, excluded={"l": "was unsure"})
    assert decide([small, large], demand).chosen is None, "nobody would be surer"


def test_a_recognised_intent_goes_to_its_handler_and_nothing_else_does() -> None:
    pool = [
        candidate("a"),
        candidate("reset", provider="handler", region="local"),
        candidate("other", provider="handler"),
    ]
    match = IntentMatch("password_reset", "reset", 0.83, 0.4)
    decision = decide(pool, listed("a", intent=match))
    assert order(decision) == ["reset", "a"]
    assert decision.one_line().startswith("reset: intent password_reset (0.83); skipped: other answers only its own")
    assert order(decide(pool, listed("a", "reset"))) == ["a"]


def test_a_handler_that_left_the_question_to_a_model_is_not_asked_again() -> None:
    pool = [candidate("a"), candidate("reset", provider="handler")]
    match = IntentMatch("password_reset", "reset", 0.83, 0.4)
    assert order(decide(pool, listed("a", intent=match, excluded={"reset": "left the question to a model"}))) == ["a"]


def test_a_handler_is_still_bound_by_hard_constraints() -> None:
    pool = [candidate("a", capabilities=frozenset({"text", "json_schema"})), candidate("reset", provider="handler")]
    demand = listed("a", needs=frozenset({"json_schema"}), intent=IntentMatch("i", "reset", 0.9, 0.5))
    assert order(decide(pool, demand)) == ["a"]


@pytest.mark.parametrize(
    ("complexity", "expected"),
    [
        (SIMPLE, ["s", "m", "l"]),
        (COMPLEX, ["l", "m", "s"]),
        (Complexity(0.5, "medium"), ["m", "l", "s"]),
        (None, ["m", "s", "l"]),
    ],
)
def test_complexity_prefers_the_tier_that_the_question_needs(
    complexity: Complexity | None, expected: list[str]
) -> None:
    pool = [candidate("s", tier="small"), candidate("m"), candidate("l", tier="large")]
    assert order(decide(pool, listed("m", "s", "l", strategy="complexity", complexity=complexity))) == expected


def test_within_a_tier_the_agents_order_stands() -> None:
    pool = [candidate("b", tier="small"), candidate("a", tier="small"), candidate("l", tier="large")]
    assert order(decide(pool, listed("l", "a", "b", strategy="complexity", complexity=SIMPLE))) == ["a", "b", "l"]


def test_what_is_down_is_skipped_with_time_and_reason() -> None:
    pool = [
        candidate("a", condition=down(1)),
        candidate("b", condition=down(2, "cooling", "rate limited")),
        candidate("c"),
    ]
    decision = decide(pool, listed("a", "b", "c"))
    assert order(decision) == ["c"]
    assert "a is down until 12:01:00 UTC (timeouts)" in decision.one_line()
    assert "b is cooling down until 12:02:00 UTC (rate limited)" in decision.one_line()


def test_when_all_are_down_the_first_to_recover_is_chosen_and_probed() -> None:
    pool = [candidate("a", condition=down(9)), candidate("b", condition=down(2)), candidate("c", condition=down(5))]
    decision = decide(pool, listed("a", "b", "c"))
    assert order(decision) == ["b", "c", "a"]
    assert decision.sole
    assert decision.one_line().startswith("b: is down until 12:02:00 UTC (timeouts), and first to recover")


def test_a_half_open_deployment_keeps_its_place_until_somebody_probes_it() -> None:
    pool = [candidate("a", condition=Doing("half_open")), candidate("b")]
    assert order(decide(pool, listed("a", "b"))) == ["a", "b"]
    pool[0] = candidate("a", condition=Doing("half_open", in_flight=1))
    assert order(decide(pool, listed("a", "b"))) == ["b"]


def test_what_is_far_slower_than_its_tier_goes_last_but_a_large_model_is_not_held_against_a_small_one() -> None:
    pool = [candidate("slow", condition=slow(6)), candidate("fast", condition=slow(1)), candidate("new")]
    decision = decide(pool, listed("slow", "fast", "new"))
    assert order(decision) == ["fast", "new", "slow"]
    assert "slow needs 6.0 s to the first token at p95" in decision.one_line()
    pool = [candidate("l", tier="large", condition=slow(6)), candidate("s", tier="small", condition=slow(1))]
    assert order(decide(pool, listed("l", "s"))) == ["l", "s"]
    assert order(decide(pool, listed("l", "s", first_token_within=timedelta(seconds=3)))) == ["s", "l"]


def test_one_request_in_fifty_looks_whether_the_slow_one_is_still_slow() -> None:
    pool = [candidate("slow", condition=slow(6)), candidate("fast", condition=slow(1))]
    for strategy in ("ordered", "fastest"):
        demand = listed("slow", "fast", strategy=strategy)
        tried = [order(decide(pool, replace(demand, seed=f"req_{number}")))[0] == "slow" for number in range(2_000)]
        assert 10 < sum(tried) < 80, "2 % of 2,000, give or take"


def test_fast_deployments_are_not_reordered_by_noise() -> None:
    for first, second in ((0.9, 0.5), (12, 10)):
        pool = [candidate("a", condition=slow(first)), candidate("b", condition=slow(second))]
        assert order(decide(pool, listed("a", "b"))) == ["a", "b"]


def test_what_has_no_room_for_a_while_goes_last() -> None:
    pool = [
        candidate("a", wait=timedelta(seconds=30)),
        candidate("b", wait=timedelta(milliseconds=300)),
        candidate("c"),
    ]
    decision = decide(pool, listed("a", "b", "c"))
    assert order(decision) == ["b", "c", "a"]
    assert "a has no room for 30 s" in decision.one_line()


def test_when_all_are_slow_the_order_stands_and_nothing_is_held_against_anyone() -> None:
    pool = [candidate("a", condition=slow(6)), candidate("b", condition=slow(6))]
    decision = decide(pool, listed("a", "b", first_token_within=timedelta(seconds=1)))
    assert order(decision) == ["a", "b"]
    assert decision.reasons == ()


def test_the_chosen_one_is_not_called_skipped() -> None:
    pool = [candidate("a", condition=slow(6)), candidate("b", condition=slow(1), wait=timedelta(seconds=30))]
    decision = decide(pool, listed("a", "b"))
    assert order(decision) == ["a", "b"], "slow is better than full"
    assert decision.one_line() == "a: the first choice; skipped: b has no room for 30 s"


def test_balanced_keeps_the_agents_order_between_models_and_shares_within_one() -> None:
    pool = [candidate("eu", model="m"), candidate("us", model="m"), candidate("other")]
    demand = listed("eu", "us", "other", strategy="balanced")
    firsts = {order(decide(pool, replace(demand, seed=str(number))))[0] for number in range(40)}
    assert firsts == {"eu", "us"}
    pool[:2] = [candidate("eu", model="x", pool="p"), candidate("us", model="y", pool="p")]
    firsts = {order(decide(pool, replace(demand, seed=str(number))))[0] for number in range(40)}
    assert firsts == {"eu", "us"}, "a pool may span names of one model"


def test_of_two_that_share_the_less_busy_is_called() -> None:
    def busy(first: int, second: int, weight: float = 1.0) -> set[str]:
        pool = [
            candidate("a", model="m", condition=Doing(in_flight=first)),
            candidate("b", model="m", weight=weight, condition=Doing(in_flight=second)),
        ]
        demand = listed("a", "b", strategy="balanced")
        return {order(decide(pool, replace(demand, seed=str(number))))[0] for number in range(40)}

    assert busy(3, 1) == {"b"}
    assert busy(3, 6, weight=3.0) == {"b"}, "six calls are few for three times the weight"
    assert busy(2, 2) == {"a", "b"}


def test_cheapest_compares_the_worst_case_of_this_call() -> None:
    pool = [
        candidate("reads-cheaply", input_usd_per_million=Decimal("0.1"), output_usd_per_million=Decimal(9)),
        candidate("writes-cheaply", input_usd_per_million=Decimal(3), output_usd_per_million=Decimal("0.1")),
        candidate("unpriced", input_usd_per_million=None),
    ]
    demand = Demand(strategy="cheapest", prompt_tokens=10_000, output_tokens=100)
    assert order(decide(pool, demand)) == ["reads-cheaply", "writes-cheaply", "unpriced"]
    assert order(decide(pool, replace(demand, prompt_tokens=100, output_tokens=10_000)))[0] == "writes-cheaply"


def test_fastest_tries_what_was_never_measured_and_breaks_ties_by_price() -> None:
    measured = Doing(first_token=timedelta(seconds=1), tokens_per_second=50)
    quick = Doing(first_token=timedelta(seconds=2), tokens_per_second=500)
    pool = [candidate("a", condition=measured), candidate("b", condition=quick)]
    demand = listed("a", "b", "c", strategy="fastest")
    assert order(decide(pool, demand)) == ["b", "a"], "500 tokens at 50 a second take longer"
    cheap: Candidate = candidate("c", input_usd_per_million=Decimal(0))
    assert order(decide([*pool, cheap], demand)) == ["c", "b", "a"]
    dear: Candidate = candidate("c", input_usd_per_million=Decimal(9))
    assert order(decide([*pool, dear], demand)) == ["c", "b", "a"], "or else it would never be measured"


def test_fastest_looks_now_and_then_whether_the_slow_and_dear_one_is_still_slow() -> None:
    pool = [
        candidate("fast", condition=slow(1)),
        candidate("slow", condition=slow(6), input_usd_per_million=Decimal(9)),
    ]
    demand = listed("fast", "slow", strategy="fastest")
    tried = [order(decide(pool, replace(demand, seed=f"req_{number}")))[0] == "slow" for number in range(2_000)]
    assert 10 < sum(tried) < 80, "2 % of 2,000, give or take"


def test_one_seed_keeps_the_turns_of_a_request_together() -> None:
    pool = [candidate(name, model="m") for name in "abcd"]
    demand = listed(*"abcd", strategy="balanced", seed="req_1")
    assert len({order(decide(pool, replace(demand, prompt_tokens=turn)))[0] for turn in range(20)}) == 1


def test_the_explanation_has_a_line_for_each_reason() -> None:
    decision = decide([candidate("a", enabled=False), candidate("b"), candidate("c")], listed("a", "b", "c"))
    assert explain(decision).splitlines() == [
        "b: the first choice; skipped: a is not enabled",
        "then: c",
        "",
        "usable  - a is not enabled",
    ]
