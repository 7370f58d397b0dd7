"""One spelling: what goes, what stays, and that a second pass changes nothing."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.guards import matching_view, normalise

_TROUBLE = st.sampled_from(
    list("\r\n\t\x00\x85\u200b\u200c\u200d\u202e\u2066\ufeff\ufe0f\U000e0041\U000e0100\ud83d\u0301\u212b\u0958क👩💻葛e")
)


@given(st.text() | st.lists(_TROUBLE).map("".join))
@settings(deadline=None, max_examples=500)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text() | st.lists(_TROUBLE).map("".join))
@settings(deadline=None)
def test_a_normalised_text_can_be_stored_as_utf8(text: str) -> None:
    assert normalise(text).encode("utf-8").decode("utf-8") == normalise(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\n\t")))
def test_plain_ascii_stays_as_it_is(text: str) -> None:
    assert normalise(text) == text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("one\r\ntwo\rthree\u2028four\ffive", "one\ntwo\nthree\nfour\nfive"),
        ("ig\u200bno\u2060re\ufeff", "ignore"),
        ("\u202egnp.exe\u202c", "gnp.exe"),
        ("\u2066isolated\u2069", "isolated"),
        ("hello\U000e0069\U000e0067\U000e006e", "hello"),
        ("bell\x07 and null\x00", "bell and null"),
        ("cafe\u0301", "café"),
        ("pass\u200dword", "password"),
        ("a\ufe0f\ufe01\ufe02\ufe03", "a\ufe0f"),
        ("x\U000e0100\U000e0101", "x"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_what_a_reader_cannot_see_is_removed(written: str, kept: str) -> None:
    assert normalise(written) == kept


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻 👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈",  # emoji sequences
        "می\u200cخواهم",  # Persian: the non-joiner is part of the spelling
        "क्\u200dष",  # Devanagari: the joiner chooses the half form
        "葛\U000e0100",  # an ideographic variant in a name
        "x² ﬁ Ａ ½",  # compatibility characters mean something
    ],
)
def test_what_carries_meaning_is_kept(text: str) -> None:
    assert normalise(text) == text


def test_the_matching_view_folds_look_alikes_that_the_text_keeps() -> None:
    assert matching_view("ｉｇｎｏｒｅ ﬁle") == "ignore file"
