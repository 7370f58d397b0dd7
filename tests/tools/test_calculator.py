"""The calculator: exact, bounded, and nothing but arithmetic."""

import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.tools import calculator
from holdfast.tools.calculator import MAX_CHARACTERS, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1 + 0.2", "0.3"),
        ("(1299.90 - 149) * 1.19", "1369.571"),
        ("2 ** 10", "1024"),
        ("2 ** -2", "0.25"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7 - -3", "10"),
        ("1_000 / 3", "333.3333333333333333333333333333333"),
        ("round(2.675, 2)", "2.68"),
        ("round(2.5) + floor(-1.5) + ceil(1.2)", "3"),
        ("sqrt(16) ** 0.5", "2"),
        ("max(1, 2.5, 2) - min(4, 3) + sum(1, 2, 3)", "5.5"),
        ("ln(e)", "1"),
        ("abs(-1e3)", "1000"),
        ("1e-30", "1E-30"),
        ("9 ** 99", "2.951266543065275214875348022619774E+94"),
        ("99999999999999999 ** 2 % 7", "2"),
        ("7 % -3", "-2"),
        ("0 * -1", "0"),
        (" 1 +\n 1 ", "2"),
    ],
)
def test_the_value_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("__import__('os').system('true')", "other than numbers"),
        ("().__class__", "other than numbers"),
        ("[x for x in (1,)]", "other than numbers"),
        ("open('/etc/passwd')", "other than numbers"),
        ("1 if 2 else 3", "other than numbers"),
        ("'a' * 10", "other than numbers"),
        ("True + 1", "no numbers"),
        ("1j", "other than numbers"),
        ("2 ^ 3", "`**`"),
        ("1,000 + 1", "thousands"),
        ("sqrt()", "`sqrt` takes 1"),
        ("round(1, 2, 3)", "1 to 2"),
        ("round(1, digits=2)", "other than numbers"),
        ("round(1, 1.5)", "whole number"),
        ("1 / 0", "divides by zero"),
        ("5 % 0", "divides by zero"),
        ("sqrt(-1)", "no value"),
        ("ln(0)", "no value"),
        ("10 ** 99 % 7", "no exact one"),
        ("9 ** 9 ** 9 ** 9", "beyond"),
        ("1e9999", "beyond"),
        ("exp(1e9)", "beyond"),
        ("0x1F", "no value"),
        ("1 +", "not arithmetic"),
        ("", "not arithmetic"),
        ("1; 2", "not arithmetic"),
        ("2 × 3", "ASCII"),
        ("(" * 250 + "1" + ")" * 249, "not arithmetic"),
        ("1" * (MAX_CHARACTERS + 1), "longer"),
    ],
)
def test_what_is_no_arithmetic_or_has_no_value_is_told(expression: str, told: str) -> None:
    with pytest.raises(ToolProblem, match=told.replace("*", r"\*")):
        calculate(expression)


NUMBERS = st.sampled_from(["0", "1", "2", "9", "0.5", "1e99", "99999999999999999999"])


@given(
    st.recursive(
        NUMBERS,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner).map(
                lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
            ),
            st.tuples(st.sampled_from(["sqrt", "exp", "ln", "log10", "abs", "floor", "round"]), inner).map(
                lambda parts: f"{parts[0]}({parts[1]})"
            ),
        ),
        max_leaves=20,
    )
)
def test_any_arithmetic_ends_in_a_number_or_in_words(expression: str) -> None:
    try:
        value = calculate(expression)
    except ToolProblem:
        return
    assert Decimal(value).is_finite()
    assert len(value) < 60


@given(st.text(max_size=60))
def test_any_text_ends_in_a_number_or_in_words(text: str) -> None:
    with contextlib.suppress(ToolProblem):
        assert Decimal(calculate(text)).is_finite()


async def test_the_tool_has_no_options_and_taints_nothing() -> None:
    built = calculator.build("sum_up", {}, "tools.sum_up")
    assert (built.side_effects, built.origin, built.idempotent) == (False, None, True)
    nobody: Any = None
    assert await built.call(built.validate('{"expression": "1 + 1"}'), nobody) == "2"
    with pytest.raises(ToolProblem, match="expression"):
        built.validate('{"expression": ""}')
    with pytest.raises(ConfigurationError, match="'digits'"):
        calculator.build("sum_up", {"digits": 3}, "tools.sum_up")
