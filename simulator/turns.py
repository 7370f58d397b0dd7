"""A model that works with tools, told turn by turn: which tools it calls first, next, and what it says in the end.

Which turn a call is follows from its own messages - how often the assistant has called tools since the last question -
so conversations may run beside each other, and a repeated call gets the same reply.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BOUNDARY = re.compile(r"^<<[^<>]*>>$")
_FIELD = re.compile(r"\{(question|url|results|result (\d+)|first ([^{}]+))\}")
_URL = re.compile(r"https?://[^\s<>\"]*[^\s<>\".,;:!?)]")


@dataclass(frozen=True)
class Turn:
    """What the model does in one turn. `{question}`, its first `{url}`, the first match in it of `{first [A-Z]-\\d+}`,
    `{results}` and `{result 2}` are filled in, in arguments too."""

    content: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """`{"name", "arguments"}`; without any, the turn is an answer."""


def turn_of(turns: Sequence[Turn], messages: Sequence[Mapping[str, Any]], question: str, *, may_call: bool) -> Turn:
    """The turn that a call has come to, filled in.

    Args:
        turns: In their order; the last one goes on for ever.
        messages: Of the call, in either wire format.
        question: The last text of a user.
        may_call: Whether the call offers tools; without, the last turn that calls none is taken.
    """
    rounds = _since_question(messages)
    turn = turns[min(sum(map(_calls_tools, rounds)), len(turns) - 1)]
    if turn.tool_calls and not may_call:
        turn = next((other for other in reversed(turns) if not other.tool_calls), Turn(content="I cannot go on."))
    last = max((at for at, message in enumerate(rounds) if _calls_tools(message)), default=-1)
    results = [text for message in rounds[last + 1 :] for text in _results(message)]

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return _FIELD.sub(lambda field: _value(field, question, results), value)
        if isinstance(value, Mapping):
            return {name: filled(part) for name, part in value.items()}
        return [filled(part) for part in value] if isinstance(value, list | tuple) else value

    return Turn(filled(turn.content), tuple(filled(call) for call in turn.tool_calls))


def _value(field: re.Match[str], question: str, results: Sequence[str]) -> str:
    if field[1] == "question":
        return question
    if field[1] == "url" or field[3] is not None:
        found = re.search(field[3], question) if field[3] is not None else _URL.search(question)
        return found[0] if found else ""
    if field[2] is None:
        return "\n\n".join(results)
    position = int(field[2])
    return results[position - 1] if 1 <= position <= len(results) else ""


def _since_question(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].get("role") == "user" and not _results(messages[at]):
            return list(messages[at + 1 :])
    return list(messages)


def _calls_tools(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    uses = any(isinstance(block, dict) and block.get("type") == "tool_use" for block in blocks)
    return message.get("role") == "assistant" and (bool(message.get("tool_calls")) or uses)


def _results(message: Mapping[str, Any]) -> list[str]:
    """Texts of the tool results in a message, without the boundaries that a careful client puts around them."""
    content = message.get("content")
    if message.get("role") == "tool":
        return [_inside(_text(content))]
    blocks = content if isinstance(content, list) else []
    return [
        _inside(_text(block.get("content")))
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_result"
    ]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _inside(text: str) -> str:
    lines = text.splitlines()
    marks = [at for at, line in enumerate(lines) if _BOUNDARY.match(line.strip())]
    if len(marks) >= 2:
        lines = lines[marks[0] + 1 : marks[-1]]
    return "\n".join(lines).strip()
