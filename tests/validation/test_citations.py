"""Markers of an answer that is put beside other answers get other numbers, and code keeps its brackets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.validation import cited_markers, renumbered


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ten [1].", "Ten [4]."),
        ("Ten [1][2], [1, 2] and [ 2;1 ].", "Ten [4][7], [4, 7] and [7, 4]."),
        ("Ten [3].", "Ten (3)."),
        ("Ten [1, 3].", "Ten [4](3)."),
        ("Rows `rows[1]` and ```\nx[2]\n``` of 2024 [2024].", "Rows `rows[1]` and ```\nx[2]\n``` of 2024 [2024]."),
    ],
)
def test_markers_are_renumbered_outside_code_and_those_without_a_source_lose_their_brackets(
    text: str, shown: str
) -> None:
    assert renumbered(text, {1: 4, 2: 7}) == shown


@given(st.text(alphabet="[]12 ,;`ab\n", max_size=80))
def test_what_is_cited_afterwards_is_what_was_cited_before_under_its_new_number(text: str) -> None:
    numbers = {1: 101, 2: 102, 12: 112}
    expected = tuple(numbers[marker] for marker in cited_markers(text) if marker in numbers)
    assert cited_markers(renumbered(text, numbers)) == expected
