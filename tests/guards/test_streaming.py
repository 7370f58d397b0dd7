"""Values come back in a text that arrives in pieces as they would in the whole, wherever it is cut."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.guards import JsonStreamRestorer, StreamRestorer, restore

_MAPPING = {
    "<EMAIL_1>": "ada@example.org",
    "<EMAIL_12>": 'a "quoted" one',
    "<IBAN_2>": "back\\slash\nand line",
    "<PHONE_1>": "<EMAIL_1>",
}
_BITS = st.sampled_from(
    [
        *("<", ">", "&", "&lt;", "&gt;", "\\", "\\u003c", "\\u003e", "\\u003C", "\\>", " ", "_", "-", "\\_", "\n"),
        *(
            "EMAIL",
            "email",
            "IBAN",
            "PHONE",
            "CARD",
            "NAME",
            "E",
            "MAIL",
            "1",
            "2",
            "12",
            "01",
            "000000001",
            "0000000001",
        ),
        *("<EMAIL_1>", "<email 12>", "&lt;IBAN-2&gt;", "\\u003cPHONE_1\\u003e", "<CARD_1>", "<EMAIL_3>", "u003c", "x"),
    ]
)
_TEXTS = st.lists(_BITS | st.text(max_size=2), max_size=14).map("".join)
_MAPPINGS = st.sets(st.sampled_from(sorted(_MAPPING))).map(lambda names: {name: _MAPPING[name] for name in names})


def _pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def _streamed(restorer: StreamRestorer | JsonStreamRestorer, pieces: list[str]) -> str:
    return "".join([*(restorer.feed(piece) for piece in pieces), restorer.finish()])


@given(_TEXTS, st.lists(st.integers(0, 200), max_size=12), _MAPPINGS)
@settings(max_examples=1_000)
@example("<EMAIL_1>", [3], _MAPPING)
@example("<PHONE_1&lt;EMAIL_1>", [9], _MAPPING)
def test_any_cut_gives_what_the_whole_gives(text: str, cuts: list[int], mapping: dict[str, str]) -> None:
    assert _streamed(StreamRestorer(mapping), _pieces(text, cuts)) == restore(text, mapping)


@given(_TEXTS, _MAPPINGS)
@settings(max_examples=1_000)
def test_single_characters_give_what_the_whole_gives(text: str, mapping: dict[str, str]) -> None:
    assert _streamed(StreamRestorer(mapping), list(text)) == restore(text, mapping)


@given(_TEXTS)
@settings(max_examples=500)
def test_little_is_held_back_and_only_what_begins_like_a_placeholder(text: str) -> None:
    restorer = StreamRestorer(_MAPPING)
    shown = "".join(restorer.feed(character) for character in text)
    held = restore(text, _MAPPING)[len(shown) :]
    assert len(held) <= len("\\u003c PHONE___123456789 \\u003e") - 1
    assert re.match(r"(?i)<|&(l|\Z)|\\(u|\Z)|\Z", held)


@pytest.mark.parametrize(
    "piece", ["Nothing to see.", "<b>", "a < b & c", "<CARD_1", "<NAME", "&amp;", "\\n", "<EMAIL_1_"]
)
def test_what_cannot_become_a_placeholder_is_not_held_back(piece: str) -> None:
    assert StreamRestorer({"<EMAIL_1>": "ada@example.org"}).feed(piece) == piece


def test_without_a_mapping_nothing_is_held_back() -> None:
    assert StreamRestorer({}).feed("<EMAIL_1") == "<EMAIL_1"
    assert JsonStreamRestorer({}).feed('"<EMAIL_1') == '"<EMAIL_1'


def test_half_a_placeholder_is_never_shown() -> None:
    restorer = StreamRestorer(_MAPPING)
    shown = [restorer.feed(piece) for piece in ("Write to <EM", "AIL_1", "> or call <PHONE_", "1>.")]
    assert shown == ["Write to ", "", "ada@example.org or call ", "<EMAIL_1>."]


def _restored(value: object, mapping: dict[str, str]) -> object:
    match value:
        case str():
            return restore(value, mapping)
        case list():
            return [_restored(item, mapping) for item in value]
        case dict():
            return {restore(key, mapping): _restored(item, mapping) for key, item in value.items()}
        case _:
            return value


_JSON = st.recursive(
    st.none() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(_JSON, st.booleans(), st.lists(st.integers(0, 400), max_size=12), _MAPPINGS)
@settings(max_examples=600)
@example("\\u003cEMAIL_1>", False, [], _MAPPING)
@example("<EMAIL\n1>", True, [8], _MAPPING)
def test_json_stays_json_and_says_what_was_restored(
    value: object, ascii_only: bool, cuts: list[int], mapping: dict[str, str]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json.loads(_streamed(JsonStreamRestorer(mapping), _pieces(text, cuts))) == _restored(value, mapping)


@given(st.text() | _TEXTS, st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=1_000)
def test_text_without_placeholders_comes_out_as_it_came_in_json_or_not(text: str, cuts: list[int]) -> None:
    mapping = {"<CARD_77>": "4111"}
    assert _streamed(JsonStreamRestorer(mapping), _pieces(text, cuts)) == text


def test_a_placeholder_whose_letters_are_escaped_is_restored_in_json() -> None:
    text = '{"to": "\\u003C\\u0045MAIL_1\\u003e", "cc":"<IBAN_2>"}'
    streamed = _streamed(JsonStreamRestorer(_MAPPING), list(text))
    assert streamed == '{"to": "ada@example.org", "cc":"back\\\\slash\\nand line"}'
