"""Tables and columns, as a model is told of them and as queries are checked against them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from holdfast.tools.sql_table import Table

MAX_SCHEMA_CHARACTERS = 6_000
"""How much of a schema a model is told; names without columns come last."""


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    type: str
    note: str = ""
    """Keys and the comment: `primary key`, `-> customers.id`."""


@dataclass(frozen=True)
class TableSchema:
    """One table or view with its columns."""

    table: Table
    columns: tuple[Column, ...]
    comment: str = ""


def admitted(schema: Sequence[TableSchema], patterns: Sequence[str]) -> tuple[TableSchema, ...]:
    """The tables that a list of patterns names: `orders`, `sales.*`, `report_*`."""
    return tuple(
        one
        for one in schema
        if any(fnmatchcase(name, pattern) for pattern in patterns for name in (one.table.shown, _full(one.table)))
    )


def described(schema: Sequence[TableSchema]) -> str:
    """The schema in a line a table, cut to a length that every request can bear."""
    if not schema:
        return "There are no tables."
    lines, length = [], 0
    for place, one in enumerate(schema):
        line = _line(one)
        if length + len(line) > MAX_SCHEMA_CHARACTERS:
            rest = ", ".join(other.table.shown for other in schema[place:])
            left = max(200, MAX_SCHEMA_CHARACTERS + 1_000 - length)
            lines.append(f"Further tables: {rest[:left]}{'…' if len(rest) > left else ''}")
            break
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def _line(one: TableSchema) -> str:
    columns = ", ".join(" ".join(filter(None, (col.name, col.type, col.note))) for col in one.columns)
    comment = f" -- {_flat(one.comment, 200)}" if one.comment else ""
    return f"{one.table.shown}({columns}){comment}"


def _full(table: Table) -> str:
    return f"{table.schema}.{table.name}" if table.schema else table.name


def _flat(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
