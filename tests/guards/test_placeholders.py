"""Masking is reversible whatever the text, the spans and the model's spelling."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from holdfast.guards import KINDS, Span, mask, restore, restore_within
from holdfast.guards.placeholders import mask_all

_LOOK_ALIKES = st.sampled_from(
    ["<EMAIL_1>", "<email 2>", "<EMAIL_", "1>", "<", ">", "&lt;PHONE-1&gt;", "\\u003cCARD_1\\u003e", "\\", "<IBAN_01>"]
)
_TEXTS = st.text() | st.lists(st.text(max_size=3) | _LOOK_ALIKES, max_size=12).map("".join)
_SPANS = st.lists(st.builds(Span, st.integers(-3, 60), st.integers(-3, 60), st.sampled_from(KINDS)), max_size=8)


@given(_TEXTS, _SPANS)
@settings(deadline=None, max_examples=1_000)
def test_restoring_a_masked_text_gives_it_back_exactly(text: str, spans: list[Span]) -> None:
    masked = mask(text, spans)
    assert restore(masked.text, masked.mapping) == text


@given(_TEXTS, _SPANS)
@settings(deadline=None)
def test_counts_are_those_of_the_mapping(text: str, spans: list[Span]) -> None:
    masked = mask(text, spans)
    assert sum(masked.counts.values()) == len(masked.mapping)


@given(_TEXTS, _SPANS, _TEXTS, _SPANS)
@settings(deadline=None)
def test_what_is_masked_later_never_changes_what_an_earlier_text_is_restored_to(
    text: str, spans: list[Span], later: str, later_spans: list[Span]
) -> None:
    first = mask(text, spans)
    _, mapping, counts = mask_all([later], [later_spans], known=first.mapping, beside=[first.text])
    assert restore(first.text, mapping) == text
    assert mapping.items() >= first.mapping.items()
    assert sum(counts.values()) == len(mapping) - len(first.mapping)


def test_a_value_keeps_its_placeholder_in_later_texts_and_new_ones_count_on() -> None:
    texts, mapping, counts = mask_all(
        ["c@d.io wrote to a@b.io"],
        [[Span(0, 6, "EMAIL"), Span(16, 22, "EMAIL")]],
        known={"<EMAIL_1>": "a@b.io"},
        beside=["<EMAIL_2> is a name here"],
    )
    assert texts == ("<EMAIL_3> wrote to <EMAIL_1>",)
    assert mapping == {"<EMAIL_1>": "a@b.io", "<EMAIL_3>": "c@d.io"}
    assert counts == {"EMAIL": 1}


def test_values_inside_json_are_restored_as_whole_strings() -> None:
    value: JsonValue = {"to": ["<EMAIL_1>", 7, None], "<EMAIL_1>": {"text": "Dear <email 1>"}}
    awkward = 'a"b\n@c.io'
    assert restore_within(value, {"<EMAIL_1>": awkward}) == {
        "to": [awkward, 7, None],
        awkward: {"text": f"Dear {awkward}"},
    }


def test_the_same_value_gets_the_same_placeholder() -> None:
    masked = mask("a@b.io, c@d.io, a@b.io", [Span(0, 6, "EMAIL"), Span(8, 14, "EMAIL"), Span(16, 22, "EMAIL")])
    assert masked.text == "<EMAIL_1>, <EMAIL_2>, <EMAIL_1>"
    assert masked.mapping == {"<EMAIL_1>": "a@b.io", "<EMAIL_2>": "c@d.io"}
    assert masked.counts == {"EMAIL": 2}


@pytest.mark.parametrize("typed", ["<EMAIL_1>", "<email 1>", "&lt;EMAIL_1&gt;"])
def test_a_placeholder_that_a_person_typed_stays_theirs(typed: str) -> None:
    text = f"{typed} is not a@b.io"
    masked = mask(text, [Span(len(text) - 6, len(text), "EMAIL")])
    assert masked.text == f"{typed} is not <EMAIL_2>"
    assert restore(masked.text, masked.mapping) == text


def test_overlapping_spans_hide_everything_they_cover() -> None:
    masked = mask("0123456789", [Span(0, 5, "PHONE"), Span(3, 8, "CARD")])
    assert masked.text == "<PHONE_1>89"
    assert masked.mapping == {"<PHONE_1>": "01234567"}


@pytest.mark.parametrize(
    "spelling",
    [
        "<EMAIL_1>",
        "<email_1>",
        "<Email 1>",
        "<EMAIL-1>",
        "< EMAIL_1 >",
        "<EMAIL1>",
        r"<EMAIL\_1>",
        "&lt;EMAIL_1&gt;",
        r"\u003cEMAIL_1\u003e",
    ],
)
def test_what_models_make_of_a_placeholder_is_restored(spelling: str) -> None:
    assert restore(f"Write to {spelling}.", {"<EMAIL_1>": "a@b.io"}) == "Write to a@b.io."


@pytest.mark.parametrize(
    "text", ["<EMAIL_2>", "<EMAIL_11>", "<PHONE_1>", "EMAIL_1", "<NAME_1>", "<EMAIL_1", "<EMAİL_1>"]
)
def test_an_unknown_placeholder_stays(text: str) -> None:
    assert restore(text, {"<EMAIL_1>": "a@b.io"}) == text


def test_restoring_is_not_recursive() -> None:
    mapping = {"<EMAIL_1>": "<PHONE_1>", "<PHONE_1>": "0496 46 46 70"}
    assert restore("<EMAIL_1>", mapping) == "<PHONE_1>"
