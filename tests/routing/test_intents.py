"""Handlers answer their own questions, and leave the others alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from holdfast.errors import ConfigurationError
from holdfast.routing import Intent, IntentMatcher, check_intents, texts_of
from tests.routing.conftest import Stored

Vectors = NDArray[np.float32]


def intents_of(data: Stored, split: str, **given: Any) -> list[Intent]:
    """The intents of one part, with their examples."""
    examples: dict[str, list[str]] = {}
    for row in data.rows:
        if row["split"] == split and row["role"] == "example":
            examples.setdefault(row["intent"], []).append(row["text"])
    return [Intent(name=name, deployment="d", examples=tuple(texts), **given) for name, texts in examples.items()]


def embedded(data: Stored, texts: Sequence[str]) -> Vectors:
    """Stored embeddings of texts."""
    row_of = {row["text"]: number for number, row in enumerate(data.rows)}
    return data.vectors[[row_of[text] for text in texts]]


def matcher_of(data: Stored, split: str) -> IntentMatcher:
    """The matcher of one part."""
    intents = intents_of(data, split)
    return IntentMatcher(intents, embedded(data, texts_of(intents)))


def found(data: Stored, role: str) -> list[tuple[str | None, str | None]]:
    """Intent written and intent matched, for the test part."""
    matcher = matcher_of(data, "test")
    pairs = []
    for row, vector in zip(data.rows, data.vectors, strict=True):
        if row["split"] == "test" and row["role"] == role:
            match = matcher.match(vector)
            pairs.append((row["intent"], match.intent if match else None))
    return pairs


def test_questions_about_other_things_reach_no_handler(intent_data: Stored) -> None:
    unrelated = found(intent_data, "unrelated")
    assert len(unrelated) >= 30
    assert all(matched is None for _, matched in unrelated)
    near = found(intent_data, "near_miss")
    assert len(near) >= 30
    assert sum(matched is not None for _, matched in near) <= 1, "same words, other meaning"


def test_other_wordings_of_an_intent_reach_it_and_never_another(intent_data: Stored) -> None:
    matches = found(intent_data, "match")
    assert all(matched in (None, written) for written, matched in matches)
    assert sum(matched is not None for _, matched in matches) >= 20


def test_examples_match_their_own_intent(intent_data: Stored) -> None:
    matcher = matcher_of(intent_data, "test")
    for row, vector in zip(intent_data.rows, intent_data.vectors, strict=True):
        if row["split"] == "test" and row["role"] == "example":
            nearest = matcher.nearest(vector)
            assert nearest is not None
            assert nearest.intent == row["intent"]


def test_a_counter_example_takes_its_question_away(intent_data: Stored) -> None:
    wrong = "Pay this invoice by Friday"
    vector = embedded(intent_data, [wrong])[0]
    assert matcher_of(intent_data, "test").match(vector) is not None
    intents = [
        intent.model_copy(update={"unlike": (wrong,)}) if intent.name == "invoice_copy" else intent
        for intent in intents_of(intent_data, "test")
    ]
    assert IntentMatcher(intents, embedded(intent_data, texts_of(intents))).match(vector) is None


def test_a_higher_threshold_answers_less(intent_data: Stored) -> None:
    vector = embedded(intent_data, ["Please resend the receipt"])[0]
    strict = intents_of(intent_data, "test", threshold=0.99)
    assert IntentMatcher(strict, embedded(intent_data, texts_of(strict))).match(vector) is None


def test_what_is_as_near_to_the_background_is_no_match() -> None:
    axis = np.eye(384, dtype=np.float32)
    examples = np.stack([axis[0], axis[0], axis[0]])
    question = (axis[0] * 0.8 + axis[1] * 0.6).astype(np.float32)
    intent = Intent(name="i", deployment="d", examples=("x", "y", "z"))
    assert IntentMatcher([intent], examples, axis[5:6]).match(question) is not None
    near = (axis[0] * 0.55 + axis[1] * 0.835)[None].astype(np.float32)
    assert IntentMatcher([intent], examples, near).match(question) is None
    answerable = axis[0:1]
    assert IntentMatcher([intent], examples, answerable).match(question) is not None, "left out of the background"


def test_without_intents_nothing_matches() -> None:
    assert IntentMatcher([], np.empty((0, 384), np.float32)).match(np.ones(384, np.float32)) is None


def test_an_intent_needs_three_examples() -> None:
    with pytest.raises(ValidationError, match="at least 3"):
        Intent(name="i", deployment="d", examples=("a", "b"))


@pytest.mark.parametrize(
    ("intents", "message"),
    [
        ((("one", "reset", "abc"), ("one", "reset", "def")), "agent.toml: intents: 'one' is there twice"),
        ((("one", "reste", "abc"),), "'one' names deployment 'reste', which models.toml does not define. Did you mean"),
        ((("one", "reset", "abc"), ("two", "reset", "cde")), "sentence 1 of intent 'two' is also in 'one'"),
        ((("one", "reset", "ab "),), "sentence 3 of intent 'one' is empty"),
    ],
)
def test_wrong_intents_are_named_with_file_and_remedy(intents: tuple[tuple[str, str, str], ...], message: str) -> None:
    built = [Intent(name=name, deployment=to, examples=tuple(examples)) for name, to, examples in intents]
    with pytest.raises(ConfigurationError, match=message):
        check_intents(built, ["reset", "gpt"], where="agent.toml: intents")
