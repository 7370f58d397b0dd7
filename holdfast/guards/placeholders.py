"""Puts typed placeholders such as `<EMAIL_1>` in the place of personal data, and the data back.

A placeholder tells the model what stood there and that two mentions are the same thing, which a cipher text does not.
The mapping belongs to one request and is kept apart from the masked text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from holdfast.guards.spans import KINDS, Kind, Span

# Models change case, put a space for the underscore, escape for Markdown, HTML or JSON. Anything this pattern matches
# counts as that placeholder, both when numbers are given out and when values are put back; that is what makes
# `restore(mask(x)) == x` hold even if `x` contains text that looks like a placeholder.
_PLACEHOLDER = re.compile(
    r"(?:<|\\u003c|&lt;)[\s]?(?P<kind>"
    + "|".join(KINDS)
    + r")[\s_\\-]{0,3}(?P<number>[0-9]{1,9})[\s]?(?:\\?>|\\u003e|&gt;)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Masked:
    """A text without its personal data."""

    text: str
    mapping: dict[str, str] = field(default_factory=dict)
    """What each placeholder stands for."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many distinct values of each kind were masked."""


def mask(text: str, spans: Iterable[Span]) -> Masked:
    """Replace spans by placeholders. The same value of the same kind gets the same placeholder.

    Numbers start at 1 and skip those that the text itself already spells, so a `<EMAIL_1>` that a person typed is never
    taken for a masked address.

    Args:
        text: The text.
        spans: What to hide. Overlapping spans are hidden as one, of the kind that begins first; empty ones are skipped.

    Returns:
        The masked text with its mapping; `restore` inverts it.
    """
    (masked,), mapping, counts = mask_all([text], [spans])
    return Masked(masked, mapping, counts)


def mask_all(
    texts: Sequence[str],
    spans: Sequence[Iterable[Span]],
    *,
    known: Mapping[str, str] | None = None,
    beside: Iterable[str] = (),
) -> tuple[tuple[str, ...], dict[str, str], dict[str, int]]:
    """`mask` for texts that belong together: a value has one placeholder in all of them.

    Args:
        texts: The texts.
        spans: What to hide in each.
        known: What earlier texts' placeholders stand for. Their values keep them here.
        beside: Texts that are not masked here but shown with them, so that what they spell is not given out.

    Returns:
        The masked texts; what each placeholder stands for, the known ones included; and how many distinct values of
        each kind were masked that were not known.
    """
    earlier = dict(known or {})
    taken = {_canonical(match) for text in (*texts, *beside) for match in _PLACEHOLDER.finditer(text)} | set(earlier)
    numbers: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    placeholders: dict[tuple[Kind, str], str] = {(_kind_of(name), value): name for name, value in earlier.items()}

    def placeholder(kind: Kind, value: str) -> str:
        if (kind, value) not in placeholders:
            numbers[kind] += 1
            while f"<{kind}_{numbers[kind]}>" in taken:
                numbers[kind] += 1
            placeholders[kind, value] = f"<{kind}_{numbers[kind]}>"
        return placeholders[kind, value]

    masked = []
    for text, hidden in zip(texts, spans, strict=True):
        pieces: list[str] = []
        position = 0
        for span in _merged(hidden, len(text)):
            pieces += [text[position : span.start], placeholder(span.kind, text[span.start : span.end])]
            position = span.end
        masked.append("".join([*pieces, text[position:]]))
    counts: dict[str, int] = {}
    for (kind, _), name in placeholders.items():
        if name not in earlier:
            counts[kind] = counts.get(kind, 0) + 1
    return tuple(masked), {name: value for (_, value), name in placeholders.items()}, counts


def restore(text: str, mapping: dict[str, str]) -> str:
    """Put the values back, once: a value that itself looks like a placeholder stays as it is.

    Args:
        text: A text written with placeholders, in any case, with a space or a hyphen for the underscore, or escaped for
            Markdown, HTML or JSON.
        mapping: From `mask`.

    Returns:
        The text with values. Placeholders that the mapping does not know stay as they are.
    """
    return _PLACEHOLDER.sub(lambda match: mapping.get(_canonical(match), match.group()), text)


def restore_within(value: JsonValue, mapping: dict[str, str]) -> JsonValue:
    """`restore` for every string in a JSON value, so that a restored value stays one string whatever it holds."""
    match value:
        case str():
            return restore(value, mapping)
        case list():
            return [restore_within(item, mapping) for item in value]
        case dict():
            return {restore(key, mapping): restore_within(item, mapping) for key, item in value.items()}
        case _:
            return value


def find_placeholders(text: str) -> Iterator[tuple[int, int, str]]:
    """Find what `restore` would look up: where it starts and ends, and its name in the mapping."""
    for match in _PLACEHOLDER.finditer(text):
        yield match.start(), match.end(), _canonical(match)


def _kind_of(placeholder: str) -> Kind:
    return next(kind for kind in KINDS if placeholder.startswith(f"<{kind}_"))


def _canonical(match: re.Match[str]) -> str:
    return f"<{match['kind'].upper()}_{int(match['number'])}>"


def _merged(spans: Iterable[Span], length: int) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(Span(max(0, s.start), min(length, s.end), s.kind) for s in spans):
        if span.start >= span.end:
            continue
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            span = Span(last.start, max(last.end, span.end), last.kind)
        merged.append(span)
    return merged
