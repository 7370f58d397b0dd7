"""Reads the values of behaviour fields as they come from JSON or TOML.

A field that does not exist or a value out of range is refused with the field's name and what it accepts, because a
fault that is silently not injected makes a test pass for the wrong reason.
"""

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from simulator.prices import Price
from simulator.turns import Turn

Read = Callable[[str, object], object]
"""Checks and converts the value of the field that is named first."""


class BehaviourError(ValueError):
    """A behaviour that cannot be carried out.

    Args:
        message: What is wrong with the field and what it accepts.
        field: The field.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


def read_fields(given: object, fields: Mapping[str, Read], *, where: str) -> dict[str, Any]:
    """Check a mapping and convert its values.

    Args:
        given: The mapping as it came from JSON or TOML.
        fields: The fields it may have.
        where: What the mapping is, for the message.

    Raises:
        BehaviourError: The mapping is none, or a field or its value is unknown.
    """
    if not isinstance(given, Mapping):
        raise BehaviourError(f"A {where} is an object with the fields {_names(fields)}.", field=where)
    for name in given:
        if name not in fields:
            raise BehaviourError(
                f"Field {name!r:.80} is not a {where} field. The fields are {_names(fields)}.", field=str(name)
            )
    return {name: fields[name](name, value) for name, value in given.items()}


def number(low: float, high: float | None = None) -> Callable[[str, object], float]:
    """Numbers from `low` to `high`."""
    accepted = f"a number from {low:g}" + ("" if high is None else f" to {high:g}")

    def read(field: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refuse(field, value, accepted)
        if not low <= value <= (high if high is not None else float("1e12")):
            raise _refuse(field, value, accepted)
        return float(value)

    return read


def integer(low: int, high: int = 10_000_000) -> Callable[[str, object], int]:
    """Integers from `low` to `high`."""

    def read(field: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(field, value, f"an integer from {low} to {high}")
        return value

    return read


def member(enum: type[StrEnum]) -> Callable[[str, object], StrEnum]:
    """Members of an enum, by value."""

    def read(field: str, value: object) -> StrEnum:
        try:
            return enum(str(value))
        except ValueError:
            raise _refuse(field, value, "one of " + ", ".join(enum)) from None

    return read


def weights(enum: type[StrEnum]) -> Callable[[str, object], tuple[tuple[StrEnum, float], ...]]:
    """Members of an enum with their weights: a table, or a list in which all weigh the same."""
    read_member, read_weight = member(enum), number(0)

    def read(field: str, value: object) -> tuple[tuple[StrEnum, float], ...]:
        if isinstance(value, list | tuple):
            value = dict.fromkeys(value, 1)
        if not isinstance(value, Mapping):
            raise _refuse(field, value, "a list of kinds, or a table of kinds and their weights")
        read = tuple((read_member(field, name), read_weight(field, weight)) for name, weight in value.items())
        if read and not sum(weight for _, weight in read) > 0:
            raise _refuse(field, value, "at least one weight above 0")
        return read

    return read


def boolean(field: str, value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise _refuse(field, value, "true or false")
    return value


def text(field: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise _refuse(field, value, "a string")
    return value


def calls(field: str, value: object) -> tuple[Mapping[str, Any], ...]:
    """Tool calls."""
    accepted = 'a list of {"name": string, "arguments": object, or a string that is sent as it is}'
    if not isinstance(value, list | tuple):
        raise _refuse(field, value, accepted)
    for call in value:
        if not isinstance(call, Mapping) or set(call) - {"name", "arguments"} or not isinstance(call.get("name"), str):
            raise _refuse(field, call, accepted)
        if not isinstance(call.get("arguments", {}), Mapping | str):
            raise _refuse(field, call, accepted)
    return tuple(value)


def turns(field: str, value: object) -> tuple[Turn, ...]:
    """Turns of a model that works with tools."""
    accepted = 'a list of {"content": string, "tool_calls": list of {"name", "arguments"}}'
    if not isinstance(value, list | tuple):
        raise _refuse(field, value, accepted)
    read = []
    for turn in value:
        if not isinstance(turn, Mapping) or set(turn) - {"content", "tool_calls"} or not turn:
            raise _refuse(field, turn, accepted)
        content = text(f"{field}.content", turn.get("content", ""))
        read.append(Turn(content, calls(f"{field}.tool_calls", turn.get("tool_calls", ()))))
    return tuple(read)


def price(field: str, value: object) -> Price:
    """USD per million tokens: `input` and `output`; `cache_read` and `cache_write` default to `input`."""
    accepted = 'a table of USD per million tokens: "input", "output", and optionally "cache_read", "cache_write"'
    if not isinstance(value, Mapping) or not {"input", "output"} <= set(value) <= set(Price._fields):
        raise _refuse(field, value, accepted)
    amounts: dict[str, Decimal] = {}
    for name, amount in value.items():
        try:
            # A float's shortest text is the decimal that its author wrote.
            amounts[name] = Decimal("NaN") if isinstance(amount, bool) else Decimal(str(amount))
        except InvalidOperation:
            raise _refuse(field, value, accepted) from None
        if not amounts[name].is_finite() or amounts[name] < 0:
            raise _refuse(field, value, accepted)
    cached = {name: amounts.get(name, amounts["input"]) for name in ("cache_read", "cache_write")}
    return Price(amounts["input"], amounts["output"], **cached)


def optional(read: Read) -> Read:
    """What `read` accepts, or nothing."""
    return lambda field, value: None if value is None else read(field, value)


def _refuse(field: str, value: object, accepted: str) -> BehaviourError:
    return BehaviourError(f"Field {field!r} is {value!r:.80}; it accepts {accepted}.", field=field)


def _names(fields: Collection[str]) -> str:
    return ", ".join(sorted(fields))
