"""Statements out of Markdown or plain text: sentences that can be quoted alone, and the headings above them. Pure."""

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_RULE = re.compile(r"^\s*([-=*_])(\s*\1){2,}\s*$")
_BULLET = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_QUOTE = re.compile(r"^\s*>+\s?")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])|[。！？]\s*")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|fig|sec|dr|mr|mrs|ms|prof|st|inc|ltd|co|jr|sr)|\b[a-z])\.$", re.I
)
_MARKUP = (
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>]*>"), ""),
    (re.compile(r"`+([^`]+)`+"), r"\1"),
    (re.compile(r"(\*\*\*|\*\*|\*)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<!\w)(__|_)(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"\[\^?\d{1,3}\]"), ""),  # a footnote's mark would read as a citation
    (re.compile(r"\s+"), " "),
    (re.compile(r" +([.,;:!?])"), r"\1"),
)
_SHORTEST_WORDS = 3
_LEAST_LETTERS = 0.6
"""Share of letters among the visible characters; prose has over 0.9, code and figures about half."""


@dataclass(frozen=True)
class Statement:
    """A sentence that can be quoted alone."""

    text: str
    topic: str
    """What stands above it: the nearest heading, question or introductory line, or nothing."""


def statements(text: str) -> list[Statement]:
    """Cut a passage into statements, in their order.

    Headings, questions, and lines that end with a colon do not answer anything by themselves; they become the topic of
    what follows. Tables, code and fragments are left out, and Markdown is taken off.
    """
    found: list[Statement] = []
    heading = lead = ""
    for block, is_heading in _blocks(text):
        if is_heading:
            heading, lead = block, ""
            continue
        for sentence in _sentences(block):
            if sentence.endswith(("?", "？", ":")):
                lead = sentence
            elif _reads_alone(sentence):
                found.append(Statement(sentence, f"{heading} {lead}".strip()))
    return found


def _blocks(text: str) -> list[tuple[str, bool]]:
    """Paragraphs and list items joined from their lines, each with whether it is a heading."""
    blocks: list[tuple[str, bool]] = []
    paragraph: list[str] = []

    def close() -> None:
        if paragraph:
            blocks.append((plain(" ".join(paragraph)), False))
            paragraph.clear()

    in_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            close()
            in_code = not in_code
            continue
        stripped = _QUOTE.sub("", line).strip()
        if in_code or not stripped or stripped.startswith("|"):
            close()
        elif heading := _HEADING.match(line):
            close()
            blocks.append((plain(heading[1]), True))
        elif _RULE.match(line):
            if paragraph and stripped[0] in "=-":  # the line above was a heading, underlined
                blocks.append((plain(" ".join(paragraph)), True))
                paragraph.clear()
            close()
        else:
            if bullet := _BULLET.match(stripped + " "):
                close()
                stripped = stripped[bullet.end() :]
            paragraph.append(stripped)
    close()
    return blocks


def plain(text: str) -> str:
    """The text without Markdown emphasis, links, images, tags and footnote marks, on one line."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def _sentences(block: str) -> list[str]:
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(block):
        candidate = block[start : end.end()].strip()
        if not _ABBREVIATION.search(candidate):
            sentences.append(candidate)
            start = end.end()
    return [sentence for sentence in (*sentences, block[start:].strip()) if sentence]


def _reads_alone(sentence: str) -> bool:
    visible = [character for character in sentence if not character.isspace()]
    letters = sum(character.isalnum() for character in visible)
    dense = not sentence.isascii() and " " not in sentence  # scripts without spaces have no word count
    enough = len(sentence.split()) >= _SHORTEST_WORDS or (dense and len(sentence) >= 2 * _SHORTEST_WORDS)
    return enough and letters >= _LEAST_LETTERS * len(visible) and not sentence[0].islower()
