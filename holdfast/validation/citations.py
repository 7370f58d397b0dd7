"""Connects the citation markers of an answer to the passages they cite. Pure."""

import re
from collections.abc import Mapping, Sequence

from holdfast.contracts import Citation, Passage

# Three digits at most: `[2024]` is a year. Code is not prose, and `rows[0]` in it cites nothing.
_MARKERS = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]", re.ASCII)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_NUMBER = re.compile(r"\d+", re.ASCII)


def cited_markers(text: str) -> tuple[int, ...]:
    """The numbers cited as `[1]`, `[1, 2]` or `[1][2]`, outside code.

    Args:
        text: An answer.

    Returns:
        Each number once, in the order of first appearance.
    """
    prose = _CODE.sub(" ", text)
    numbers = [int(n) for markers in _MARKERS.finditer(prose) for n in _NUMBER.findall(markers.group(1))]
    return tuple(dict.fromkeys(numbers))


def cite(text: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """Find what an answer cites. Marker `n` is the n-th passage, counted from 1.

    Args:
        text: An answer.
        passages: The passages the model was shown, in that order.

    Returns:
        One citation for each marker that has a passage, in the order of first appearance.
    """
    return tuple(
        Citation(marker=marker, source=passage.source, start=passage.start, end=passage.end, quote=passage.text)
        for marker in cited_markers(text)
        if 1 <= marker <= len(passages)
        for passage in [passages[marker - 1]]
    )


def renumbered(text: str, numbers: Mapping[int, int]) -> str:
    """The text with other numbers in its markers, so that it can stand beside texts that cite other passages.

    Args:
        text: An answer.
        numbers: The new number of each marker. One that is not in it cites nothing and becomes `(n)`.
    """

    def prose(start: int, end: int) -> str:
        return _MARKERS.sub(lambda markers: _renumbered(markers, numbers), text[start:end])

    parts: list[str] = []
    position = 0
    for code in _CODE.finditer(text):
        parts += [prose(position, code.start()), code.group()]
        position = code.end()
    return "".join([*parts, prose(position, len(text))])


def _renumbered(markers: re.Match[str], numbers: Mapping[int, int]) -> str:
    cited = [int(number) for number in _NUMBER.findall(markers.group(1))]
    known = [str(numbers[number]) for number in cited if number in numbers]
    unknown = [f"({number})" for number in cited if number not in numbers]
    return "".join([f"[{', '.join(known)}]" if known else "", *unknown])
