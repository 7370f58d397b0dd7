"""What every shape of a reply needs: whole characters, tool calls put together from pieces, counts that are counts."""

import re
from collections.abc import Mapping
from typing import Any

from holdfast.contracts import ToolCall
from holdfast.contracts.conversation import MAX_TEXT, MAX_TOOLS
from holdfast.providers.protocol import ToolCallDelta

_MAX_ID = 256


class MalformedChunk(Exception):
    """A chunk that is not in the shape of its API."""


class WholeCharacters:
    """Text without lone surrogates, which JSON escapes can smuggle in and UTF-8 cannot write.

    A pair that was cut between two pieces is put together again.
    """

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        """Take the next piece; a half pair at its end waits for the next one."""
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class ToolCallParts:
    """Tool calls under construction, each known by the index its server gives it.

    Servers disagree about the index: Gemini and Ollama give several whole calls the same one, others give none. So an
    id that differs from the one at that index begins a new call. The index of the events is this reply's own count.
    """

    def __init__(self) -> None:
        self._calls: list[_Parts] = []
        self._by_index: dict[int | None, int] = {}

    def add(self, index: int | None, call_id: str, name: str, arguments: str) -> ToolCallDelta:
        """Take the next piece of the call that the server calls `index`.

        Raises:
            MalformedChunk: There are more calls, or longer arguments, than any reply may have.
        """
        position = self._by_index.get(index)
        if position is None and index is None and not call_id and self._calls:
            position = len(self._calls) - 1
        began = position is None or bool(call_id and self._calls[position].given_id not in ("", call_id))
        if position is None or began:
            position = len(self._calls)
            if position >= MAX_TOOLS:
                raise MalformedChunk
            self._calls.append(_Parts(position, call_id, name))
            self._by_index[index] = position
        call = self._calls[position]
        call.given_id = call.given_id or call_id
        arguments = call.add(arguments)
        return ToolCallDelta(position, call.id if began else "", call.name if began else "", arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """Every call, in the order in which they began. Empty arguments are an empty object."""
        return tuple(
            ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments).strip() or "{}")
            for call in self._calls
        )


class _Parts:
    def __init__(self, position: int, call_id: str, name: str) -> None:
        self.given_id = call_id
        self.id = _whole(call_id)[:_MAX_ID] or f"call_{position}"
        # A model can make names up. One that no tool may have still has to travel, so that the client can refuse it.
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"
        self.arguments: list[str] = []
        self._characters = WholeCharacters()
        self._length = 0

    def add(self, arguments: str) -> str:
        arguments = self._characters.add(arguments)
        self._length += len(arguments)
        if self._length > MAX_TEXT:
            raise MalformedChunk
        self.arguments.append(arguments)
        return arguments


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str:
    """A string, or an empty one in place of anything else."""
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """A number of tokens, or `None` in place of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _whole(value: str) -> str:
    return value.encode("utf-8", "replace").decode()
