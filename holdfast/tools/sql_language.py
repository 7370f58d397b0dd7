"""SQL made into a tree and written out again, in a number of steps that a text of any kind keeps to. Pure.

The parser tries one reading after the other and goes back. Texts of forty characters make it try for hours: sixteen
brackets in each other, joins without conditions. Nothing could end it, for it runs in a thread. So each step of reading
and of writing is counted.
"""

import logging
from typing import Literal

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect as Spoken
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.generator import Generator
from sqlglot.generators.postgres import PostgresGenerator
from sqlglot.generators.sqlite import SQLiteGenerator
from sqlglot.parser import Parser
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.parsers.sqlite import SQLiteParser
from sqlglot.tokenizer_core import TokenType

from holdfast.errors import ToolProblem

# It logs statements that it does not understand, with their text.
logging.getLogger("sqlglot").disabled = True

MAX_READING_STEPS = 20_000
"""Tokens that the parser goes forwards or back; 250 columns, which fill 8 KB, take 3,500."""
MAX_WRITING_STEPS = 100_000
"""Parts of a statement that are written out, those within a function once more with each function around them."""
MAX_ARRAYS = 10
"""Arrays within each other."""
MAX_BRACKETS = 200
"""`[` of a statement: for each of `a[1][1][1]` the parser looks again at all before it."""

Dialect = Literal["sqlite", "postgres"]

NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
_STUMBLES = (SqlglotError, AttributeError, TypeError, ValueError, LookupError, AssertionError)
"""What the library raises at texts that it does not understand."""


class Language:
    """A dialect, for the reading and writing of one statement.

    Args:
        dialect: Of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._spoken = Spoken.get_or_raise(dialect)
        self._writing = _Steps(MAX_WRITING_STEPS)

    def read(self, sql: str) -> list[exp.Expr]:
        """The statements of a text.

        Raises:
            ToolProblem: It is not understood, or not in the steps that there are.
        """
        parser = _PARSERS[self._dialect](dialect=self._spoken, error_level=ErrorLevel.IMMEDIATE)
        parser.steps = _Steps(MAX_READING_STEPS)
        try:
            tokens = self._spoken.tokenize(sql)
            kinds = [token.token_type for token in tokens]
            if TokenType.PIPE_GT in kinds:  # which only the parser knows: it makes a query in a query of each
                raise self._not_understood()
            if kinds.count(TokenType.L_BRACKET) > MAX_BRACKETS:
                raise ToolProblem(f"The statement has more than {MAX_BRACKETS} `[`; write it more simply.")
            found = [one for one in parser.parse(tokens, sql) if one is not None]
        except _STUMBLES:
            raise self._not_understood() from None
        except RecursionError:
            raise _too_deep() from None
        for one in found:
            _check_arrays(one)
        return found

    def write(self, part: exp.Expr) -> str:
        """A statement or a part of one as text, without comments.

        Raises:
            ToolProblem: It cannot be written, or not in the steps that there are.
        """
        generator = _GENERATORS[self._dialect](dialect=self._spoken, comments=False, unsupported_level=ErrorLevel.RAISE)
        generator.steps = self._writing
        try:
            return generator.generate(part)
        except _STUMBLES:
            raise self._not_understood() from None
        except RecursionError:
            raise _too_deep() from None

    def _not_understood(self) -> ToolProblem:
        return ToolProblem(f"The statement cannot be read as SQL of {NAMES[self._dialect]}; write it more simply.")


class _Steps:
    """Those that are left."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            # None of the library's own errors, which it takes for the end of a trial.
            raise ToolProblem("The statement is too entangled to be read; write it more simply.")


class _CountingParser(Parser):
    steps: _Steps

    def _advance(self, times: int = 1) -> None:
        self.steps.take()
        super()._advance(times)


class _CountingGenerator(Generator):
    steps: _Steps

    def sql(self, expression: str | exp.Expr | None, key: str | None = None, comment: bool = True) -> str:
        self.steps.take()
        return super().sql(expression, key, comment)


class _Postgres(_CountingParser, PostgresParser):
    pass


class _Sqlite(_CountingParser, SQLiteParser):
    pass


class _WrittenPostgres(_CountingGenerator, PostgresGenerator):
    pass


class _WrittenSqlite(_CountingGenerator, SQLiteGenerator):
    pass


_PARSERS: dict[Dialect, type[_CountingParser]] = {"sqlite": _Sqlite, "postgres": _Postgres}
_GENERATORS: dict[Dialect, type[_CountingGenerator]] = {"sqlite": _WrittenSqlite, "postgres": _WrittenPostgres}


def _check_arrays(statement: exp.Expr) -> None:
    """`[[1]]` is read in a few steps and would be written as `ARRAY[ARRAY[1]]`, which is not."""
    depth = {id(statement): 0}
    for node in statement.walk():
        around = depth[id(node.parent)] if node is not statement else 0
        depth[id(node)] = around + isinstance(node, exp.Array)
        if depth[id(node)] > MAX_ARRAYS:
            raise ToolProblem(f"There are more than {MAX_ARRAYS} arrays within each other.")


def _too_deep() -> ToolProblem:
    return ToolProblem("The statement is nested too deeply.")
