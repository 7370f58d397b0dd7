"""What crosses a room's door arrives as it was sent, cannot be changed on the way, and has no unknown fields."""

import json
import types
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types as bounds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, ValidationError

import holdfast.contracts
from holdfast.contracts import (
    ContentRef,
    Contract,
    Conversation,
    DecisionKind,
    FinishReason,
    Generated,
    Limits,
    Status,
    ToolOffer,
    Turn,
    Usage,
)
from workflows.connection import DATA_CONVERTER

ContractT = TypeVar("ContractT", bound=Contract)

CONTRACTS: list[type[Contract]] = [
    found
    for found in (getattr(holdfast.contracts, name) for name in holdfast.contracts.__all__)
    if isinstance(found, type) and issubclass(found, Contract) and found is not Contract
]


def contracts(kind: type[Contract]) -> st.SearchStrategy[Contract]:
    """Valid values of a contract, with any of its optional fields set."""
    if kind in CHECKED_AS_A_WHOLE:
        return CHECKED_AS_A_WHOLE[kind]
    fields = kind.model_fields
    values = {name: value(field.annotation, *field.metadata) for name, field in fields.items()}
    return st.fixed_dictionaries(
        {name: values[name] for name, field in fields.items() if field.is_required()},
        optional={name: values[name] for name, field in fields.items() if not field.is_required()},
    ).map(lambda given: kind(**given))


TOOLS = st.builds(
    ToolOffer, name=st.sampled_from(["look", "add"]), parameters=st.just({"type": "object", "properties": {}})
)
TURNS = st.builds(Turn, role=st.sampled_from(["system", "user", "assistant"]), content=st.text(max_size=20))
CHECKED_AS_A_WHOLE: dict[type[Contract], st.SearchStrategy[Contract]] = {
    ToolOffer: TOOLS,
    Turn: TURNS,
    Conversation: st.builds(
        Conversation,
        turns=st.lists(TURNS, max_size=2).map(tuple),
        tools=st.lists(TOOLS, max_size=2, unique_by=lambda tool: tool.name).map(tuple),
        tool_choice=st.sampled_from([None, "auto"]),
    ),
}
"""Contracts whose fields depend on each other."""


