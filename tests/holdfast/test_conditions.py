"""Conditions of approvals: what they may say, what they may cost, and what becomes of those that cannot be told."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from holdfast.conditions import (
    MAX_CHARACTERS,
    MAX_EXPRESSION,
    MAX_VALUES,
    ON_OUTPUT,
    ON_TOOL,
    Condition,
    ConditionProblem,
    check_condition,
)
from holdfast.errors import ConfigurationError

CALL: dict[str, Any] = {
    "tool": "refund",
    "args": {"amount": 120.5, "count": 5, "currency": "EUR", "lines": [1, 2, 3], "nothing": None, "huge": 10**30}
    | {"note": "nan", "urgent": True},
    "usage": {"tokens": 900, "cost_usd": None},
    "tainted": False,
}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("args.amount > 100", True),
        ("args.amount > 100.0 && tool == 'refund'", True),
        ("args.count >= 5.0", True),
        ("args.count == 5.0", True),
        ("5 < args.amount", True),
        ("args.huge > 100", True),
        ("args.currency in ['USD', 'GBP']", False),
        ("args.lines.exists(line, line > 2)", True),
        ("args.lines.filter(line, line > 1).all(line, line < 3)", False),
        ("size(args.lines) > 3", False),
        ("has(args.reason)", False),
        ("args.reason == 'x' || usage.tokens > 500", True),
        ("args.currency.matches('^E.R$')", True),
        ("tainted", False),
        ("args.nothing == null", True),
    ],
)
def test_a_condition_says_whether_it_holds(expression: str, holds: bool) -> None:
    check_condition(expression, ON_TOOL, "refunds.toml: `when`")
    assert Condition(expression).holds(CALL) is holds


@pytest.mark.parametrize(
    "expression",
    [
        "args.reason == 'x'",
        "usage.cost_usd < 1.0",
        "args.currency > 3",
        "args.count",
        "1 / 0 == 1",
        "args.lines[7] == 1",
        "args.currency.missing == 1",
        "size(args.count) > 1",
        "double(args.note) > 100.0",
        "!(double(args.note) <= 100.0)",
        "args.urgent > 5.0",
        "args.urgent == 1",
    ],
)
def test_what_cannot_be_told_is_neither_true_nor_false(expression: str) -> None:
    with pytest.raises(ConditionProblem) as problem:
        Condition(expression).holds(CALL)
    assert "EUR" not in str(problem.value), "no message holds a value"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "empty"),
        ("args.amount >", "cannot read it at line 1"),
        ("(" * 900, "CEL"),
        ("agrs.amount > 100", "Did you mean 'args'"),
        ("output == 'x'", "There is tool, args, usage, tainted"),
        ("sise(args.lines) > 1", "did you mean 'size'"),
        ("args.currency.startswith('E')", "did you mean 'startsWith'"),
        ("args.lines.exists(x, args.lines.all(y, x > y))", "inside another"),
        ("[1, 2].reduce(r, i, 'x', r + r) == ''", "'reduce'"),
        ("args.lines" + ".map(x, x + x)" * 7 + " == []", "ever larger"),
        ("args.lines" + ".map(x, [x, {'a': x}])" * 7 + " == []", "ever larger"),
        ("true || " * (MAX_EXPRESSION // 8) + "true", "characters"),
    ],
)
def test_a_condition_that_cannot_work_is_refused_when_the_agent_is_loaded(expression: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_condition(expression, ON_TOOL, "refunds.toml: `when`")
    assert "refunds.toml: `when`" in str(refused.value)
    assert said in str(refused.value)


def test_a_loop_s_own_name_is_no_variable() -> None:
    check_condition("output.lines.all(line, line.sum < 9)", ON_OUTPUT, "x")
    with pytest.raises(ConfigurationError, match="'lime'"):
        check_condition("output.lines.all(line, lime.sum < 9)", ON_OUTPUT, "x")


def test_what_is_too_large_to_look_at_is_not_looked_at() -> None:
    with pytest.raises(ConditionProblem, match="too much"):
        Condition("output.all(x, x > 0)").holds({"output": list(range(200_000))})
    with pytest.raises(ConditionProblem, match="too much"):
        Condition("size(output) > 3").holds({"output": "x" * (MAX_CHARACTERS + 1)})
    assert Condition("output[0] == 0").holds({"output": list(range(200_000))}), "a loop is what makes it long"
    with pytest.raises(ConditionProblem, match="too much"):
        Condition("output == output").holds({"output": list(range(MAX_VALUES))})


@pytest.mark.parametrize(
    "expression",
    ["output.exists(x, x in output)", "output.all(x, output != [])", "output.filter(x, output[0].matches(x)) == []"],
)
def test_a_loop_that_goes_through_everything_in_each_turn_is_bounded_by_its_square(expression: str) -> None:
    with pytest.raises(ConditionProblem, match="too much"):
        Condition(expression).holds({"output": [f"name {number}" for number in range(2_000)]})
    assert Condition(expression).holds({"output": ["a", "b"]}) in (True, False)


def test_a_loop_over_many_values_that_looks_at_its_own_is_no_square() -> None:
    rows: list[JsonValue] = [{"sum": number} for number in range(1_500)]
    assert Condition("output.exists(row, row.sum > 1400)").holds({"output": rows})


def test_a_deeply_nested_value_is_a_problem_not_a_crash() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConditionProblem):
        Condition("size(output) == 1").holds({"output": deep})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    values,
    st.sampled_from(
        [
            "output > 3",
            "output.a == output.b",
            "output.exists(x, x.a > 1)",
            "output.all(x, x == 1) && output['k'] != 'v'",
            "size(output) > 1 ? output[0] : output == null",
            "string(output) == '5' || int(output) > 2",
            "output.matches('(a+)+$') || output.contains('b')",
            "!output || -output < 3",
            "duration(output) > duration('1s')",
            "timestamp(output) > timestamp('2026-01-01T00:00:00Z')",
        ]
    ),
)
def test_every_value_gives_a_truth_or_a_problem(value: Any, expression: str) -> None:
    with suppress(ConditionProblem):
        assert Condition(expression).holds({"output": value}) in (True, False)
