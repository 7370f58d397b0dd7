"""Finds international bank account numbers. Pure, and linear in the length of the text."""

import re

from holdfast.guards.spans import Span

_COUNTRY_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
"""Length by country, SWIFT IBAN Registry, release 99."""

_LENGTH_OF = {entry[:2]: int(entry[2:]) for entry in _COUNTRY_LENGTHS.split()}
_SEPARATOR = "[ \u00a0\u2007\u2009\u202f\\-\u2010-\u2015]?"
_BEGINNING = re.compile(rf"(?<![A-Za-z0-9])([A-Za-z]{{2}})[0-9]{{2}}(?={_SEPARATOR}[A-Za-z0-9])")
_GROUP = re.compile("[A-Za-z0-9]+")
_CHARACTER = re.compile(rf"{_SEPARATOR}([A-Za-z0-9])")


def find_ibans(text: str) -> list[Span]:
    """Find IBANs (ISO 13616-1), in one piece or in groups, in either case, with the right length and check digits.

    A number with a wrong check digit is not found: without it, every product code would look like one.

    Args:
        text: Any text.

    Returns:
        Spans of kind `IBAN`, in the order of the text.
    """
    spans: list[Span] = []
    position = 0
    while beginning := _BEGINNING.search(text, position):
        position = beginning.end()
        end = _end_of_iban(text, beginning.start(), _LENGTH_OF.get(beginning.group(1).upper(), 0))
        if end is not None:
            spans.append(Span(beginning.start(), end, "IBAN"))
            position = end
    return spans


def _end_of_iban(text: str, start: int, length: int) -> int | None:
    characters: list[str] = []
    position = start
    while len(characters) < length:
        match = _CHARACTER.match(text, position)
        if match is None:
            return None
        characters.append(match.group(1))
        position = match.end()
    if not characters or _CHARACTER.match(text, position, position + 1):
        return None
    # A group after the bank's has a digit in it, or `SE17 in colon tissues` could be one.
    later_groups = _GROUP.findall(text, start, position)[2:]
    if not all(any(character.isdigit() for character in group) for group in later_groups):
        return None
    return position if has_valid_check_digits("".join(characters)) else None


def has_valid_check_digits(iban: str) -> bool:
    """Whether an IBAN without separators satisfies ISO/IEC 7064 MOD 97-10.

    Args:
        iban: ASCII letters and digits.
    """
    rearranged = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % 97 == 1
