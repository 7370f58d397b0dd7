"""Functions of PostgreSQL that make a long text of a short one: how long has to be seen in the statement. Pure.

The server looks at its clock between the rows of a query and seldom inside a function. One call that writes a gigabyte
takes seconds during which nothing ends it, so a length is a number that can be read, or bounded by one: `LEAST(n, 50)`.
SQLite needs none of this: there the longest value is set for the connection and the process is ended at its time.
"""

import math
import re
from collections.abc import Sequence

from sqlglot import exp

from holdfast.errors import ToolProblem

MAX_LENGTH = 10_000
"""Of a text that `lpad`, `rpad` or `format` fills up, and times that `repeat` repeats."""
MAX_GROWN = 10_000_000
"""Characters that the `repeat` of a statement could make of its longest text, all of them applied to each other."""

_SIZED = frozenset({"repeat", "lpad", "rpad"})
_PLACE = re.compile(r"%(?:%|(?:\d+\$)?-*(?P<width>\*|\d+)?)")
_MOST_DIGITS = 20
_INTEGERS = frozenset({exp.DType.INT, exp.DType.BIGINT, exp.DType.SMALLINT})


def check_growth(statement: exp.Expr) -> None:
    """Check all calls of a statement that make long texts.

    Args:
        statement: Parsed as PostgreSQL's.

    Raises:
        ToolProblem: The length of one is not told, or is too large.
    """
    repeats = []
    for node in statement.find_all(exp.Func):
        name, arguments = _call(node)
        if name in _SIZED:
            most = _most(arguments[1]) if len(arguments) > 1 else 0
            if most is None or most > MAX_LENGTH:
                raise ToolProblem(
                    f"The second argument of `{name}` has to be a number up to {MAX_LENGTH}, or LEAST(..., 100)."
                )
            if name == "repeat":
                repeats.append(max(1, most))
        elif name == "format":
            _check_format(arguments)
    longest = max((len(text.name) for text in statement.find_all(exp.Literal) if text.is_string), default=1)
    if math.prod(repeats) * longest > MAX_GROWN and repeats:
        raise ToolProblem("What `repeat` makes would be too long; repeat less often.")


def _call(node: exp.Func) -> tuple[str, Sequence[exp.Expr]]:
    """The name of one of these functions, in lower case, and its arguments; no name for any other."""
    match node:
        case exp.Anonymous():
            return node.name.lower(), node.expressions
        case exp.Repeat():
            return "repeat", (node.this, node.args["times"])
        case exp.Pad():
            return ("lpad" if node.args.get("is_left") else "rpad"), (node.this, node.expression)
        case exp.Format():
            return "format", (node.this, *node.expressions)
    return "", ()


def _most(size: exp.Expr) -> int | None:
    """The largest value of an expression, if it can be seen."""
    while isinstance(size, exp.Paren) or (isinstance(size, exp.Cast) and size.to.this in _INTEGERS):
        size = size.this
    match size:
        case exp.Literal() if not size.is_string and size.name.isdecimal():
            return int(size.name) if len(size.name) < _MOST_DIGITS else None
        case exp.Neg() if _most(size.this) is not None:
            return 0
        case exp.Least():
            known = [most for one in (size.this, *size.expressions) if (most := _most(one)) is not None]
            return min(known, default=None)
    return None


def _check_format(arguments: Sequence[exp.Expr]) -> None:
    form = arguments[0] if arguments else None
    if not isinstance(form, exp.Literal) or not form.is_string:
        raise ToolProblem("The first argument of `format` has to be a text in '...'.")
    for place in _PLACE.finditer(form.name):
        width = place["width"] or "0"
        if width == "*" or len(width) > len(str(MAX_LENGTH)) or int(width) > MAX_LENGTH:
            raise ToolProblem(f"A width in `format` has to be a number up to {MAX_LENGTH}.")
