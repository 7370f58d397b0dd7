"""Finds telephone numbers: a run of 7 to 15 digits that is laid out, introduced or numbered like one. Pure.

Numbers are everywhere, so a candidate is judged three times: things that are certainly something else (dates, IP
addresses, decimals, URLs) are taken out, a layout that only telephone numbers have is accepted, and what remains needs
a word such as "call" nearby or a number plan that contains it.
"""

import re
from itertools import pairwise

import phonenumbers

from holdfast.guards.spans import Span

_FEWEST_DIGITS, _MOST_DIGITS = 7, 15  # E.164 allows 15; below 7 nearly everything is something else
_LONGEST_GROUP = 9
"""A group of so many digits is a number by itself."""

_SPACE = " \t\u00a0\u2007\u2009\u202f"
_DASH = "\\-\u2010-\u2015\u2212"
_RUN = re.compile(
    rf"(?<![A-Za-z0-9_+])(?<!\d[.,:])[+(]{{0,2}}\d(?:[{_SPACE}{_DASH}./()]{{0,3}}\d){{6,}}"
    r"(?P<extension>[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]{0,2}\d{1,6})?",
    re.IGNORECASE,
)
_GROUP = re.compile(r"\d+")
_SEPARATORS = re.compile(r"\D+")

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"]{1,2048}", re.IGNORECASE)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_IP_ADDRESS = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![.]?\d)")
_DAY, _MONTH, _YEAR = "(?:0?[1-9]|[12]\\d|3[01])", "(?:0?[1-9]|1[0-2])", "(?:19|20)\\d\\d"
_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER = r"(?<!\d)(?<!\d[-/.])", r"(?![-/.]?\d)"
_DATES = (
    re.compile(rf"{_NO_DIGIT_BEFORE}{_YEAR}([-/.]){_MONTH}\1{_DAY}{_NO_DIGIT_AFTER}"),
    re.compile(
        rf"{_NO_DIGIT_BEFORE}(?:{_DAY}([-/.]){_MONTH}|{_MONTH}([-/.]){_DAY})[-/.](?:{_YEAR}|\d\d){_NO_DIGIT_AFTER}"
    ),
    re.compile(rf"{_NO_DIGIT_BEFORE}{_DAY} {_MONTH} {_YEAR}(?![ ]?\d)"),
)
_NOT_A_PHONE = (_URL, _UUID, *_DATES, _IP_ADDRESS)

_CONTEXT_CHARACTERS = 48
_INTRODUCED = re.compile(
    r"(?:phone|tel[ée]?fono?|\bt[eé]l\b|\bmobil\w*|\bm[óo]vil\b|\bhandy(?:nummer)?\b|\bcell\b(?=\s*(?:phones?|no|number|is)?[\s:#.]*\Z)|cellular|\bcall(?:s|ed|ing)?\b"
    r"|\bfax\b|\bdial|\btext(?:ed|ing)?\b|\bsms\b|whatsapp|\bring\b|hotline|landline|\breach(?:able|ed)?\b|\bcontact\b)",
    re.IGNORECASE,
)
_FOLLOWED = re.compile(r"\W{0,3}\(?(?:fax|mobile|office|phone|cell|home|work|desk|tel)\b", re.IGNORECASE)
_NUMBERED = re.compile(
    r"(?:(?:\b|_)(?:order|invoice|ticket|account|acct|reference|ref|case|tracking|parcel|shipment|policy|claim|serial|sku"
    r"|isbn|issn|doi|article|item|product|part|version|build|commit|timestamp|epoch|transaction|confirmation|booking"
    r"|membership|passport|licen[cs]e|vat|tax|id)|(?-i:[a-z]Id))"
    r"[\s\"'_-]{0,3}(?:numbers?|no|nr|id|code|is|was)?[\s.:#=№\"'-]{0,4}\Z",
    re.IGNORECASE,
)
_JOINED = re.compile(r"(?:[A-Za-z0-9_][-/=@&]|[#№]\s?)\Z")
_COLUMNS = re.compile(rf"[{_SPACE}]{{2}}")
_AREA_CODE = re.compile(r"(?:\d{1,3}[\s.-]{0,2})?\(\d{1,5}\)[^()]*\Z")
_AMOUNT_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:USD|EUR|GBP|INR|CHF|JPY|Rs\.?|NOK|SEK|DKK))\s?\Z", re.IGNORECASE)
_AMOUNT_AFTER = re.compile(
    r"\s?(?:[%€$£¥₹]|(?:USD|EUR|GBP|INR|CHF|JPY|NOK|SEK|DKK|dollars?|euros?|pounds?|rupees|bytes|[kMGT]i?B|[kcm]?m|kg|ms)\b)"
)


def find_phone_numbers(text: str) -> list[Span]:
    """Find telephone numbers, international and national, with extensions.

    Other identifiers in the same layout (a US social security number, a house number beside a postal code) are found
    too: to hide one of those under the wrong name does less harm than to send it out.

    Args:
        text: A text; blank out what is known to be something else (cards, IBANs, addresses) before.

    Returns:
        Spans of kind `PHONE`, in the order of the text.
    """
    for pattern in _NOT_A_PHONE:
        text = pattern.sub(lambda match: "\n" * len(match.group()), text)
    spans: list[Span] = []
    for run in _RUN.finditer(text):
        start, end = run.span()
        if text[start] == "(" and run.group().count("(") > run.group().count(")"):
            start += 1  # the sentence's own bracket
        digits_end = run.start("extension") if run.group("extension") else end
        count = sum(character.isdigit() for character in text[start:digits_end])
        if count > _MOST_DIGITS:
            spans.extend(_numbers_in_list(text, start, digits_end))
        elif count >= _FEWEST_DIGITS and (digits_end < end or _is_phone_number(text, start, end)):
            spans.append(Span(start, end, "PHONE"))
    return spans


