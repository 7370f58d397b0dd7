"""Finds payment card numbers. Pure, and linear in the length of the text."""

import re

from holdfast.guards.spans import Span

_SPACE = " \u00a0\u2007\u2009\u202f"
_DASH = "\\-\u2010-\u2015\u2212"
_RUN = re.compile(rf"(?<![A-Za-z0-9_+])(?<!\d[.,])\d(?:[{_SPACE}{_DASH}]{{0,3}}\d)+(?![A-Za-z0-9_])")
_GROUP = re.compile(r"\d+")

_PRINTED_LAYOUTS = (
    (4, 4, 4, 4, 3),
    (4, 4, 4, 4, 2),
    (4, 4, 4, 4, 1),
    (4, 4, 4, 4),
    (4, 4, 5),
    (4, 4, 4),
    (4, 6, 5),
    (4, 6, 4),
    (6, 13),
)
"""How cards group their digits: ISO/IEC 7812 leaves it open; these are the schemes' (Amex 4-6-5, Diners 4-6-4)."""

_LONGEST_PHONE_NUMBER = 15
"""Digits of the longest telephone number (ITU-T E.164); a longer run may be a card in any grouping."""


def find_payment_cards(text: str) -> list[Span]:
    """Find card numbers: 12 to 19 digits (ISO/IEC 7812-1) with a valid Luhn digit, plain or in groups.

    One random number in ten passes Luhn, so numbers that no card scheme issues are left alone: those that begin with 1
    unless they have 15 digits (UATP, JCB), and 12 to 14 digits that begin with 2. That spares timestamps.

    Args:
        text: Any text.

    Returns:
        Spans of kind `CARD`, in the order of the text.
    """
    spans: list[Span] = []
    for run in _RUN.finditer(text):
        groups = [(group.start(), group.end()) for group in _GROUP.finditer(text, run.start(), run.end())]
        first = 0
        while first < len(groups):
            used = _groups_of_card(text, groups[first : first + 19], alone=len(groups) <= 19 and first == 0)
            if used:
                spans.append(Span(groups[first][0], groups[first + used - 1][1], "CARD"))
            first += max(used, 1)
    return spans


def _groups_of_card(text: str, groups: list[tuple[int, int]], *, alone: bool) -> int:
    """How many of the first groups make up a card number; 0 for none. `alone`: there are no other groups."""
    lengths = tuple(end - start for start, end in groups)
    candidates = [len(layout) for layout in _PRINTED_LAYOUTS if lengths[: len(layout)] == layout]
    if alone and sum(lengths) > _LONGEST_PHONE_NUMBER:
        candidates.insert(0, len(groups))
    if lengths[0] >= 12:
        candidates.append(1)
    for count in candidates:
        if 12 <= sum(lengths[:count]) <= 19 and is_card_number(
            [int(digit) for start, end in groups[:count] for digit in text[start:end]]
        ):
            return count
    return 0


def is_card_number(digits: list[int]) -> bool:
    """Whether 12 to 19 digits may be a card's: Luhn's check (ISO/IEC 7812-1, annex B) and a first digit in use.

    Args:
        digits: The number's digits, 0 to 9 each.
    """
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    if digits[0] == 1 and len(digits) != 15:
        return False
    if digits[0] == 2 and len(digits) < 15:
        return False
    doubled = sum(2 * digit - (9 if digit > 4 else 0) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + doubled) % 10 == 0
