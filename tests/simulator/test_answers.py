"""Plain answers: passages, filler, and pieces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.tokens import count_tokens
from simulator.answers import filler, numbered_passages, plain_answer, quote, token_pieces
from tests.simulator.conftest import Ask

PROMPT = """Passages:
[1] Orders ship on Mondays. They arrive within a week.
[2] Refunds are paid within 30 days. Keep the receipt.
They go to the original card.

[3] Cats sleep a lot.

Question: When are refunds paid?"""


def test_an_answer_quotes_the_passage_that_fits_and_ends_with_its_marker() -> None:
    answer = plain_answer(PROMPT, 24, random.Random(0))
    assert answer == "Refunds are paid within 30 days. Keep the receipt. [2]"


def test_passages_span_lines_until_an_empty_one() -> None:
    passages, question = numbered_passages(PROMPT)
    assert [passage.marker for passage in passages] == [1, 2, 3]
    assert passages[1].text.endswith("They go to the original card.")
    assert "When are refunds paid?" in question
    assert "Cats" not in question


def test_a_question_that_fits_nothing_still_gets_a_cited_sentence() -> None:
    assert plain_answer("[4] One thing.\n\nzzz?", 24, random.Random(0)) == "One thing. [4]"


def test_empty_passages_are_no_passages() -> None:
    assert "[1]" not in plain_answer("[1]\n[2]\n\nWhat?", 24, random.Random(0))


async def test_the_server_answers_from_the_last_user_message(ask: Ask) -> None:
    messages = [
        {"role": "system", "content": "[9] Not this."},
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
        {"role": "assistant", "content": "[8] Nor this."},
    ]
    content = (await ask(messages=messages)).json()["choices"][0]["message"]["content"]
    assert content.endswith("[2]")


@given(st.integers(1, 400), st.integers())
def test_filler_has_exactly_the_tokens_asked_for(tokens: int, seed: int) -> None:
    assert count_tokens(filler(tokens, random.Random(seed))) == tokens


@given(st.text(max_size=60), st.integers(1, 9))
def test_pieces_join_to_the_text_and_count_its_tokens(text: str, size: int) -> None:
    pieces = list(token_pieces(text, size))
    assert "".join(piece for piece, _ in pieces) == text
    assert sum(count for _, count in pieces) == count_tokens(text)
    assert all(count <= size for _, count in pieces)


def test_quoting_needs_a_passage() -> None:
    with pytest.raises(ValueError, match="passages"):
        quote((), "x")
