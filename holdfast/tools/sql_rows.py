"""What a query returned, as a model reads it: CSV, which repeats no names, after a line that says whether it is all.

An empty cell is `NULL`; an empty text is `""`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_COLUMNS = 100
"""Columns of a result."""


@dataclass(frozen=True)
class Bounds:
    """How much a query may bring, and how long it may take."""

    rows: int
    cell_characters: int
    characters: int
    seconds: float


@dataclass(frozen=True)
class Rows:
    """The beginning of a result, or all of it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    """Cells as text, each at most one character longer than `Bounds.cell_characters`."""
    more: bool
    """Whether there are rows beyond these."""


def as_csv(result: Rows, bounds: Bounds) -> str:
    """The result with a first line about its length."""
    lines = [",".join(_cell(name, bounds) for name in result.columns)]
    length, cut, shown = len(lines[0]), False, 0
    for row in result.rows:
        line = ",".join(_cell(value, bounds) for value in row)
        length += len(line) + 1
        if length > bounds.characters and shown:
            break
        cut = cut or any(value is not None and len(value) > bounds.cell_characters for value in row)
        lines.append(line)
        shown += 1
    if result.more or shown < len(result.rows):
        said = f"The first {shown} rows; there are more. Use conditions, aggregates or LIMIT with OFFSET."
    else:
        said = "No rows." if not shown else "1 row." if shown == 1 else f"{shown} rows."
    if cut:
        said += f" Values longer than {bounds.cell_characters} characters are cut and end in '…'."
    return "\n".join([said, *lines])


def _cell(value: str | None, bounds: Bounds) -> str:
    if value is None:
        return ""
    if len(value) > bounds.cell_characters:
        value = value[: bounds.cell_characters] + "…"
    if not value or value != value.strip() or any(char in value for char in ',"\n\r'):
        return '"' + value.replace('"', '""') + '"'
    return value


def shorten(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, each of a length that names have."""
    return tuple(name[:100] for name in names)
