"""Recorded histories: where they are, how one is read, and what people would read in one.

Payloads are base64 in a history's JSON, so a search for text in that JSON finds nothing even where the text is;
`readable` gives the bytes themselves.
"""

from pathlib import Path

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHistory

DIRECTORY = Path(__file__).parent / "histories"

QUESTION = "zanzibarite"
REPLY = "gneissium"
EDIT = "basaltine"
DOCUMENT = "feldsparrow"
PERSON = "marker.person@example.org"
CARD = "4111 1111 1111 1111"
MARKERS = (QUESTION, REPLY, EDIT, DOCUMENT, PERSON, "marker.person", CARD, CARD.replace(" ", ""))
"""Words of the questions, replies, edits, documents and people that the recorded requests were about."""


def names() -> list[str]:
    """Every recorded path."""
    return sorted(file.stem for file in DIRECTORY.glob("*.json"))


def load(name: str) -> WorkflowHistory:
    """One recorded history."""
    return WorkflowHistory.from_json(f"recorded-{name}", (DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))


def readable(history: WorkflowHistory) -> str:
    """Everything in a history that a person could read: its fields, and every payload decoded."""
    decoded = [payload.data.decode(errors="replace") for event in history.events for payload in _payloads(event)]
    return "\n".join([history.to_json(), *decoded])


def _payloads(message: Message) -> list[Payload]:
    if isinstance(message, Payload):
        return [message]
    found: list[Payload] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            parts = list(value.values())
        else:
            parts = list(value) if field.is_repeated else [value]
        for part in parts:
            if isinstance(part, Message):
                found += _payloads(part)
    return found
