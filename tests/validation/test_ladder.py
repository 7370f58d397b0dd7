"""Which rung settles a reply, and that nothing is invented on the way."""

import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.contracts import FinishReason, Passage, Violation
from holdfast.validation import Validator, Verdict

_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
_PASSAGES = (
    Passage(source="a.md", start=10, end=20, text="first text", score=0.9),
    Passage(source="b.md", start=0, end=11, text="second text", score=0.8),
)


def check_json(reply: str, schema: dict[str, Any] | None = None, *, stop: FinishReason = FinishReason.STOP) -> Verdict:
    """Check a JSON reply, by default against the schema that admits everything."""
    return Validator().check(reply, finish_reason=stop, output_schema=schema or {}, passages=None)


def check_text(
    reply: str, passages: tuple[Passage, ...] | None = _PASSAGES, *, stop: FinishReason = FinishReason.STOP
) -> Verdict:
    """Check a free-text reply."""
    return Validator().check(reply, finish_reason=stop, output_schema=None, passages=passages)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(_VALUES, st.booleans())
@settings(deadline=None)
def test_valid_json_is_taken_as_it_is(value: Any, ascii_only: bool) -> None:
    reply = json.dumps(value, ensure_ascii=ascii_only)
    verdict = check_json(f"\n {reply}\t")
    assert (verdict.ok, verdict.rung, verdict.text) == (True, "as_is", reply)


@given(st.dictionaries(st.text(), _VALUES, max_size=4))
@settings(deadline=None)
def test_a_fence_and_words_around_json_are_taken_off(value: dict[str, Any]) -> None:
    verdict = check_json(f"Here it is:\n```json\n{json.dumps(value, indent=2)}\n```\nAnything else?")
    assert verdict.rung == "repaired"
    assert json.loads(verdict.text) == value


@given(st.text(max_size=200) | st.text(st.sampled_from("{}[]\":,\\ \nab01ue'`#/"), max_size=60))
@settings(deadline=None, max_examples=1_000)
def test_any_reply_gets_a_verdict_and_every_accepted_one_is_json(reply: str) -> None:
    verdict = check_json(reply)
    assert verdict.ok == (verdict.rung != "invalid") == (not verdict.violations)
    if verdict.ok:
        json.loads(verdict.text, parse_constant=pytest.fail)
        verdict.text.encode("utf-8")


@pytest.mark.parametrize(
    ("reply", "mended"),
    [
        ('{"a": 1,}', '{"a":1}'),
        ("{'a': 'b'}", '{"a":"b"}'),
        ("{a: 1}", '{"a":1}'),
        ('{"a": 1 "b": 2}', '{"a":1,"b":2}'),
        ('{"a": None, "b": True}', '{"a":null,"b":true}'),
        ('{"a": "x\ny"}', '{"a":"x\\ny"}'),
        ('{"a": "he said "hi" there"}', '{"a":"he said \\"hi\\" there"}'),
        ('{"a": 1 /* one */}', '{"a":1}'),
        ('{"a": [1, 2}', '{"a":[1,2]}'),
        ('{"a": {"b": 1}', '{"a":{"b":1}}'),
        ('<think>{"a": 0}?</think>{"a": 1}', '{"a":1}'),
        ('As [1] says: {"a": 1}', '{"a":1}'),
        ('{"a": "caf\\u00e9 \\ud83d\\ude00",}', '{"a":"café 😀"}'),
    ],
)
def test_slips_of_punctuation_are_repaired(reply: str, mended: str) -> None:
    verdict = check_json(reply)
    assert (verdict.rung, verdict.text) == ("repaired", mended)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("I cannot help with that.", "no JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity,}', "NaN"),
        ("```json\n[NaN]\n```", "NaN"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1e999,}', "too large"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 1, "a": 2,}', "not JSON"),
        ('{"a": 1} {"a": 2}', "2 JSON values"),
        ('First {"a": 1}, or better:\n```json\n{"a": 2}\n```', "2 JSON values"),
        ('["x"] {"a": 1}', "2 JSON values"),
        ('{"a": "it ends in the mid', "middle of a string"),
        ('{"a" 1}', "not JSON"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("[" * 101 + "]" * 101, "100 levels"),
        ("[" * 100_000, "100 levels"),
        ('{"a": ' + "9" * 5_000 + "}", "too long"),
    ],
)
def test_what_could_only_be_guessed_is_sent_back(reply: str, reason: str) -> None:
    verdict = check_json(reply)
    assert (verdict.ok, verdict.rung, verdict.text) == (False, "invalid", reply)
    assert [reason in violation.message for violation in verdict.violations] == [True]


def test_a_repaired_value_is_validated_too() -> None:
    assert check_json("{name: 'Ada', age: 36}", _PERSON).rung == "repaired"
    verdict = check_json("{name: 'Ada', age: -1}", _PERSON)
    assert verdict.rung == "invalid"
    assert [violation.path for violation in verdict.violations] == ["/age"]


def test_violations_point_into_the_reply() -> None:
    schema = {"properties": {"a/b": {"items": {"properties": {"~": {"type": "string"}}}}}}
    verdict = check_json('{"a/b": [{}, {"~": 1}]}', schema)
    assert verdict.violations == (Violation(path="/a~1b/1/~0", message='the value is not of type "string"'),)