def _is_phone_number(text: str, start: int, end: int) -> bool:
    candidate = text[start:end]
    before, after = text[max(0, start - _CONTEXT_CHARACTERS) : start], text[end : end + 12]
    is_numbered = _NUMBERED.search(before) is not None
    if _AMOUNT_BEFORE.search(before) or _AMOUNT_AFTER.match(after):
        return False
    if candidate.startswith(("+", "(+")):
        return True
    if not is_numbered and (_INTRODUCED.search(before) or _FOLLOWED.match(after)):
        return not _is_decimal(candidate)
    if is_numbered or _JOINED.search(before) or re.match("[A-Za-z_=]", after):
        return False
    groups = _GROUP.findall(candidate)
    if len(groups) == 1:
        return _is_in_a_number_plan(candidate)
    return _is_laid_out_like_a_phone_number(candidate, groups)


def _is_decimal(candidate: str) -> bool:
    return re.fullmatch(r"\d+[.]\d+", candidate) is not None


def _is_laid_out_like_a_phone_number(candidate: str, groups: list[str]) -> bool:
    """Whether several groups of digits, without any word to help, are more likely a telephone number than not."""
    lengths = [len(group) for group in groups]
    separators = {separator.strip() for separator in _SEPARATORS.findall(candidate)}
    if _is_decimal(candidate) or ("." in separators and len(separators) > 1) or _COLUMNS.search(candidate):
        return False
    if "(" in candidate:
        return _AREA_CODE.match(candidate) is not None
    if "/" in separators and not (len(groups) == 2 and groups[0].startswith("0")):
        return False
    if _is_thousands(groups, lengths):
        return False
    if len(groups) == 2:
        starts_with_year = re.fullmatch(_YEAR, groups[0]) is not None
        is_postal_code = lengths == [5, 4]
        is_range = all(group.endswith("00") for group in groups) or _is_range(candidate, groups)
        return lengths[0] > 1 and not (starts_with_year or is_postal_code or is_range)
    is_series = [int(group) for group in groups] == sorted({int(group) for group in groups})
    is_uniform = len(set(lengths)) == 1
    is_isbn = groups[0] in ("978", "979") and sum(lengths) == 13
    are_years = all(re.fullmatch(_YEAR, group) for group in groups)
    return max(lengths) > 1 and not ((is_uniform and is_series) or is_isbn or are_years)


def _is_range(candidate: str, groups: list[str]) -> bool:
    """Whether two groups are the ends of a range, such as the pages `2329-2335`."""
    first, last = int(groups[0]), int(groups[1])
    return " " not in candidate and len(groups[0]) == len(groups[1]) and first < last < 2 * first


def _is_thousands(groups: list[str], lengths: list[int]) -> bool:
    """Whether the groups are one number with thousands separators, such as `12 345 678`."""
    in_threes = lengths[0] <= 3 and all(length == 3 for length in lengths[1:])
    return in_threes and (lengths[0] < 3 or groups[-1] == "000")


def _is_in_a_number_plan(digits: str) -> bool:
    """Whether a plain run of digits is a valid number as people of some region write it.

    Only the shapes that a number plan fixes: ten digits (North America, Indian mobiles), a leading 1 or trunk 0. The
    German plan admits nearly every run of 7 to 11 digits, so a run without its trunk 0 is not asked there.
    """
    regions: tuple[str, ...] = ()
    if digits.startswith("0") and 10 <= len(digits) <= 12:
        regions = ("GB", "FR", "IL", "IN") if not digits.startswith("00") else ()
    elif len(digits) == 10:
        regions = ("US", "IN")
    elif len(digits) == 11 and digits.startswith("1"):
        regions = ("US",)
    return any(phonenumbers.is_valid_number(phonenumbers.parse(digits, region)) for region in regions)


def _numbers_in_list(text: str, start: int, end: int) -> list[Span]:
    """Several numbers with nothing but separators between them: of one layout, in one piece, or with a trunk 0."""
    groups = [(group.start(), group.end()) for group in _GROUP.finditer(text, start, end)]
    lengths = [group_end - group_start for group_start, group_end in groups]
    for size in range(1, min(len(groups) // 2, _MOST_DIGITS) + 1):
        is_periodic = len(groups) % size == 0 and lengths == lengths[:size] * (len(groups) // size)
        if is_periodic and _FEWEST_DIGITS <= sum(lengths[:size]) <= _MOST_DIGITS:
            cuts = list(range(0, len(groups), size))
            break
    else:
        cuts = [0]
        for i in range(1, len(groups)):
            is_beside_whole_number = lengths[i] >= _LONGEST_GROUP or lengths[i - 1] >= _LONGEST_GROUP
            if is_beside_whole_number or (text[groups[i][0]] == "0" and lengths[i] > 1):
                cuts.append(i)
    pieces = [(groups[cut][0], groups[following - 1][1]) for cut, following in pairwise([*cuts, len(groups)])]
    return [
        Span(piece_start, piece_end, "PHONE")
        for piece_start, piece_end in pieces
        if _FEWEST_DIGITS <= sum(character.isdigit() for character in text[piece_start:piece_end]) <= _MOST_DIGITS
        and _is_phone_number(text, piece_start, piece_end)
    ]