def value(annotation: Any, *metadata: Any) -> st.SearchStrategy[Any]:
    """Valid values of a field."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return value(inner, *more, *metadata)
    if annotation is AwareDatetime or annotation is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if get_origin(annotation) in (Union, types.UnionType):
        return st.one_of([value(part, *metadata) for part in get_args(annotation)])
    if annotation is type(None):
        return st.none()
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        return st.lists(value(get_args(annotation)[0]), min_size=_bound(metadata, "min_length") or 0, max_size=2).map(
            tuple
        )
    if get_origin(annotation) is dict:
        key, content = get_args(annotation)
        return st.dictionaries(value(key), value(content), max_size=2)
    if issubclass(annotation, Contract):
        return contracts(annotation)
    if issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    return _scalar(annotation, metadata)


def _scalar(annotation: type, metadata: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    least, above, most = (_bound(metadata, name) for name in ("ge", "gt", "le"))
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(least if above is None else above + 1, most)
    if annotation is float:
        floor, below = (above if least is None else least), _bound(metadata, "lt")
        return st.floats(
            floor,
            most if below is None else below,
            exclude_min=above is not None,
            exclude_max=below is not None,
            allow_nan=False,
            allow_infinity=False,
        )
    if annotation is Decimal:
        return st.decimals(least, most, allow_nan=False, allow_infinity=False)
    if annotation is timedelta:
        return st.timedeltas(timedelta(microseconds=1), most or timedelta(days=100_000))
    assert annotation is str, f"No values for {annotation}."
    pattern = next((found for part in metadata if (found := getattr(part, "pattern", None))), None)
    if pattern:
        return st.from_regex(pattern, fullmatch=True)
    return st.text(min_size=_bound(metadata, "min_length") or 0, max_size=min(_bound(metadata, "max_length") or 20, 20))


def _bound(metadata: tuple[Any, ...], name: str) -> Any:
    parts = [part for item in metadata for part in (item if isinstance(item, bounds.GroupedMetadata) else [item])]
    return next((found for part in parts if (found := getattr(part, name, None)) is not None), None)


def through(given: ContractT) -> ContractT:
    """What arrives on the other side of the engine."""
    converter = DATA_CONVERTER.payload_converter
    (payload,) = converter.to_payloads([given])
    (arrived,) = converter.from_payloads([payload], [type(given)])
    assert isinstance(arrived, type(given))
    return arrived


def written(given: Contract) -> Any:
    """What stands in the history."""
    (payload,) = DATA_CONVERTER.payload_converter.to_payloads([given])
    return json.loads(payload.data)


def same(given: Any, arrived: Any) -> None:
    """Compare what is set too: pydantic calls a set default and an unset one equal."""
    assert given == arrived
    if isinstance(given, Contract):
        assert given.model_fields_set == arrived.model_fields_set
        for name in type(given).model_fields:
            same(getattr(given, name), getattr(arrived, name))
    elif isinstance(given, tuple):
        for one, other in zip(given, arrived, strict=True):
            same(one, other)


def test_there_are_contracts_to_test() -> None:
    assert len(CONTRACTS) >= 35


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_every_contract_arrives_as_it_was_sent(kind: type[Contract]) -> None:
    @settings(max_examples=40)
    @given(contracts(kind))
    def arrives(given: Contract) -> None:
        same(given, through(given))
        assert set(written(given)) == given.model_fields_set

    arrives()


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_every_contract_is_frozen_closed_and_documented(kind: type[Contract]) -> None:
    @settings(max_examples=3)
    @given(contracts(kind))
    def holds(given: Contract) -> None:
        for field in kind.model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(given, field, getattr(given, field))
        with pytest.raises(ValidationError, match="Extra inputs"):
            kind.model_validate({**given.model_dump(), "zzz": 1})

    holds()
    assert kind.__doc__


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_a_default_that_was_set_on_purpose_survives_a_release_that_changes_it(kind: type[Contract]) -> None:
    @settings(max_examples=3)
    @given(contracts(kind))
    def survives(given: Contract) -> None:
        defaults = {
            name: field.get_default(call_default_factory=True)
            for name, field in kind.model_fields.items()
            if not field.is_required()
        }
        explicit = kind(**{**{name: getattr(given, name) for name in kind.model_fields}, **defaults})
        assert set(written(explicit)) == set(kind.model_fields)
        same(explicit, through(explicit))

    survives()


def test_an_unpriced_call_does_not_arrive_as_a_free_one() -> None:
    assert through(Usage(cost_usd=None)).cost_usd is None
    assert through(Usage()).cost_usd == 0
    unpriced = Usage(input_tokens=3).model_copy(update={"cost_usd": None})
    output = ContentRef(sha256="0" * 64, size=1)
    generated = Generated(
        output=output, finish_reason=FinishReason.STOP, model="m", usage=unpriced, spent=unpriced, attempts=1
    )
    assert through(generated).usage.cost_usd is None
    assert through(generated).spent.cost_usd is None


@given(st.lists(st.none() | st.decimals(0, 1000, places=9), max_size=5))
def test_a_sum_with_one_unpriced_part_is_unpriced(costs: list[Decimal | None]) -> None:
    total = sum((Usage(input_tokens=1, cost_usd=cost) for cost in costs), Usage())
    assert total.total_tokens == len(costs)
    if None in costs:
        assert total.cost_usd is None
    else:
        assert total.cost_usd == sum(cost for cost in costs if cost is not None)


def test_money_keeps_every_digit() -> None:
    cost = Decimal("0.000000123456789012345678")
    assert through(Usage(cost_usd=cost)).cost_usd == cost
    assert written(Usage(cost_usd=cost)) == {"cost_usd": "1.23456789012345678E-7"}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Limits, {"tokens": 0}),
        (Limits, {"cost_usd": Decimal("-0.01")}),
        (Limits, {"cost_usd": Decimal("NaN")}),
        (Limits, {"attempts": 51}),
        (Limits, {"deadline": timedelta(0)}),
        (Usage, {"output_tokens": -1}),
        (ContentRef, {"sha256": "A" * 64, "size": 1}),
        (ContentRef, {"sha256": "a" * 64 + "\n", "size": 1}),
        (ContentRef, {"sha256": "a" * 64, "size": -1}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[Contract], changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind(**changes)


def test_times_without_a_zone_are_refused() -> None:
    for kind in CONTRACTS:
        for name, field in kind.model_fields.items():
            if AwareDatetime in (field.annotation, *get_args(field.annotation)):
                with pytest.raises(ValidationError, match=r"timezone|required"):
                    kind.model_validate({name: datetime(2026, 3, 1)})  # noqa: DTZ001 - what is refused


def test_a_request_is_final_in_every_status_but_two() -> None:
    assert {status for status in Status if not status.is_final} == {Status.RUNNING, Status.WAITING}
    assert [kind.value for kind in DecisionKind] == ["approve", "edit", "reject", "escalate"]