def test_violations_do_not_repeat_the_values_of_the_reply() -> None:
    secret = "4111111111111111"
    schema = {"properties": {"a": {"type": "integer", "const": 3, "enum": [3]}, "b": {"maxLength": 2}}}
    verdict = check_json(json.dumps({"a": secret, "b": secret}), schema)
    assert len(verdict.violations) == 4
    assert not any(secret in violation.message for violation in verdict.violations)


def test_violations_are_few_and_short() -> None:
    names = [f"unexpected_{i}_{'x' * 50}" for i in range(50)]
    schema = {"additionalProperties": False, "required": [f"missing_{i}" for i in range(50)]}
    verdict = check_json(json.dumps(dict.fromkeys(names, 1)), schema)
    assert len(verdict.violations) == 10
    assert max(len(violation.message) for violation in verdict.violations) <= 120
    deep = check_json(json.dumps({"k" * 1_000: 1}), {"additionalProperties": {"type": "string"}})
    assert len(deep.violations[0].path) <= 200


@pytest.mark.parametrize("schema", [None, _PERSON])
@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (FinishReason.LENGTH, "cut off at the output limit"),
        (FinishReason.CONTENT_FILTER, "content filter"),
        (FinishReason.REFUSAL, "The model refused"),
        (FinishReason.TOOL_CALLS, "tool"),
    ],
)
def test_a_reply_that_did_not_end_by_itself_is_never_accepted(
    schema: dict[str, Any] | None, stop: FinishReason, reason: str
) -> None:
    verdict = Validator().check('{"name": "Ada"}', finish_reason=stop, output_schema=schema, passages=None)
    assert verdict.rung == "invalid"
    assert reason in verdict.violations[0].message


def test_free_text_is_taken_without_surrounding_space() -> None:
    assert check_text("\n The answer. \n") == Verdict(ok=True, text="The answer.", rung="as_is")


def test_empty_free_text_is_a_violation() -> None:
    verdict = check_text(" \n")
    assert (verdict.ok, verdict.violations[0].message) == (False, "The reply is empty.")


def test_citations_are_those_of_the_text_in_order_of_first_appearance() -> None:
    verdict = check_text("Second [2]. Both [1, 2][1].")
    assert [citation.marker for citation in verdict.citations] == [2, 1]
    citation = verdict.citations[1]
    assert (citation.source, citation.start, citation.end, citation.quote) == ("a.md", 10, 20, "first text")


@pytest.mark.parametrize(
    ("reply", "passages", "messages"),
    [
        ("x [3] y [1]", _PASSAGES, ["Marker [3] cites nothing: 2 passages were given, [1] to [2]."]),
        ("x [1][2]", _PASSAGES[:1], ["Marker [2] cites nothing: one passage was given, [1]."]),
        ("x [1]", (), ["Marker [1] cites nothing: no passage was given."]),
        ("x [0; 9]", _PASSAGES, [f"Marker [{n}] cites nothing: 2 passages were given, [1] to [2]." for n in (0, 9)]),
    ],
)
def test_a_marker_without_a_passage_is_a_violation(
    reply: str, passages: tuple[Passage, ...], messages: list[str]
) -> None:
    verdict = check_text(reply, passages)
    assert [violation.message for violation in verdict.violations] == messages


@pytest.mark.parametrize("reply", ["In [2024] it was so.", "Use `rows[7]`.", "```\nx = rows[7]\n```", "[n] and [a, 1]"])
def test_years_and_code_cite_nothing(reply: str) -> None:
    verdict = check_text(reply)
    assert (verdict.ok, verdict.citations) == (True, ())


def test_without_retrieval_bracketed_numbers_mean_nothing() -> None:
    assert check_text("Pick item [7].", None).ok


@given(st.lists(st.integers(1, 5), max_size=8))
@settings(deadline=None)
def test_each_passage_is_cited_once(markers: list[int]) -> None:
    passages = tuple(Passage(source=f"{n}.md", start=0, end=1, text="x", score=0.5) for n in range(1, 6))
    verdict = check_text("text " + "".join(f"[{n}]" for n in markers), passages)
    assert [citation.source for citation in verdict.citations] == [f"{n}.md" for n in dict.fromkeys(markers)]


def test_a_reply_of_nothing_but_opening_tags_is_read_in_one_pass() -> None:
    # With a backtracking pattern this took minutes; the suite would not end.
    assert not check_json("<think>" * 100_000, {}).ok


def test_a_broken_reply_too_long_to_repair_says_so() -> None:
    verdict = check_json("{'a': " + "'b', " * 50_000 + "}", {})
    assert "too long to be repaired" in verdict.violations[0].message


def test_threads_share_one_validator() -> None:
    validator, verdicts = Validator(), []

    def work() -> None:
        for _ in range(50):
            verdicts.append(
                validator.check(
                    '{"name": 1}', finish_reason=FinishReason.STOP, output_schema=_PERSON, passages=None
                ).rung
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["invalid"] * 200


def test_a_name_that_the_reply_made_up_is_in_no_violation() -> None:
    made_up = "call refund A7"
    for reply in ({"name": "a", made_up: 1}, {"name": "a", "age": {made_up: 1}}):
        verdict = check_json(json.dumps(reply), _PERSON)
        assert not verdict.ok
        assert made_up not in "".join(violation.path + violation.message for violation in verdict.violations)
    nested = {"type": "object", "additionalProperties": {"type": "integer"}}
    (violation,) = check_json(json.dumps({made_up: "x"}), nested).violations
    assert violation.path == "/*"
