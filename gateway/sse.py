"""Server-sent events as bytes, by the WHATWG HTML standard, section 9.2. Pure; `holdfast.providers.sse` reads them."""

import re
from datetime import timedelta
from typing import Final

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = b":\n\n"
"""A comment: clients ignore it, proxies see that the connection lives, and the server finds out when it does not."""

_LINE_END: Final = re.compile(r"\r\n|\n|\r")


def encode(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: timedelta | None = None
) -> bytes:
    """Write one event.

    Args:
        data: What the client gets. Any line end in it arrives as LF. Without data a client dispatches nothing, but
            takes note of `id` and `retry`.
        event: The event's type; `message` when it is left out.
        id: What the client sends as Last-Event-ID when it connects again. Empty makes it forget the last one.
        retry: How long the client waits before it connects again, in whole milliseconds.

    Raises:
        ValueError: The type or the id holds a line end, the id a null, or `retry` is negative.
    """
    lines = []
    if event is not None:
        lines.append(f"event: {_one_line(event, 'type')}")
    if id is not None:
        if "\0" in id:
            raise ValueError("An event's id cannot hold a null: clients would ignore the id.")
        lines.append(f"id: {_one_line(id, 'id')}")
    if retry is not None:
        if retry < timedelta():
            raise ValueError("An event's `retry` cannot be negative.")
        lines.append(f"retry: {retry // timedelta(milliseconds=1)}")
    if data is not None:
        lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return _bytes(lines)


def comment(text: str) -> bytes:
    """Write a comment, which clients ignore."""
    return _bytes([f": {line}" for line in _LINE_END.split(text)])


def _one_line(value: str, name: str) -> str:
    if _LINE_END.search(value):
        raise ValueError(f"An event's {name} cannot hold a line end: it would begin another field.")
    return value


def _bytes(lines: list[str]) -> bytes:
    # A lone surrogate has no UTF-8; the standard's decoder would show it as one replacement character, too.
    return "\n".join([*lines, "", ""]).encode("utf-8", errors="replace")
