"""The mix of questions: its proportions, and that nothing is asked that the trained parts were shown."""

import json
from collections import Counter
from importlib.resources import files

from bench.questions import intents, mix


def rows(name: str) -> list[dict[str, str]]:
    stored = files("holdfast").joinpath(f"data/routing/{name}").read_text(encoding="utf-8")
    return [json.loads(line) for line in stored.splitlines()]


def test_a_thousand_questions_have_the_stated_kinds() -> None:
    asked = mix(1_000).asked
    assert Counter(one.kind for one in asked) == {"repeated": 300, "known": 200, "simple": 300, "hard": 200}


def test_repetitions_are_of_popular_questions_and_everything_else_is_new() -> None:
    drawn = mix(1_000)
    new = [one.text for one in drawn.asked if one.kind != "repeated"]
    assert {one.text for one in drawn.asked if one.kind == "repeated"} <= set(drawn.popular)
    assert len(set(new)) == len(new)
    assert not set(new) & set(drawn.popular)


def test_a_seed_draws_the_same_mix_again_and_another_one_another() -> None:
    assert mix(50) == mix(50)
    assert mix(50).asked != mix(50, seed=2).asked


def test_the_shares_can_be_chosen() -> None:
    asked = mix(100, repeated=0.1, simple=0.2).asked
    kinds = Counter(one.kind for one in asked)
    assert kinds["repeated"] == 10
    assert kinds["known"] + kinds["simple"] == 20
    assert kinds["hard"] == 70


def test_no_question_is_a_sentence_that_the_classifier_was_trained_on_or_that_the_agent_is_taught() -> None:
    asked = {one.text for one in mix(1_000).asked}
    trained = {row["text"] for row in rows("complexity.jsonl") if row["split"] != "test"}
    taught = {text for examples in intents().values() for text in examples}
    assert not asked & trained
    assert not asked & taught
