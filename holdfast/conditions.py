"""Conditions of approvals, in CEL (https://github.com/google/cel-spec): expressions without loops or side effects.

An agent's author writes them; what they look at, a model or a stranger wrote. So a condition that cannot be evaluated
is told apart from one that does not hold, and what one may cost is bounded before it is evaluated.
"""

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import celpy
import lark
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError, base_functions
from pydantic import JsonValue

from holdfast.condition_names import UnknownName, check_names
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.guards import KINDS
from holdfast.shapes import Shape

MAX_EXPRESSION = 1_000
"""Characters."""
MAX_CHARACTERS = 500_000
"""Of all texts among the values."""
MAX_STEPS = 200_000
"""Parts of the expression, times the values that it may go through. Each takes some 10 microseconds on a slow core."""
MAX_VALUES = 250_000
"""To be looked at, without any loop."""
MAX_COMPARED = 3_000_000
"""What a loop looks at that in each turn looks at other values than its own, as in `a.exists(x, x in b)`."""
MAX_GROWTH = 64
"""How many times as large as a value what the loops make of it may be, as by `map(x, x + x)`."""

ON_OUTPUT = ("output", "usage", "guards", "retrieval", "confidence")
"""What a condition on an agent's answer may name."""
ON_TOOL = ("tool", "args", "usage", "tainted")
"""What a condition on a call of a tool may name."""

_KNOWN = {
    name: Shape.of(name, {"type": "object", "properties": dict.fromkeys(names, True)})
    for name, names in {"usage": ("tokens", "cost_usd"), "guards": KINDS, "retrieval": ("score",)}.items()
}
"""Of variables that are the same for every agent."""

_MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})
"""The loops of CEL. The library has others besides, with which a text could grow without bound."""
_FUNCTIONS = frozenset(name for name in base_functions if name[0].isalpha()) | {"has", "dyn"}
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


class ConditionProblem(HoldfastError):
    """A condition cannot be evaluated: a value is missing, of another type, or too large. The message holds no value.

    Whoever asks people because of a condition takes it as met.
    """


class Condition:
    """One expression.

    Args:
        expression: As `check_condition` accepts it.

    Raises:
        ConditionProblem: It is no CEL expression.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        try:
            self._parsed = _parse(expression)
        except _Unusable as error:
            raise ConditionProblem(f"The condition {expression[:80]!r} cannot be read: {error}") from None

    def holds(self, values: Mapping[str, JsonValue]) -> bool:
        """Whether it is met. Takes at most some seconds, for any values; a second for all but the largest.

        Args:
            values: What the expression may name.

        Raises:
            ConditionProblem: It cannot be told.
        """
        if self._parsed.is_too_much(count_values(values)):
            raise self._problem("there is too much to look at")
        try:
            found = self._parsed.program.evaluate({name: _to_cel(value) for name, value in values.items()})
        except CELEvalError:
            # The library's message quotes values.
            raise self._problem("a value is missing or of another type") from None
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise self._problem(f"{type(error).__name__} in its evaluation") from None
        if not isinstance(found, celtypes.BoolType):
            raise self._problem("it gives something else than true or false")
        return bool(found)

    def _problem(self, why: str) -> ConditionProblem:
        return ConditionProblem(f"The condition {self.expression[:80]!r} cannot be evaluated: {why}.")


def check_condition(
    expression: str, variables: Sequence[str], where: str, shapes: Mapping[str, Shape] | None = None
) -> None:
    """Check a condition when an agent is loaded.

    Args:
        expression: CEL.
        variables: What it may name, `ON_OUTPUT` or `ON_TOOL`.
        where: File and key, for the message.
        shapes: What is known of these beforehand.

    Raises:
        ConfigurationError: It is too long, no CEL, or names what there is not.
    """
    try:
        parsed = _parse(expression)
    except _Unusable as error:
        raise ConfigurationError(f"{where}: {expression[:80]!r} is no condition: {error}") from None
    for name in parsed.names:
        if name not in variables:
            near = difflib.get_close_matches(name, variables, n=1)
            inside = next((shape.path for shape in (shapes or {}).values() if name in shape.names), None)
            near = [f"{inside}.{name}"] if inside else near
            hint = f"Did you mean {near[0]!r}?" if near else f"There is {', '.join(variables)}."
            raise ConfigurationError(f"{where}: the condition names {name!r}, which there is not. {hint}")
    try:
        check_names(parsed.tree, {**_KNOWN, **(shapes or {})})
    except UnknownName as error:
        raise ConfigurationError(f"{where}: the condition {error}") from None


class Counted:
    """How much there is to look at."""

    def __init__(self) -> None:
        self.values = 0
        self.characters = 0


def count_values(values: Mapping[str, JsonValue]) -> Counted:
    """Count values and characters, names included, without recursion."""
    counted, left = Counted(), list[JsonValue](values.values())
    while left:
        value = left.pop()
        counted.values += 1
        if isinstance(value, str):
            counted.characters += len(value)
        elif isinstance(value, dict):
            counted.characters += sum(len(name) for name in value)
            left += value.values()
        elif isinstance(value, list):
            left += value
    return counted


class _Unusable(Exception):
    """What is wrong with an expression, for an author."""


class _Parsed:
    def __init__(self, tree: lark.Tree[lark.Token], program: celpy.Runner) -> None:
        self.tree = tree
        self.program = program
        self._count = sum(1 for _ in tree.iter_subtrees())
        loops = tuple(_loops(tree))
        bound = {name for loop in loops for name in _bound(loop)}
        self._loops = bool(loops)
        self._elsewhere = sum(name not in bound for loop in loops for name in _names(loop.children[2:]))
        """Mentions, inside loops, of what is not the loop's own."""
        self.names = sorted(set(_names([tree])) - bound)

    def is_too_much(self, given: "Counted") -> bool:
        """Whether to look at so much could take longer than some seconds."""
        if given.characters > MAX_CHARACTERS or given.values > MAX_VALUES:
            return True
        whole = given.values + given.characters // 10
        return self._loops and (
            given.values * self._count > MAX_STEPS or given.values * whole * self._elsewhere > MAX_COMPARED
        )


