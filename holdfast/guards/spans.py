"""Where personal data stands in a text."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

Kind = Literal["EMAIL", "PHONE", "CARD", "IBAN"]
"""What Holdfast masks. The name is also the placeholder's."""

KINDS: tuple[Kind, ...] = ("EMAIL", "IBAN", "CARD", "PHONE")
"""Every kind, the most certain first: on overlap the earlier one wins."""


@dataclass(frozen=True, order=True)
class Span:
    """A piece of a text that is personal data. Offsets count Unicode code points."""

    start: int
    end: int
    kind: Kind


def without_overlaps(spans: list[Span]) -> list[Span]:
    """Choose spans that do not overlap: by kind in the order of `KINDS`, then the longest, then the first.

    Args:
        spans: Any spans of one text.

    Returns:
        A subset without overlaps, in the order of the text.
    """
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda s: (KINDS.index(s.kind), s.start - s.end, s.start)):
        place = bisect_left(chosen, span)
        starts_free = place == 0 or chosen[place - 1].end <= span.start
        ends_free = place == len(chosen) or span.end <= chosen[place].start
        if starts_free and ends_free:
            chosen.insert(place, span)
    return chosen
