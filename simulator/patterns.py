"""Strings that match a simple regular expression: literals, classes, groups, alternatives, repetition, anchors.

Enough for the `pattern` of everyday schemas (codes, identifiers, dates). Look-around, back-references and flags are
refused, not guessed.
"""

import random
import re
import string
from dataclasses import dataclass

_CLASSES = {"d": string.digits, "w": string.ascii_letters + string.digits + "_", "s": " "}
_PRINTABLE = string.ascii_letters + string.digits + " -_.,:;/+*#@!?"
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
_MOST_REPEATS = 10_000


class UnsupportedPattern(ValueError):
    """A pattern outside the supported subset, or one that no string of the wanted length was found for."""


@dataclass(frozen=True)
class _Characters:
    choices: str


@dataclass(frozen=True)
class _Sequence:
    parts: "tuple[_Node, ...]"


@dataclass(frozen=True)
class _Repeat:
    part: "_Node"
    least: int
    most: int


_Node = _Characters | _Sequence | _Repeat


def matching_text(pattern: str, draw: random.Random, *, min_length: int = 0, max_length: int | None = None) -> str:
    """Make a string that a pattern finds a match in.

    Args:
        pattern: The expression, searched as JSON Schema does (anchored only where it says so).
        draw: Chooses among the characters of a class.
        min_length: Fewest characters.
        max_length: Most characters; `None` sets no bound.

    Raises:
        UnsupportedPattern: The pattern is outside the subset, or no such string was found.
    """
    node = _Parser(pattern).parse()
    for extra in range(min_length + 1):
        text = _write(node, extra, draw)
        if len(text) < min_length and not pattern.endswith("$"):
            text = text.ljust(min_length, "x")
        if len(text) >= min_length:
            if (max_length is None or len(text) <= max_length) and re.search(pattern, text):
                return text
            break
    raise UnsupportedPattern(f"No string of the wanted length was found for the pattern {pattern!r:.80}.")


def _write(node: _Node, extra: int, draw: random.Random) -> str:
    match node:
        case _Characters(choices):
            return draw.choice(choices)
        case _Sequence(parts):
            return "".join(_write(part, extra, draw) for part in parts)
        case _Repeat(part, least, most):
            return "".join(_write(part, extra, draw) for _ in range(min(least + extra, most)))


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def parse(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._pattern):
            raise self._unsupported()
        return node

    def _unsupported(self) -> UnsupportedPattern:
        return UnsupportedPattern(f"The pattern {self._pattern!r:.80} is not supported at character {self._at + 1}.")

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise self._unsupported()
        self._at += 1
        return character

    def _accept(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _alternatives(self) -> _Node:
        first = self._sequence()
        while self._accept("|"):
            self._sequence()
        return first

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            if self._accept("^") or self._accept("$"):
                continue
            parts.append(self._repeat(self._atom()))
        return _Sequence(tuple(parts))

    def _atom(self) -> _Node:
        character = self._next()
        if character == "(":
            if not self._accept("?:") and self._peek() == "?":
                raise self._unsupported()
            node = self._alternatives()
            if not self._accept(")"):
                raise self._unsupported()
            return node
        if character == "[":
            return _Characters(self._character_class())
        if character == ".":
            return _Characters(string.ascii_lowercase)
        if character == "\\":
            return _Characters(self._escaped())
        if character in "*+?{":
            self._at -= 1
            raise self._unsupported()
        return _Characters(character)

    def _escaped(self) -> str:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            self._at -= 1
            raise self._unsupported()
        return character

    def _character_class(self) -> str:
        negated = self._accept("^")
        characters = ""
        while not self._accept("]"):
            character = self._next()
            chosen = self._escaped() if character == "\\" else character
            if len(chosen) == 1 and self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                last = self._escaped() if self._accept("\\") else self._next()
                if len(last) != 1 or last < chosen or ord(last) - ord(chosen) > 0xFFFF:
                    raise self._unsupported()
                chosen = "".join(map(chr, range(ord(chosen), ord(last) + 1)))
            characters += chosen
        if negated:
            characters = "".join(character for character in _PRINTABLE if character not in characters)
        if not characters:
            raise self._unsupported()
        return characters

    def _repeat(self, part: _Node) -> _Node:
        if self._accept("*"):
            node = _Repeat(part, 0, _MOST_REPEATS)
        elif self._accept("+"):
            node = _Repeat(part, 1, _MOST_REPEATS)
        elif self._accept("?"):
            node = _Repeat(part, 0, 1)
        elif match := re.compile(r"\{(\d+)(,(\d*))?\}").match(self._pattern, self._at):
            self._at = match.end()
            least = int(match[1])
            most = least if match[2] is None else int(match[3] or _MOST_REPEATS)
            if least > _MOST_REPEATS:
                raise self._unsupported()
            node = _Repeat(part, least, most)
        else:
            return part
        self._accept("?")
        return node
