"""What a client may bring along."""

from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.contracts import Conversation, ToolCall, ToolOffer, Turn

CALL = ToolCall(id="call_1", name="lookup", arguments="{}")


def test_a_conversation_survives_its_json() -> None:
    conversation = Conversation(
        turns=(
            Turn(role="system", content="Be brief."),
            Turn(role="user", content="Q"),
            Turn(role="assistant", tool_calls=(CALL,)),
            Turn(role="tool", content="R", tool_call_id="call_1"),
        ),
        continuation=(Turn(role="tool", content="R again", tool_call_id="call_1"),),
        tools=(ToolOffer(name="lookup", parameters={"type": "object", "properties": {"id": {"type": "string"}}}),),
        tool_choice="lookup",
        parallel_tool_calls=False,
    )
    assert Conversation.model_validate_json(conversation.model_dump_json()) == conversation


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "user", "tool_calls": [CALL]},
        {"role": "tool", "content": "R"},
        {"role": "user", "content": "Q", "tool_call_id": "call_1"},
        {"role": "developer", "content": "Q"},
        {"role": "user", "content": "x" * 1_000_001},
    ],
)
def test_a_turn_fits_its_role_and_its_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Turn.model_validate(wrong)


@pytest.mark.parametrize("name", ["", "look up", "a.b", "x" * 65, "ä"])
def test_a_tools_name_is_one_that_openai_accepts(name: str) -> None:
    with pytest.raises(ValidationError):
        ToolOffer(name=name)
    with pytest.raises(ValidationError):
        ToolCall(id="1", name=name, arguments="{}")


LOOKUP, NOW = ToolOffer(name="lookup"), ToolOffer(name="now")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"tools": (LOOKUP, NOW, LOOKUP)}, "same name"),
        ({"tools": (LOOKUP,), "tool_choice": "now"}, "tool_choice"),
        ({"tool_choice": "required"}, "offers no tool"),
        ({"turns": (Turn(role="tool", tool_call_id="call_1"),)}, "no earlier"),
        (
            {"turns": (Turn(role="tool", tool_call_id="call_1"), Turn(role="assistant", tool_calls=(CALL,)))},
            "no earlier",
        ),
        ({"turns": (Turn(role="user"),) * 501}, "500"),
        ({"tools": tuple(ToolOffer(name=f"t{number}") for number in range(129))}, "128"),
    ],
)
def test_a_conversation_names_only_what_is_there_and_keeps_its_bounds(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Conversation(**wrong)


def test_a_tools_parameters_are_bounded() -> None:
    with pytest.raises(ValidationError, match="65536"):
        ToolOffer(name="lookup", parameters={"enum": ["x" * 66_000]})


def test_errors_never_repeat_what_was_said() -> None:
    with pytest.raises(ValidationError) as caught:
        Turn(role="user", content="my card is 4111", tool_call_id="call_1")
    assert "4111" not in str(caught.value)
