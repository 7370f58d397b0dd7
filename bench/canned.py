"""The handler of the measurements' intents: the same text for every question of one kind."""

from collections.abc import Mapping

from holdfast.handlers import handler


@handler(required=("text",))
def answer(question: str, parameters: Mapping[str, str]) -> str | None:  # noqa: ARG001 - the form of a handler
    """The configured text."""
    return parameters["text"]
