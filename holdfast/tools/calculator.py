"""`calculator`: exact decimal arithmetic. Reads Python's expression syntax and evaluates nothing but arithmetic.

Every bound is on size, so that no expression takes long: characters, digits kept, and exponents.
"""

import ast
import decimal
import operator
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal

from pydantic import JsonValue

from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import Tool

MAX_CHARACTERS = 500
DIGITS = 34
"""Digits kept, as in IEEE 754's decimal128."""
MAX_EXPONENT = 6_144
"""Decimal exponent of the largest number, as there."""

_DESCRIPTION = f"""\
Compute an arithmetic expression exactly, with {DIGITS} digits. Use it for every calculation that you would otherwise \
do in your head.

Operators: + - * / // % ** and parentheses. Functions: abs(x), round(x, digits), sqrt(x), exp(x), ln(x), log10(x), \
floor(x), ceil(x), min(...), max(...), sum(...). Constants: pi, e. Percent is written as a division by 100. Numbers \
have no thousands separators and no units."""

_PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "expression": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_CHARACTERS,
            "description": "For example `(1299.90 - 149) * 1.19`.",
        }
    },
    "required": ["expression"],
    "additionalProperties": False,
}

_CONTEXT = decimal.Context(
    prec=DIGITS,
    Emax=MAX_EXPONENT,
    Emin=-MAX_EXPONENT,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def _divided(left: Decimal, right: Decimal) -> tuple[Decimal, Decimal]:
    """Quotient and remainder as Python's integers have them: rounded down, the remainder with the divisor's sign."""
    if not right:
        raise decimal.DivisionByZero
    quotient, remainder = divmod(left, right)
    if remainder and (remainder < 0) != (right < 0):
        return quotient - 1, remainder + right
    return quotient, remainder


_BINARY: Mapping[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: _divided(left, right)[0],
    ast.Mod: lambda left, right: _divided(left, right)[1],
    ast.Pow: operator.pow,
}

_UNARY: Mapping[type[ast.unaryop], Callable[[Decimal], Decimal]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}

_CONSTANTS = {
    "pi": Decimal("3.141592653589793238462643383279502884"),
    "e": Decimal("2.718281828459045235360287471352662498"),
}


def _floor(value: Decimal) -> Decimal:
    return value.to_integral_value(decimal.ROUND_FLOOR)


def _ceil(value: Decimal) -> Decimal:
    return value.to_integral_value(decimal.ROUND_CEILING)


def _round(value: Decimal, digits: Decimal = Decimal(0)) -> Decimal:
    if digits != digits.to_integral_value() or abs(digits) > DIGITS:
        raise ToolProblem(f"`round` takes a whole number of digits, at most {DIGITS}.")
    # Half away from zero, as people round; Python's own rounds half to even.
    return value.quantize(Decimal(1).scaleb(-int(digits)), rounding=decimal.ROUND_HALF_UP)


_FUNCTIONS: Mapping[str, tuple[Callable[..., Decimal], int, int]] = {
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "sqrt": (Decimal.sqrt, 1, 1),
    "exp": (Decimal.exp, 1, 1),
    "ln": (Decimal.ln, 1, 1),
    "log10": (Decimal.log10, 1, 1),
    "floor": (_floor, 1, 1),
    "ceil": (_ceil, 1, 1),
    "min": (lambda *values: min(values), 1, MAX_CHARACTERS),
    "max": (lambda *values: max(values), 1, MAX_CHARACTERS),
    "sum": (lambda *values: sum(values, Decimal(0)), 1, MAX_CHARACTERS),
}
"""Functions with the fewest and the most arguments they take."""


def calculate(expression: str) -> str:
    """The value of an expression.

    Args:
        expression: See the tool's description.

    Returns:
        The number in plain digits, or with an exponent when it is very large or small.

    Raises:
        ToolProblem: It is no arithmetic, has no value, or passes a bound.
    """
    text = expression.strip()
    if len(text) > MAX_CHARACTERS:
        raise ToolProblem(f"The expression is longer than {MAX_CHARACTERS} characters; compute it in steps.")
    if not text.isascii():
        raise ToolProblem("The expression holds a character that is no ASCII; write `*` and `/` and plain digits.")
    text = " ".join(text.split())
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolProblem("The expression is not arithmetic. Write it like `(1 + 2) * 3`.") from None
    with decimal.localcontext(_CONTEXT):
        try:
            value = +_value(tree.body, text)
            if not value.is_finite():
                raise decimal.InvalidOperation
            return _shown(value)
        except decimal.DivisionByZero:
            raise ToolProblem("The expression divides by zero.") from None
        except decimal.Overflow:
            raise ToolProblem(f"The result, or a part of it, is beyond 10 ** {MAX_EXPONENT}.") from None
        except decimal.InvalidOperation:
            raise ToolProblem(
                f"A part of the expression has no value, such as the root of a negative number, or no exact one with "
                f"{DIGITS} digits."
            ) from None
        except RecursionError:
            raise ToolProblem("The expression is nested too deeply; compute it in steps.") from None


def _value(node: ast.expr, text: str) -> Decimal:
    match node:
        case ast.Constant(value=bool()):
            raise ToolProblem("The expression holds `True` or `False`, which are no numbers.")
        case ast.Constant(value=int() | float()):
            # Read from the text: a float would not be the number that was written.
            return Decimal(text[node.col_offset : node.end_col_offset])
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _BINARY:
            return _BINARY[type(operation)](_value(left, text), _value(right, text))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand, text))
        case ast.BinOp(op=ast.BitXor()):
            raise ToolProblem("`^` is no operator here; powers are written `**`.")
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Tuple():
            raise ToolProblem("The expression holds a comma outside a function; numbers have no thousands separators.")
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            function, fewest, most = _FUNCTIONS[name]
            if not fewest <= len(arguments) <= most:
                raise ToolProblem(f"`{name}` takes {fewest if fewest == most else f'{fewest} to {most}'} number(s).")
            return function(*(_value(argument, text) for argument in arguments))
    raise ToolProblem("The expression holds something other than numbers, the operators and the functions named.")


def _shown(value: Decimal) -> str:
    if not value:
        return "0"
    normal = value.normalize()
    if -12 <= normal.adjusted() < DIGITS:
        return format(normal, "f")
    return str(normal)


class Calculator(Tool):
    """The tool."""

    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:  # noqa: ARG002 - nobody's matter
        """Compute."""
        return calculate(str(arguments["expression"]))


def build(name: str, options: Mapping[str, object], where: str) -> Tool:
    """The calculator under a name.

    Raises:
        ConfigurationError: It was given options.
    """
    if options:
        raise ConfigurationError(f"{where}: `calculator` has no option {sorted(options)[0]!r}; take it out.")
    return Calculator(
        name,
        _DESCRIPTION,
        _PARAMETERS,
        side_effects=False,
        idempotent=True,
        origin=None,
        timeout=timedelta(seconds=5),
        output_tokens=200,
    )
