"""A handler answers as a provider does, from configured text, and declines what it cannot do."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.contracts import FinishReason, Usage
from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.handlers import load_handler, password_reset
from holdfast.providers.handler import Handler
from holdfast.providers.protocol import Completed, ModelCall, ModelEvent, TextDelta

RESET = "holdfast.handlers:password_reset"
WHERE = "config/models.toml: deployments.password-reset"
PARAMETERS = {"reset_url": "https://example.com/reset", "valid_for": "30 minutes", "contact": "help@example.com"}


def leaves_it(question: str, parameters: Mapping[str, str]) -> str | None:
    """A handler that has no answer."""
    return None


def breaks(question: str, parameters: Mapping[str, str]) -> str | None:
    """A handler with a fault."""
    raise KeyError(question)


async def eventually(question: str, parameters: Mapping[str, str]) -> str | None:
    """No handler: it would have to be awaited."""
    return question


def takes_one(question: str) -> str:
    """No handler: it takes no parameters."""
    return question


async def answered(handler: Handler, **given: Any) -> list[ModelEvent]:
    """All events of one call."""
    call: dict[str, Any] = {
        "model": "reset",
        "messages": (),
        "max_output_tokens": 500,
        "question": "I forgot my password",
    }
    return [event async for event in handler.complete(ModelCall(**(call | given)))]


async def test_a_forgotten_password_is_answered_from_configured_text_without_a_token() -> None:
    events = await answered(Handler(load_handler(RESET, PARAMETERS, where=WHERE), PARAMETERS))
    *deltas, end = events
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    for value in PARAMETERS.values():
        assert value in text
    assert re.findall(r"^\d", text, re.MULTILINE) == ["1", "2", "3", "4"]
    assert isinstance(end, Completed)
    assert end.finish_reason is FinishReason.STOP
    assert end.usage == Usage(cost_usd=None)
    assert end.usage.total_tokens == 0


def test_optional_parameters_leave_no_gap() -> None:
    text = password_reset("I forgot my password", {"reset_url": "https://example.com/reset"})
    assert text is not None
    assert "valid" not in text
    assert "spam" not in text


async def test_an_answer_longer_than_allowed_is_cut_and_says_so() -> None:
    *_, end = await answered(Handler(password_reset, PARAMETERS), max_output_tokens=5)
    assert isinstance(end, Completed)
    assert end.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("handler", "given", "message"),
    [
        (Handler(leaves_it), {}, "leaves this question to a model"),
        (Handler(password_reset, PARAMETERS), {"question": "My password, and " + "also this, " * 50}, "leaves this"),
        (Handler(breaks), {"question": "a secret"}, "broke with KeyError"),
        (Handler(password_reset, PARAMETERS), {"output_schema": {"type": "object"}}, "demands JSON"),
    ],
)
async def test_a_declined_question_goes_to_another_deployment_without_blame(
    handler: Handler, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProviderError, match=message) as declined:
        await answered(handler, **given)
    assert declined.value.outcome is Outcome.INVALID_REQUEST
    assert not declined.value.outcome.counts_against_health
    assert "secret" not in str(declined.value)


@pytest.mark.parametrize(
    ("reference", "parameters", "message"),
    [
        ("password_reset", PARAMETERS, r"password-reset\.model: a handler is named `module:function`"),
        ("no.such.module:f", {}, r"module 'no\.such\.module' cannot be imported"),
        ("holdfast.handlers:absent", {}, "'holdfast.handlers' has no function 'absent'"),
        ("holdfast.handlers:_ONE_MATTER", {}, "has no function '_ONE_MATTER'"),
        ("tests.routing.test_handlers:eventually", {}, "has no function 'eventually'"),
        ("tests.routing.test_handlers:takes_one", {}, "has no function 'takes_one'"),
        (RESET, {}, r"password-reset\.parameters: 'reset_url' is missing"),
        (RESET, {**PARAMETERS, "reset_ulr": ""}, "'reset_ulr' is unknown.*known: contact, reset_url, valid_for"),
    ],
)
def test_a_wrong_handler_is_named_with_file_key_and_remedy(
    reference: str, parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_handler(reference, parameters, where=WHERE)


def test_a_function_of_ones_own_needs_no_declaration() -> None:
    assert load_handler("tests.routing.test_handlers:leaves_it", {"any": "thing"}, where=WHERE) is not None
