"""Names in a PostgreSQL statement that could call a function although they stand in no list of functions. Pure.

To PostgreSQL `o.total` is the column, or, when the table has no such column, the function `total` of the row. A cast to
a table makes such a row, and a function of the project that has the name of a usual one is called for its arguments.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from holdfast.errors import ToolProblem
from holdfast.tools.sql_table import Table

_LONGEST_NAME = 63
"""Bytes that PostgreSQL keeps of a name."""
_SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_UPPER = re.compile("[A-Z]+")
_TYPE = re.compile(r"([a-z][a-z0-9_ ]*?) ?(\([^()]*\))?(\[\d*\])*")
_BUILT_IN = """
smallint int integer bigint int2 int4 int8 decimal numeric real float float4 float8 boolean bool text varchar char
bpchar name bytea date time timetz timestamp timestamptz interval uuid json jsonb jsonpath xml inet cidr macaddr
macaddr8 bit varbit money point line lseg box path polygon circle tsvector tsquery int4range int8range numrange
tsrange tstzrange daterange int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange
citext hstore ltree vector halfvec geometry geography
"""
_TYPES = frozenset(_BUILT_IN.split()) | {"double precision"}
"""Types of PostgreSQL, and of the usual extensions, as they are written out."""


@dataclass(frozen=True)
class DatabaseNames:
    """What a database has names for, beside its tables."""

    columns: Mapping[Table, Collection[str]] = field(default_factory=dict)
    functions: Collection[str] = frozenset()
    """Those that the project made itself and that can be called without a schema."""


def check_names(statement: exp.Expr, names: DatabaseNames, functions: Collection[str]) -> None:
    """Check the qualified names of a statement whose tables are written with their schemas.

    Args:
        statement: Parsed as PostgreSQL's.
        names: Of the database.
        functions: Those of them that may be called.

    Raises:
        ToolProblem: One could be that of a function.
    """
    own = set(names.functions) - {name.lower() for name in functions}
    sources = _sources(statement, names)
    for node in statement.find_all(exp.Dot):
        if not isinstance(node.expression, exp.Star):
            raise ToolProblem("The statement takes a field of a value; name columns as `table.column`.")
    for column in statement.find_all(exp.Column):
        if column.args.get("catalog"):
            raise ToolProblem("A column is named with its database; leave that out.")
        if not column.args.get("table") or isinstance(column.this, exp.Star):
            continue
        qualifier, name = (kept(column.args[part]) for part in ("table", "this"))
        found = sources.get(qualifier, [None])
        if name in own and not all(columns is not None and name in columns for columns in found):
            raise ToolProblem(f"{name!r} is a function of the database's own, which may not be called here.")
        known = [columns for columns in found if columns is not None]
        if len(known) == len(found) and not any(name in columns for columns in known):
            near = difflib.get_close_matches(name, sorted(set().union(*known) - _SYSTEM_COLUMNS), n=1)
            raise ToolProblem(
                f"{qualifier[:64]!r} has no column {name[:64]!r}{f'. Did you mean {near[0]!r}?' if near else '.'}"
            )


def check_type(written: str) -> None:
    """Check a type that a statement casts to, as it will be written.

    Raises:
        ToolProblem: It is none of PostgreSQL's.
    """
    found = _TYPE.fullmatch(written.lower())
    if found is None or found[1] not in _TYPES:
        raise ToolProblem("The statement casts to a type that is none of PostgreSQL's; compare with a text in '...'.")


def kept(identifier: exp.Expr) -> str:
    """A name as PostgreSQL keeps it."""
    name = identifier.name
    if not identifier.args.get("quoted"):
        name = _UPPER.sub(lambda upper: upper[0].lower(), name)
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def _sources(statement: exp.Expr, names: DatabaseNames) -> dict[str, list[Collection[str] | None]]:
    """What each qualifier could mean, wherever it stands: columns, or `None` for rows of a query or function."""
    found: dict[str, list[Collection[str] | None]] = {}
    for alias in statement.find_all(exp.TableAlias):
        if alias.args.get("this") is None:
            continue
        table, columns = alias.parent, None
        if isinstance(table, exp.Table) and table.db and not alias.columns:
            known = names.columns.get(Table(table.db, table.name))
            columns = None if known is None else frozenset(known) | _SYSTEM_COLUMNS
        found.setdefault(kept(alias.this), []).append(columns)
    return found
