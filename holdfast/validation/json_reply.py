"""Reads the one JSON value a model meant to send, and refuses to guess which one or what was in it.

The repair library turns almost anything into some value: a refusal into an empty string, two objects into one of them,
a missing colon into a lost number. So it only sees text in which exactly one value was found, and its result counts
only if every letter and digit of that text is still there.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import json_repair

from holdfast.contracts import Violation

_THINKING_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_MARK = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
_CITATION_LIKE = re.compile(r"\[[\d\s,]*\]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|/\*.*?\*/|(?://|#)[^\n]*', re.DOTALL)
_NOT_A_NUMBER = re.compile(r"(?<![\w$])-?(?:NaN|Infinity)(?![\w$])")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)


MAX_DEPTH = 100
"""Objects and arrays inside one another. Python's and json-repair's readers fail somewhere between 250 and 1,000."""


MAX_REPAIR_CHARACTERS = 100_000
"""Repairing so many characters of broken JSON takes up to 0.3 s; a million took 15 s."""


@dataclass(frozen=True)
class ParsedJson:
    """A value that was read."""

    value: Any
    """The value as Python's `json` has it; what it is only the schema knows."""
    text: str
    """The reply without surrounding white space, or the value as compact JSON when it was `repaired`."""
    repaired: bool


@dataclass(frozen=True)
class _Region:
    """A top-level object or array in a reply."""

    text: str
    ends_in_string: bool


class _UnacceptableJson(ValueError):
    """JSON, or nearly, that must not be used and cannot be repaired without guessing."""


def read_json(reply: str) -> ParsedJson | Violation:
    """Read a reply as JSON (RFC 8259), repairing fences, prose around it and slips of punctuation.

    Args:
        reply: The model's reply; it must not be one that was cut off.

    Returns:
        The value, or what is wrong with the reply. Values of the reply are not repeated.
    """
    text = reply.strip().removeprefix("\ufeff").strip()
    if not text:
        return Violation(path="", message="The reply is empty.")
    if _is_too_deep(text):
        return Violation(path="", message=f"The reply is nested more than {MAX_DEPTH} levels deep.")
    try:
        return ParsedJson(value=_strict(text), text=text, repaired=False)
    except _UnacceptableJson as error:
        return Violation(path="", message=str(error))
    except json.JSONDecodeError as error:
        flaw = f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
    try:
        value = _repair(_only_region(_without_thinking(text), flaw), flaw)
        return ParsedJson(value=value, text=_compact(value), repaired=True)
    except _UnacceptableJson as error:
        return Violation(path="", message=str(error))


def _only_region(text: str, flaw: str) -> str:
    regions = _top_level_regions(text)
    if len(regions) > 1:
        regions = [region for region in regions if not _CITATION_LIKE.fullmatch(region.text)] or regions
    if not regions:
        raise _UnacceptableJson("The reply contains no JSON object or array.")
    if len(regions) > 1:
        raise _UnacceptableJson(f"The reply contains {len(regions)} JSON values; send exactly one.")
    if regions[0].ends_in_string:
        raise _UnacceptableJson(f"The reply ends in the middle of a string ({flaw}); send it complete.")
    return regions[0].text


def _without_thinking(text: str) -> str:
    """The text without what stands between thinking tags; in one pass, however many of them are never closed."""
    kept: list[str] = []
    position, opened = 0, None
    for tag in _THINKING_TAG.finditer(text):
        if not tag.group(1):
            opened = tag.start() if opened is None else opened
        elif opened is not None:
            kept.append(text[position:opened])
            position, opened = tag.end(), None
    return "".join([*kept, text[position:]])


def _repair(text: str, flaw: str) -> Any:
    try:
        return _strict(text)
    except json.JSONDecodeError:
        pass
    if len(text) > MAX_REPAIR_CHARACTERS:
        raise _UnacceptableJson(f"{flaw}; the reply is too long to be repaired")
    if _NOT_A_NUMBER.search(_STRING.sub('""', text)):
        raise _UnacceptableJson("NaN and Infinity are not JSON; use null or a number.")
    not_json = f"The reply is not JSON: {flaw}."
    try:
        value = json_repair.loads(text, skip_json_loads=True)
        if not isinstance(value, dict | list) or _substance_of_source(text) != _substance_of_value(value):
            raise _UnacceptableJson(not_json)
        # Through the strict parser once more, for what the library lets pass (1e999, lone surrogates), with the halves
        # of surrogate pairs joined, which it keeps apart.
        return _strict(_with_joined_surrogates(_compact(value)))
    except _UnacceptableJson:
        raise
    except ValueError as error:  # json-repair gave up, or made something that is not JSON
        raise _UnacceptableJson(not_json) from error


def _strict(text: str) -> Any:
    """Parse JSON without Python's leniencies.

    Raises:
        json.JSONDecodeError: Not JSON.
        _UnacceptableJson: JSON that means different things to different readers.
    """
    try:
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_duplicates
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _UnacceptableJson("A string has half of a surrogate pair, which is no character.") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise error if isinstance(error, _UnacceptableJson) else _UnacceptableJson("A number is too long.") from error
    return value


def _no_constant(_: str) -> float:
    raise _UnacceptableJson("NaN and Infinity are not JSON; use null or a number.")


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise _UnacceptableJson("A number is too large.")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _UnacceptableJson("An object has the same key twice; use each key once.")
    return value


def _compact(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise _UnacceptableJson("A number is too large.") from error


def _is_too_deep(text: str) -> bool:
    depth, in_string = 0, False
    for mark in _MARK.finditer(text):
        character = mark.group()
        if character == '"':
            in_string = not in_string and depth > 0
        elif in_string or character.startswith("\\"):
            continue
        else:
            depth = depth + 1 if character in "{[" else max(0, depth - 1)
            if depth > MAX_DEPTH:
                return True
    return False


def _top_level_regions(text: str) -> list[_Region]:
    """Objects and arrays that are not inside another, an unclosed last one included."""
    regions: list[_Region] = []
    start, depth, in_string = 0, 0, False
    for mark in _MARK.finditer(text):
        character = mark.group()
        if depth == 0:
            if character in "{[":
                start, depth = mark.start(), 1
        elif character == '"':
            in_string = not in_string
        elif in_string or character.startswith("\\"):
            continue
        elif character in "{[":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                regions.append(_Region(text[start : mark.end()], ends_in_string=False))
    if depth > 0:
        regions.append(_Region(text[start:].rstrip("` \n"), ends_in_string=in_string))
    return regions


def _with_joined_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _substance_of_source(text: str) -> str:
    """Letters and digits of JSON text, without comments, escapes decoded."""
    without_comments = _COMMENT.sub(lambda match: match.group(1) or "", text)
    return _substance(_ESCAPE.sub(_unescaped, without_comments))


def _unescaped(match: re.Match[str]) -> str:
    if match.group(1):
        return chr(int(match.group(1), 16))
    return " " if match.group(2) in "nrtbf" else match.group(2)


def _substance_of_value(value: Any) -> str:
    match value:
        case dict():
            return "".join(_substance(key) + _substance_of_value(item) for key, item in value.items())
        case list():
            return "".join(_substance_of_value(item) for item in value)
        case None:
            return "null"
        case _:
            return _substance(str(value))


def _substance(text: str) -> str:
    """What a repair must keep, in order. Zeros may go (`01`, `1.50`), and Python's `None` becomes `null`."""
    return "".join(c for c in _with_joined_surrogates(text).casefold() if c.isalnum() and c != "0").replace(
        "none", "null"
    )
