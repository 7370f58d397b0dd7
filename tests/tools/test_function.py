"""A function becomes a tool: its schema, its description, its arguments, its result."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, JsonValue

from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.tools import Tool, ToolContext, tool

CONTEXT = ToolContext(
    idempotency_key="k" * 32,
    tenant="acme",
    user="ada",
    session=None,
    agent="desk",
    request_id="req_12345678",
    key="1.0",
)


def _only_short(note: str) -> str:
    if len(note) > 5:
        raise ValueError(f"too long: {note}")
    return note


def _only_known(name: str) -> str:
    return {"": ""}[name]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = Field(ge=1)


@tool(name="place_order", side_effects=True, idempotent=True, timeout="1m30s", output_tokens=500, personal_data=True)
def order(
    item: str,
    to: Address,
    context: ToolContext,
    colour: Colour = Colour.RED,
    on: date | None = None,
    price: Annotated[Decimal, Field(gt=0, description="In euros.")] = Decimal(1),
    *,
    gift: bool = False,
    json: str = "",  # a name that pydantic's models have themselves
    _note: str = "",
) -> dict[str, Any]:
    """Order something.

    Only while it is in stock.

    Args:
        item: What to order,
            by its name.
        to: Where to send it.
        gift: Whether to wrap it.

    Returns:
        The order as it was placed.
    """
    return {"item": item, "to": to, "colour": colour, "on": on, "price": price, "gift": gift, "key": context.key}


async def test_types_and_docstring_become_schema_and_description() -> None:
    assert order.name == "place_order"
    assert order.description == (
        "Order something.\n\nOnly while it is in stock.\n\nReturns: The order as it was placed."
    )
    properties: Any = order.parameters["properties"]
    assert set(properties) == {"item", "to", "colour", "on", "price", "gift", "json", "_note"}, "no context"
    assert order.parameters["required"] == ["item", "to"]
    assert order.parameters["additionalProperties"] is False
    assert properties["item"] == {"type": "string", "description": "What to order,\nby its name."}
    assert properties["price"]["description"] == "In euros."
    assert properties["gift"] == {"type": "boolean", "default": False, "description": "Whether to wrap it."}
    assert '"title"' not in json.dumps(order.parameters)
    assert await order.describe() == order.description
    entry = order.entry("Now.")
    assert (entry.offer.description, entry.source, entry.tool) == ("Now.", "function", "place_order")
    assert (entry.side_effects, entry.idempotent, entry.personal_data) == (True, True, True)
    assert (entry.timeout, entry.output_tokens, entry.origin) == (timedelta(seconds=90), 500, "tools")


async def test_a_call_gets_typed_arguments_and_its_context_and_returns_json() -> None:
    given = order.validate('{"item": "lamp", "to": {"street": "Elm", "number": 4}, "on": "2026-11-21", "price": 19.99}')
    assert json.loads(await order.call(given, CONTEXT)) == {
        "item": "lamp",
        "to": {"street": "Elm", "number": 4},
        "colour": "red",
        "on": "2026-11-21",
        "price": "19.99",
        "gift": False,
        "key": "1.0",
    }


def test_a_decorated_function_can_still_be_called_as_one() -> None:
    placed = order("lamp", Address(street="Elm", number=4), CONTEXT, gift=True)
    assert (placed["item"], placed["gift"]) == ("lamp", True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"item": "hunter2', "not one JSON object"),
        ("[1]", "must be one JSON object"),
        ('{"item": "hunter2", "item": "lamp"}', "same key twice"),
        ('{"item": NaN}', "NaN"),
        ("{}", '"item" is a required property'),
        ('{"item": "a", "to": {"street": "hunter2", "number": 0}}', "/to/number"),
        ('{"item": "a", "to": {"street": "b", "number": 1}, "colour": "hunter2"}', "/colour"),
        ('{"item": "a", "to": {"street": "b", "number": 1}, "on": "hunter2"}', "/on"),
        ('{"item": "a", "to": {"street": "b", "number": 1}, "hunter2": 1}', "the parameters are item, to"),
        ('{"item": "a", "to": {"street": "b", "number": 1}, "context": {"tenant": "hunter2"}}', "not a parameter"),
    ],
)
def test_wrong_arguments_are_told_without_their_values(arguments: str, told: str) -> None:
    with pytest.raises(ToolProblem) as caught:
        order.validate(arguments)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_slips_of_json_are_mended_and_nothing_is_no_arguments() -> None:
    @tool
    def ping() -> str:
        """Say pong."""
        return "pong"

    assert ping.validate("") == {}
    assert order.validate("```json\n{'item': 'lamp', 'to': {'street': 'Elm', 'number': 4,},}\n```")["item"] == "lamp"


async def test_synchronous_functions_run_beside_each_other_and_not_in_the_loop() -> None:
    together = threading.Barrier(3, timeout=60)

    @tool
    def meet() -> str:
        """Wait for the others."""
        together.wait()
        return threading.current_thread().name

    names = await asyncio.gather(*(meet.call({}, CONTEXT) for _ in range(3)))
    assert threading.main_thread().name not in names


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("plain", "plain"),
        (None, "null"),
        ([1, "two"], '[1,"two"]'),
        ({"at": date(2026, 1, 2), "of": Decimal("1.10")}, '{"at":"2026-01-02","of":"1.10"}'),
        (Address(street="Elm", number=4), '{"street":"Elm","number":4}'),
    ],
)
async def test_what_a_function_returns_becomes_text(returned: Any, text: str) -> None:
    @tool
    async def give() -> Any:
        """Give."""
        return returned

    assert await give.call({}, CONTEXT) == text


async def test_a_result_that_json_has_no_form_for_is_not_lost() -> None:
    @tool
    def give() -> object:
        """Give."""
        return {"one": object}

    assert "object" in await give.call({}, CONTEXT)


async def test_an_error_of_the_function_is_the_callers_to_tell() -> None:
    @tool
    def stop() -> str:
        """Stop."""
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await stop.call({}, CONTEXT)


def undocumented(item: str) -> str:
    return item


def untyped(item) -> str:  # type: ignore[no-untyped-def]
    """Do."""
    return str(item)


def starred(*items: str) -> str:
    """Do."""
    return "".join(items)


def misdescribed(item: str) -> str:
    """Do.

    Args:
        itme: What.
    """
    return item


def unspeakable(item: Callable[[], int]) -> str:
    """Do."""
    return str(item)


def unresolved(item: "Nowhere") -> str:  # type: ignore[name-defined]  # noqa: F821 - that is the test
    """Do."""
    return str(item)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (undocumented, "no docstring"),
        (untyped, "'item' has no type hint"),
        (starred, "cannot be named"),
        (misdescribed, "describes 'itme'"),
        (unspeakable, "JSON Schema"),
        (unresolved, "cannot be resolved"),
    ],
)
def test_a_function_that_does_not_say_enough_is_refused_by_name(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        tool(function)
    assert function.__name__ in str(caught.value)


@tool
def price(
    prices: dict[str, Annotated[int, Field(ge=0)]],
    note: Annotated[str, AfterValidator(_only_short)] = "",
    sealed: Annotated[str, AfterValidator(_only_known)] = "",
) -> str:
    """Set prices."""
    return "set"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prices": {"hunter2": "free"}}, "- /prices/*: "),
        ({"prices": {"hunter2": -1}}, "- /prices/*: "),
        ({"prices": {}, "note": "hunter2"}, "- /note: Value error, too long: …"),
        ({"prices": {}, "sealed": "hunter2"}, "the tool's own check failed (KeyError)"),
    ],
)
def test_neither_a_name_nor_a_value_of_the_models_own_is_in_what_is_said_of_arguments(
    arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolProblem) as caught:
        price.validate(json.dumps(arguments))
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_returns_no_result_by_itself_is_no_tool() -> None:
    def counting() -> Iterator[int]:
        """Count."""
        yield 1

    async def streaming() -> AsyncIterator[int]:
        """Count."""
        yield 1

    class Counter:
        """Count."""

    for one in (counting, streaming, Counter):
        with pytest.raises(ConfigurationError, match=f"{one.__name__}.*is no function that returns its result"):
            tool(one)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"origin": "rumour"}, "`origin`: Input should be"), ({"output_tokens": 0}, "`output_tokens`: Input should be")],
)
def test_an_option_that_is_wrong_is_told_in_one_line(options: dict[str, Any], told: str) -> None:
    def look() -> str:
        """Look."""
        return ""

    with pytest.raises(ConfigurationError) as caught:
        tool(**options)(look)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["server__tool", "1st", "with space", "dotted.name", "", "x" * 65])
def test_names_that_models_or_files_cannot_use_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be named"):
        _named(name)


def _named(name: str) -> Tool:
    class Named(Tool):
        async def call(self, arguments: Any, context: ToolContext) -> str:
            return ""

    parameters: dict[str, JsonValue] = {"type": "object"}
    return Named(name, "Do.", parameters)


@pytest.mark.parametrize("timeout", ["soon", "30", timedelta(0), "61m", timedelta(days=3)])
def test_a_timeout_that_is_no_span_or_longer_than_an_hour_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):

        @tool(timeout=timeout)
        def quick() -> str:
            """Do."""
            return ""


def test_a_choice_of_words_reaches_the_model_as_an_enum() -> None:
    @tool
    def choose(size: Literal["small", "large"], colour: Colour = Colour.RED) -> str:
        """Choose.

        Args:
            size: How big.
        """
        return size + colour

    properties: Any = choose.parameters["properties"]
    assert properties["size"] == {"type": "string", "enum": ["small", "large"], "description": "How big."}
    with pytest.raises(ToolProblem, match="/size"):
        choose.validate('{"size": "huge"}')


def test_what_changes_nothing_may_be_repeated() -> None:
    @tool(side_effects=False)
    def look() -> str:
        """Look."""
        return ""

    assert look.entry("Look.").idempotent
