"""The guards together: what a model is shown, and what comes back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.contracts import Guards
from holdfast.guards import Sanitizer, normalise, restore

_SANITIZER = Sanitizer()
_PIECES = st.sampled_from(
    [
        "jo@example.com",
        "4111 1111 1111 1111",
        "+44 7700 921916",
        "GB29NWBK60161331926819",
        "<EMAIL_1>",
        " ",
        "\u200b",
        ", ",
    ]
)


def test_personal_data_is_masked_and_counted() -> None:
    clean = _SANITIZER.sanitize(
        "I am jo@example.com or JO@example.com, card 4111-1111-1111-1111, IBAN GB29NWBK60161331926819, "
        "tel 0496 46 46 70.",
        Guards(),
    )
    assert clean.masked == "I am <EMAIL_1> or <EMAIL_2>, card <CARD_1>, IBAN <IBAN_1>, tel <PHONE_1>."
    assert clean.counts == {"EMAIL": 2, "CARD": 1, "IBAN": 1, "PHONE": 1}
    assert clean.mapping["<EMAIL_2>"] == "JO@example.com"
    assert clean.refusal is None


def test_invisible_characters_do_not_hide_personal_data() -> None:
    clean = _SANITIZER.sanitize("jo\u200b@exam\u2060ple.com", Guards())
    assert clean.masked == "<EMAIL_1>"
    assert clean.mapping == {"<EMAIL_1>": "jo@example.com"}


def test_masking_can_be_switched_off() -> None:
    clean = _SANITIZER.sanitize("jo@example.com\r\n", Guards(mask=False))
    assert clean.masked == "jo@example.com\n"
    assert clean.mapping == {}
    assert clean.counts == {}


@given(st.text() | st.lists(_PIECES | st.text(max_size=4)).map("".join))
@settings(deadline=None)
def test_restoring_gives_back_the_normalised_input(text: str) -> None:
    clean = _SANITIZER.sanitize(text, Guards())
    assert restore(clean.masked, clean.mapping) == normalise(text)


def test_a_refused_input_is_masked_all_the_same() -> None:
    clean = _SANITIZER.sanitize("secret of jo@example.com", Guards(refuse=("secret",)))
    assert clean.refusal is not None
    assert "jo@" not in clean.masked + clean.refusal


def test_a_rule_sees_what_masking_hides() -> None:
    assert _SANITIZER.sanitize("ask jo@example.com", Guards(refuse=(r"@example\.com",))).refusal is not None


@pytest.mark.parametrize("text", ["", "\u200b\u2060\n", "\U000e0041"])
def test_an_input_of_nothing_visible_is_refused(text: str) -> None:
    refusal = _SANITIZER.sanitize(text, Guards()).refusal
    assert refusal is not None
    assert "empty" in refusal


def test_an_oversized_input_is_refused_and_not_kept() -> None:
    clean = Sanitizer(max_input_bytes=20).sanitize("jo@example.com " * 2, Guards())
    assert clean.masked == ""
    assert clean.refusal is not None
    assert "20" in clean.refusal
