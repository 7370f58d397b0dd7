"""A text that a model wrote, taken apart for reading: prose with its citation markers, or JSON as a tree.

Pure. Nothing here decides what a text means; the exact text is always shown or one click away, because that is what a
decision is about.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MOST_NODES = 3_000
"""A larger JSON value is shown as it is written."""
MOST_DEPTH = 40

_MARKERS = re.compile(r"\[\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*\]", re.ASCII)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
_NUMBER = re.compile(r"\d+", re.ASCII)
_QUOTED = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Segment:
    """A stretch of prose, or one number of a citation marker."""

    text: str
    marker: int | None = None
    """The passage it points to."""


def segments(text: str, markers: Iterable[int]) -> tuple[Segment, ...]:
    """Cut a text where it cites, so that each number can become a link; joined together it is the text again.

    Args:
        text: What was written.
        markers: The numbers that have a passage.
    """
    known = set(markers)
    code = [match.span() for match in _CODE.finditer(text)]
    cut: list[Segment] = []
    end = 0
    for bracket in _MARKERS.finditer(text) if known else ():
        if any(start <= bracket.start() < stop for start, stop in code):
            continue
        for found in _NUMBER.finditer(text, *bracket.span()):
            if int(found[0]) in known:
                cut += [Segment(text[end : found.start()]), Segment(found[0], int(found[0]))]
                end = found.end()
    return tuple(segment for segment in (*cut, Segment(text[end:])) if segment.text)


@dataclass(frozen=True)
class Span:
    """A stretch of a sentence, or of what stands between two backticks in it."""

    text: str
    code: bool = False


def spans(sentence: str) -> tuple[Span, ...]:
    """Cut a sentence of our own at its pairs of backticks, which are left out; one without a second stays as it is.

    Not for what a model or a user wrote: there a backtick is a character like any other.
    """
    cut: list[Span] = []
    end = 0
    for quoted in _QUOTED.finditer(sentence):
        cut += [Span(sentence[end : quoted.start()]), Span(quoted[1], code=True)]
        end = quoted.end()
    return tuple(span for span in (*cut, Span(sentence[end:])) if span.text)


@dataclass(frozen=True)
class Node:
    """A JSON value. Numbers are kept as they were written."""

    kind: Literal["object", "array", "string", "number", "word"]
    text: str = ""
    """Of a value that has no parts."""
    parts: tuple[tuple[str, "Node"], ...] = ()
    """Members in their order, a name given twice twice; of an array, with their positions."""

    @property
    def size(self) -> str:
        """How much is in it, in words."""
        noun = ("key", "keys") if self.kind == "object" else ("item", "items")
        return f"{len(self.parts)} {noun[len(self.parts) != 1]}"

    def written(self, indent: int = 0) -> str:
        """As JSON, indented by two spaces a level."""
        match self.kind:
            case "string":
                return json.dumps(self.text, ensure_ascii=False)
            case "number" | "word":
                return self.text
        opening, closing = "{}" if self.kind == "object" else "[]"
        if not self.parts:
            return opening + closing
        inner, outer = "  " * (indent + 1), "  " * indent
        lines = [
            inner
            + (f"{json.dumps(name, ensure_ascii=False)}: " if self.kind == "object" else "")
            + part.written(indent + 1)
            for name, part in self.parts
        ]
        return opening + "\n" + ",\n".join(lines) + "\n" + outer + closing

    def member(self, name: str) -> "Node | None":
        """The last member of a name, which is the one that readers of JSON keep."""
        return next((part for given, part in reversed(self.parts) if given == name), None)


class _Literal(str):
    """A number as it was written."""


def node_of(text: str) -> Node | None:
    """A JSON object or array as a tree; `None` for any other text, and for one too large to be read as a tree."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_int=_Literal,
            parse_float=_Literal,
            parse_constant=_refuse,
        )
        return _Builder().build(value, 0)
    except (ValueError, RecursionError):
        return None


class _Pairs(list[tuple[str, object]]):
    """Members of an object, none lost."""


class _Builder:
    def __init__(self) -> None:
        self._left = MOST_NODES

    def build(self, value: object, depth: int) -> Node:
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            raise ValueError("too large for a tree")
        match value:
            case _Pairs():
                return Node("object", parts=tuple((name, self.build(part, depth + 1)) for name, part in value))
            case list():
                return Node("array", parts=tuple((str(i), self.build(part, depth + 1)) for i, part in enumerate(value)))
            case _Literal():
                return Node("number", text=str(value))
            case str():
                return Node("string", text=value)
        return Node("word", text=json.dumps(value))


def _refuse(name: str) -> object:
    raise ValueError(name)


def headline(text: str, length: int = 110) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text[: length * 4].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def visible(text: str) -> str:
    """A text whose characters that nobody sees, or that make a reader see others in another order, are spelt out.

    The same as on a terminal, where `cli.output` does it: Unicode categories Cc and Cf, but for line breaks, tabs and
    the joiners that words and emoji need; and the separators of lines.
    """
    return "".join(
        f"\\u{ord(one):04x}" if one not in "\n\t\u200c\u200d" and unicodedata.category(one) in _UNSEEN else one
        for one in text
    )


def call_line(tool: str, arguments: Node | None) -> str:
    """A call in one line: `refund(order: A-17, amount: 129.00)`."""
    return headline(f"{tool}({_members(arguments) if arguments else ''})")


def members_line(tree: Node) -> str:
    """An object's or array's parts in one line."""
    return headline(_members(tree)) if tree.parts else tree.written()


def _members(tree: Node) -> str:
    named = tree.kind == "object"
    return ", ".join(
        (f"{name}: " if named else "") + (part.size if part.kind in ("object", "array") else part.text)
        for name, part in tree.parts
    )
