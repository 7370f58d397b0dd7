"""Puts personal data back into a text that arrives in pieces, however it is cut.

What comes out, joined, is what `restore` makes of the whole text. A piece is held back only while it may be the start
of a placeholder, which is some forty characters at most.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

from holdfast.guards.placeholders import find_placeholders
from holdfast.guards.spans import KINDS

_OPENERS: Final = ("<", "\\u003c", "&lt;")
_CLOSERS: Final = ("\\>", "\\u003e", "&gt;")
_STARTERS: Final = re.compile(r"[<\\&]")


class StreamRestorer:
    """Restores placeholders in plain text.

    Args:
        mapping: From `mask`.
    """

    def __init__(self, mapping: dict[str, str]) -> None:
        self._mapping = mapping
        self._beginning = _beginning_of(mapping)
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece, and return what is certain now."""
        if self._beginning is None:
            return text
        if not self._held and not _STARTERS.search(text):
            return text
        text = self._held + text
        pieces, position = [], 0
        for start, end, placeholder in find_placeholders(text):
            pieces += [text[position:start], self._mapping.get(placeholder, text[start:end])]
            position = end
        unfinished = self._beginning.search(text, position)
        certain = unfinished.start() if unfinished else len(text)
        self._held = text[certain:]
        return "".join([*pieces, text[position:certain]])

    def finish(self) -> str:
        """Take the end of the text, and return what was held back: no placeholder after all."""
        held, self._held = self._held, ""
        return held


class JsonStreamRestorer:
    """Restores placeholders within the strings of a JSON text: every value stays one string, whatever it holds.

    A placeholder is looked for in what a string says, not in how it is spelled, so escapes neither hide one nor make
    one up. All else comes out as it came in. A text that is not JSON comes out whole, too.

    Args:
        mapping: From `mask`.
    """

    def __init__(self, mapping: dict[str, str]) -> None:
        self._mapping = {
            placeholder: json.dumps(value, ensure_ascii=False)[1:-1] for placeholder, value in mapping.items()
        }
        self._beginning = _beginning_of(mapping)
        self._in_string = False
        self._escape = ""
        """An escape of which more is to come."""
        self._said: list[str] = []
        self._spelled: list[str] = []
        """What is held back of a string: its characters, and how each was spelled."""

    def feed(self, text: str) -> str:
        """Take the next piece, and return what is certain now."""
        if self._beginning is None:
            return text
        text, self._escape = self._escape + text, ""
        pieces, position = [], 0
        while position < len(text):
            if not self._in_string:
                quote = text.find('"', position) + 1
                pieces.append(text[position : quote or len(text)])
                self._in_string, position = bool(quote), quote or len(text)
                continue
            token = _TOKEN.match(text, position)
            if token is None:
                self._escape = text[position:]
                break
            position = token.end()
            if token.group() == '"':
                pieces += [self._certain(at_end=True), '"']
                self._in_string = False
            else:
                self._said.append(_said(token.group()))
                self._spelled.append(token.group())
        if self._in_string:
            pieces.append(self._certain(at_end=False))
        return "".join(pieces)

    def finish(self) -> str:
        """Take the end of the text, and return what was held back."""
        rest = self._certain(at_end=True) + self._escape
        self._escape = ""
        return rest

    def _certain(self, *, at_end: bool) -> str:
        """Take out what is certain of the string so far: placeholders restored, all else as it was spelled."""
        said = "".join(self._said)
        pieces, position = [], 0
        for start, end, placeholder in find_placeholders(said):
            spelled = "".join(self._spelled[start:end])
            pieces += [*self._spelled[position:start], self._mapping.get(placeholder, spelled)]
            position = end
        unfinished = None
        if not at_end and self._beginning is not None:
            unfinished = self._beginning.search(said, position)
        certain = unfinished.start() if unfinished else len(said)
        pieces += self._spelled[position:certain]
        del self._said[:certain], self._spelled[:certain]
        return "".join(pieces)


# One character of a JSON string, or its closing quote; an escape that is cut off does not match.
_TOKEN: Final = re.compile(r"\\u[0-9a-fA-F]{4}|\\[^u]|\\u(?=.{0,3}[^0-9a-fA-F])|[^\\]", re.DOTALL)
_SHORT_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _said(token: str) -> str:
    if len(token) == 6:
        return chr(int(token[2:], 16))
    if len(token) == 2:
        return _SHORT_ESCAPES.get(token[1], token[1])
    return token


def _beginning_of(mapping: dict[str, str]) -> re.Pattern[str] | None:
    """The pattern of what stands at the end of a text and may yet become a placeholder of these kinds."""
    kinds = [kind for kind in KINDS if any(placeholder.startswith(f"<{kind}_") for placeholder in mapping)]
    if not kinds:
        return None
    opened = rf"(?:{_any(_OPENERS)})\s?"
    named = rf"{opened}(?:{_any(kinds)})[\s_\\-]{{0,3}}"
    numbered = rf"{named}[0-9]{{1,9}}\s?"
    beginnings = (
        rf"(?:{_any(_cut(_OPENERS))})",
        rf"{opened}(?:{_any(_cut(kinds))})?",
        named,
        rf"{numbered}(?:{_any(_cut(_CLOSERS))})?",
    )
    return re.compile(rf"(?:{'|'.join(beginnings)})\Z", re.IGNORECASE | re.ASCII)


def _any(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in words)


def _cut(words: Sequence[str]) -> list[str]:
    """Every proper beginning of the words."""
    return [word[:length] for word in words for length in range(1, len(word))]
