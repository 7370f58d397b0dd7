"""The text of a request while it is written: taken from the relay, personal data put back, each character once.

A position counts characters as the client has them, placeholders restored, because that is what the stored answer can
be cut at after the run, when nothing is left of the placeholders. It also holds a checksum of those characters: whether
an answer begins with what a client has is then known without the client sending it back, even if another attempt, a
mended reply or a person's edit became the answer.
"""

import re
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from gateway.execution import Execution
from holdfast.errors import RelayGap, Unavailable
from holdfast.guards.streaming import JsonStreamRestorer, StreamRestorer
from holdfast.ledger import Ledger
from holdfast.relay import Relay

_POSITION = re.compile(r"a(\d{1,9})\.o(\d{1,15})\.c([0-9a-f]{8})")


@dataclass(frozen=True)
class Shown:
    """What a client has of a request's text."""

    attempt: int = 0
    """Which attempt wrote it; 0 for none."""
    offset: int = 0
    """How many characters."""
    check: int = 0
    """CRC-32 of their UTF-8."""

    def plus(self, text: str) -> "Shown":
        """The same with more text."""
        return Shown(
            self.attempt, self.offset + len(text), zlib.crc32(text.encode("utf-8", "surrogatepass"), self.check)
        )

    def begins(self, text: str) -> bool:
        """Whether a text begins with what is shown."""
        head = text[: self.offset]
        return len(head) == self.offset and zlib.crc32(head.encode("utf-8", "surrogatepass")) == self.check

    def __str__(self) -> str:
        return f"a{self.attempt}.o{self.offset}.c{self.check:08x}"

    @classmethod
    def read(cls, written: str) -> "Shown":
        """The inverse of `str`.

        Raises:
            ValueError: It is none.
        """
        match = _POSITION.fullmatch(written)
        if match is None:
            raise ValueError("not a position")
        return cls(int(match[1]), int(match[2]), int(match[3], 16))


class Piece(NamedTuple):
    """What a client has to do next."""

    kind: Literal["text", "restart"]
    """`text`: add `text`. `restart`: discard everything, a newer attempt began."""
    text: str
    shown: Shown
    """What it has then."""


class _Restorer(Protocol):
    def feed(self, text: str) -> str: ...

    def finish(self) -> str: ...


class TextPlane:
    """Reads streamed text.

    Args:
        relay: Where workers publish it.
        ledger: Has what the placeholders stand for while the request runs.
    """

    def __init__(self, relay: Relay, ledger: Ledger) -> None:
        self._relay = relay
        self._ledger = ledger

    async def follow(self, execution: Execution, shown: Shown, *, as_json: bool) -> AsyncGenerator[Piece, None]:
        """Yield what comes after a position, until the stream is over or has a gap; the stored answer has the rest.

        Args:
            execution: A request that has not ended.
            shown: What the client has.
            as_json: Whether the text is JSON, whose strings the restored values must not leave.
        """
        restorer: _Restorer | None = None
        start, skip = 0, 0
        if shown.offset:
            mapping = await self._mapping(execution)
            if mapping is None:
                return
            restorer = _restorer(mapping, as_json)
            start, skip = (0, shown.offset) if mapping else (shown.offset, 0)
        events = self._relay.follow(execution.request_id, attempt=shown.attempt, offset=start)
        try:
            async with aclosing(events):
                async for event in events:
                    if restorer is None or event.kind == "began":
                        mapping = await self._mapping(execution)
                        if mapping is None:
                            return
                        restorer = _restorer(mapping, as_json)
                    if event.attempt > shown.attempt:
                        discards = shown.offset > 0
                        shown, skip = Shown(event.attempt), 0
                        if discards:
                            yield Piece("restart", "", shown)
                    text = restorer.feed(event.text) if event.kind == "text" else ""
                    if event.kind == "ended":
                        text = restorer.finish()
                    if skip:
                        skip, text = max(0, skip - len(text)), text[skip:]
                    if text:
                        shown = shown.plus(text)
                        yield Piece("text", text, shown)
        except (RelayGap, Unavailable):
            return

    async def _mapping(self, execution: Execution) -> dict[str, str] | None:
        """What the placeholders stand for; `None` when that is forgotten, because the request has ended meanwhile."""
        mapping = await self._ledger.vault.load(execution.tenant, execution.request_id)
        if not mapping and await self._ledger.requests.get(execution.tenant, execution.request_id) is not None:
            return None
        return mapping


def _restorer(mapping: dict[str, str], as_json: bool) -> _Restorer:
    return JsonStreamRestorer(mapping) if as_json else StreamRestorer(mapping)
