"""What a model wrote as SQL, made into one statement that only reads. Pure.

The text is parsed, looked at whole, and written out again; what is executed is what was written out. So comments, odd
quotations and everything else that a parser and a database could read differently is gone, and every table is named
with its schema. The database's own session is the second wall: it is read-only whatever comes through here.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlglot import exp

from holdfast.errors import ToolProblem
from holdfast.tools.sql_functions import POSTGRES_FUNCTIONS, SQLITE_FUNCTIONS
from holdfast.tools.sql_growth import check_growth
from holdfast.tools.sql_language import Dialect, Language
from holdfast.tools.sql_names import DatabaseNames, check_names, check_type
from holdfast.tools.sql_table import Table

MAX_SQL_CHARACTERS = 10_000
"""Longest statement accepted."""

_FUNCTIONS: Mapping[Dialect, frozenset[str]] = {"sqlite": SQLITE_FUNCTIONS, "postgres": POSTGRES_FUNCTIONS}
_STATEMENTS = (exp.Select, exp.SetOperation, exp.Values)
_WRITES = (
    exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Alter, exp.TruncateTable, exp.Into,
    exp.Copy, exp.Command, exp.Set, exp.Pragma, exp.Attach, exp.Detach, exp.Use, exp.Transaction, exp.Commit,
    exp.Rollback, exp.Analyze, exp.Describe, exp.Execute, exp.LoadData, exp.Kill, exp.Grant, exp.Revoke,
)  # fmt: skip
_ODD = (
    exp.ByteString, exp.HexString, exp.BitString, exp.RawString, exp.UnicodeString, exp.Parameter, exp.Placeholder,
    exp.SessionParameter,
)  # fmt: skip
"""Quotations with escapes of their own, and places for values that nobody fills in."""
_BY_SCHEMA = "The statement calls a function by its schema; write its name alone."
_CALL = re.compile(r'"?([a-z_][a-z0-9_]*)"?\s*\(', re.IGNORECASE)


def checked_sql(
    sql: str,
    dialect: Dialect,
    tables: Collection[Table],
    functions: Collection[str] = (),
    names: DatabaseNames | None = None,
) -> str:
    """The statement to execute.

    Args:
        sql: As the model wrote it.
        dialect: Of the database.
        tables: Those that may be read.
        functions: Names admitted beside the usual ones.
        names: Of PostgreSQL: columns of the tables, and functions that only `functions` admits.

    Raises:
        ToolProblem: It is not one statement that only reads what it may.
    """
    if len(sql) > MAX_SQL_CHARACTERS:
        raise ToolProblem(f"The statement is longer than {MAX_SQL_CHARACTERS} characters.")
    if "\x00" in sql:
        raise ToolProblem("The statement holds a null character.")
    language, written = Language(dialect), sql
    # The second round reads what will be executed, so that writing cannot bring in what reading did not see.
    for _ in range(2):
        reading = _Reading(dialect, tables, functions, names or DatabaseNames(), language)
        written = reading.written(_parsed(written, language))
    return written


def _parsed(sql: str, language: Language) -> exp.Expr:
    found = language.read(sql)
    statements = [one for one in found if not isinstance(one, exp.Semicolon)]
    if len(statements) != 1:
        raise ToolProblem(f"There are {len(statements)} statements; write exactly one `SELECT`.")
    statement = statements[0]
    if isinstance(statement, exp.Subquery) and statement.is_wrapper:
        statement = statement.unnest()  # SQLite knows no statement in parentheses
    if not isinstance(statement, _STATEMENTS):
        raise ToolProblem("Only `SELECT` is possible: this tool reads and changes nothing.")
    return statement


@dataclass(frozen=True)
class _Reading:
    """One look at one statement."""

    dialect: Dialect
    tables: Collection[Table]
    functions: Collection[str]
    names: DatabaseNames
    language: Language

    def written(self, statement: exp.Expr) -> str:
        admitted = (_FUNCTIONS[self.dialect] - set(self.names.functions)) | {name.lower() for name in self.functions}
        for node in tuple(statement.walk()):
            node.comments = None
            if isinstance(node, _WRITES):
                raise ToolProblem("The statement would write something; this tool only reads.")
            if isinstance(node, exp.Lock):
                raise ToolProblem("The statement would lock rows; leave out `FOR UPDATE` and its like.")
            if isinstance(node, _ODD):
                raise ToolProblem("The statement has a parameter or an escaped text; write plain values in '...'.")
            if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
                raise ToolProblem(_BY_SCHEMA)
            if isinstance(node, exp.Operator):
                raise ToolProblem("The statement names an operator by `OPERATOR(...)`; write the operator itself.")
            if isinstance(node, exp.ObjectIdentifier | exp.PseudoType):
                raise ToolProblem("The statement casts to a type of the system's catalog.")
            if isinstance(node, exp.DataType) and self.dialect == "postgres":
                check_type(self.language.write(node))
            if isinstance(node, exp.In) and node.args.get("field"):
                raise ToolProblem("After `IN` comes a list or a query in parentheses: `IN (SELECT ...)`.")
            if isinstance(node, exp.CTE):
                self._check_common(node)
            if isinstance(node, exp.Column):
                node.set("db", None)  # tables get an alias, and a column is named by that
            if isinstance(node, exp.Func):
                self._admit(node, admitted)
            if isinstance(node, exp.Table):
                self._resolve(node)
        if self.dialect == "postgres":
            check_growth(statement)
            check_names(statement, self.names, self.functions)
        return self.language.write(statement)

    def _admit(self, function: exp.Func, admitted: Collection[str]) -> None:
        if isinstance(function, exp.Anonymous | exp.AnonymousAggFunc):
            name = function.name
        elif (call := _CALL.match(self.language.write(function))) is not None:
            name = call[1]
        else:
            return  # an operator, `CASE`, `CURRENT_DATE`: syntax, not a name that could be somebody's function
        if name.lower() in self.names.functions and name.lower() not in admitted:
            raise ToolProblem(
                f"The function {name.lower()[:64]!r} may not be called here: the database has its own of that name."
            )
        if name.lower() not in admitted:
            near = difflib.get_close_matches(name.lower(), admitted, n=1)
            raise ToolProblem(
                f"The function {name.lower()[:64]!r} may not be called here{f'; there is {near[0]!r}' if near else ''}."
            )

    def _check_common(self, query: exp.CTE) -> None:
        """On SQLite the second wall takes what such a query reads for what a view of its name reads."""
        name = _folded(query.args["alias"].this, self.dialect)
        if self.dialect == "sqlite" and any(self._same(one.name, name) for one in self.tables):
            raise ToolProblem(f"A `WITH` query has the name of the table {name[:64]!r}; give it another.")

    def _resolve(self, node: exp.Table) -> None:
        """See that a table may be read and write its schema to its name."""
        if not isinstance(node.this, exp.Identifier):
            if node.args.get("db"):
                raise ToolProblem(_BY_SCHEMA)
            return  # a function's rows, looked at as a function
        if node.args.get("catalog"):
            raise ToolProblem("A table is named with its database; leave that out.")
        name, schema = _folded(node.this, self.dialect), node.args.get("db")
        if schema is None and self._is_common(node, name):
            return
        wanted = None if schema is None else _folded(schema, self.dialect)
        if self.dialect == "sqlite" and wanted == "main":
            wanted = ""
        found = [one for one in self.tables if self._same(one.name, name) and (wanted is None or one.schema == wanted)]
        if not found:
            shown = [one.shown for one in self.tables]
            near = difflib.get_close_matches(name, shown, n=1)
            raise ToolProblem(
                f"There is no table {name[:64]!r} to read here"
                + (
                    f". Did you mean {near[0]!r}?"
                    if near
                    else f"; there are {', '.join(sorted(shown)[:50]) or 'none'}."
                )
            )
        table = next((one for one in found if one.schema == "public"), found[0])
        if len(found) > 1 and table.schema not in ("", "public"):
            raise ToolProblem(f"More than one schema has a table {name[:64]!r}; name it with its schema.")
        node.set("this", exp.to_identifier(table.name, quoted=True))
        node.set("db", exp.to_identifier(table.schema or "main", quoted=True))
        if not node.alias:  # so that `orders.total` still means this table
            node.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))

    def _same(self, one: str, other: str) -> bool:
        return one == other or (self.dialect == "sqlite" and one.lower() == other.lower())

    def _is_common(self, node: exp.Expr, name: str) -> bool:
        """Whether a name is that of a `WITH` query that can be seen from where it stands."""
        inner: exp.Expr = node
        outer = node.parent
        while outer is not None:
            if isinstance(outer, exp.With):
                # Within a `WITH`, a query sees those before it; with `RECURSIVE` all of them, itself included.
                place = next(at for at, query in enumerate(outer.expressions) if query is inner)
                seen = outer.expressions if outer.recursive else outer.expressions[:place]
            else:
                common = outer.args.get("with_")
                seen = [] if common is None or common is inner else common.expressions
            if self._names(seen, name):
                return True
            inner, outer = outer, outer.parent
        return False

    def _names(self, queries: Collection[exp.Expr], name: str) -> bool:
        return any(_folded(query.args["alias"].this, self.dialect) == name for query in queries)


def _folded(identifier: exp.Expr, dialect: Dialect) -> str:
    """A name as the database keeps it."""
    quoted = bool(identifier.args.get("quoted"))
    return identifier.name if quoted and dialect == "postgres" else identifier.name.lower()