@lru_cache(maxsize=256)
def _parse(expression: str) -> _Parsed:
    if not expression.strip():
        raise _Unusable("it is empty")
    if len(expression) > MAX_EXPRESSION:
        raise _Unusable(f"it has {len(expression)} characters, and {MAX_EXPRESSION} are allowed")
    environment = celpy.Environment()
    try:
        tree = environment.compile(expression)
        program = environment.program(tree, functions=dict(_COMPARISONS))
    except CELParseError as error:
        raise _Unusable(f"CEL cannot read it at line {error.line}, column {error.column}") from None
    except RecursionError:
        raise _Unusable("it is nested too deeply") from None
    for name in _called(tree):
        if name not in _FUNCTIONS | _MACROS:
            near = difflib.get_close_matches(name, _FUNCTIONS | _MACROS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _Unusable(f"it calls {name!r}, which there is not{hint}")
    for loop in _loops(tree):
        if _nested(loop):
            raise _Unusable("one of its loops is inside another; its time could not be bounded")
    if math.prod(_growth(loop) for loop in _loops(tree)) > MAX_GROWTH:
        raise _Unusable("its loops make ever larger values of what they are given; their size could not be bounded")
    return _Parsed(tree, program)


def _loops(tree: lark.Tree[lark.Token]) -> Iterator[lark.Tree[lark.Token]]:
    return (found for found in tree.find_data("member_dot_arg") if str(found.children[1]) in _MACROS)


def _nested(loop: lark.Tree[lark.Token]) -> bool:
    """Whether another loop runs in each turn of this one, rather than before it, as in `a.filter(…).exists(…)`."""
    return any(True for part in loop.children[2:] if isinstance(part, lark.Tree) for _ in _loops(part))


def _names(parts: Iterable[lark.Tree[lark.Token] | lark.Token]) -> list[str]:
    trees = (part for part in parts if isinstance(part, lark.Tree))
    kinds = ("ident", "dot_ident")  # `.args` is `args`
    return [str(found.children[0]) for tree in trees for kind in kinds for found in tree.find_data(kind)]


def _growth(loop: lark.Tree[lark.Token]) -> int:
    """How often `map` puts what it is given into what it makes; the other loops only choose or tell."""
    if str(loop.children[1]) != "map":
        return 1
    own = set(_bound(loop))
    # The first mention is the one that gives the name.
    return max(1, sum(name in own for name in _names(loop.children[2:])) - 1)


def _called(tree: lark.Tree[lark.Token]) -> list[str]:
    functions = {str(found.children[0]) for kind in ("ident_arg", "dot_ident_arg") for found in tree.find_data(kind)}
    methods = {str(found.children[1]) for found in tree.find_data("member_dot_arg")}
    return sorted(functions | methods)


def _bound(loop: lark.Tree[lark.Token]) -> Iterator[str]:
    """The name that a loop gives to what it goes through: all that its first argument consists of."""
    arguments = loop.children[2] if len(loop.children) > 2 else None
    if isinstance(arguments, lark.Tree) and isinstance(first := arguments.children[0], lark.Tree):
        tokens = list(first.scan_values(lambda _: True))
        if len(tokens) == 1:
            yield str(tokens[0])


def _to_cel(value: JsonValue) -> Any:
    match value:
        case bool():
            return celtypes.BoolType(value)
        case int():
            # JSON has larger numbers than CEL's integers.
            return celtypes.IntType(value) if _SMALLEST <= value <= _LARGEST else celtypes.DoubleType(value)
        case float():
            return celtypes.DoubleType(value)
        case str():
            return celtypes.StringType(value)
        case list():
            return celtypes.ListType([_to_cel(item) for item in value])
        case dict():
            return celtypes.MapType({celtypes.StringType(name): _to_cel(item) for name, item in value.items()})
    return None


def _numbers(compare: Callable[[Any, Any], Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison that takes 5 and 5.0 for the same, as CEL says; a model writes either, and the library refuses.

    What compares with nothing is refused: any order would be false of it, and so would be the condition.
    """
    kinds = (celtypes.IntType, celtypes.UintType, celtypes.DoubleType)

    def compared(left: Any, right: Any) -> Any:
        given = [isinstance(side, kinds) for side in (left, right)]
        if any(given) and any(isinstance(side, celtypes.BoolType) for side in (left, right)):
            raise TypeError("A truth value is no number.")
        if any(known and math.isnan(_plain(side)) for known, side in zip(given, (left, right), strict=True)):
            raise TypeError("What is no number compares with none.")
        if all(given):
            return celtypes.BoolType(bool(compare(_plain(left), _plain(right))))
        return otherwise(left, right)

    return compared


def _plain(number: Any) -> int | float:
    return float(number) if isinstance(number, float) else int(number)


_COMPARISONS = {
    name: _numbers(compare, base_functions[name])
    for name, compare in {
        "_<_": operator.lt,
        "_<=_": operator.le,
        "_>_": operator.gt,
        "_>=_": operator.ge,
        "_==_": operator.eq,
        "_!=_": operator.ne,
    }.items()
}
