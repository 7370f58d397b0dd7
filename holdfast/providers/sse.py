"""Server-sent events from bytes: the `data` of each event, however the network cut the stream.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream", for comments, line ends (LF, CRLF, CR),
the byte order mark and multi-line data. One leniency: an event that the end of the stream leaves without its blank line
is kept, because some servers omit it after `[DONE]`.
"""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_EVENT_BYTES = 1024 * 1024
"""Largest event accepted; a chat chunk is well under a kilobyte."""


class EventTooLarge(Exception):
    """One event is longer than the decoder admits."""


class EventDecoder:
    """Turns chunks of bytes into the data of complete events.

    Lines are cut as bytes and decoded whole, so a chunk may end inside a UTF-8 sequence.

    Args:
        max_event_bytes: Bound of one event's bytes, so that a stream without line ends cannot fill the memory.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial_line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._chunk_ended_with_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes.

        Returns:
            The data of every event that these bytes complete, in order.

        Raises:
            EventTooLarge: The event under construction passed the bound.
        """
        if not chunk:
            return []
        if self._chunk_ended_with_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._chunk_ended_with_cr = False
            if not chunk:
                return []
        self._chunk_ended_with_cr = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        events = []
        for line in ended:
            self._partial_line += line
            if (data := self._end_line()) is not None:
                events.append(data)
        self._partial_line += rest
        self._check_size()
        return events

    def finish(self) -> list[str]:
        """Take the end of the stream, and return the event that lacks only its blank line, if any."""
        events = []
        if self._partial_line and (data := self._end_line()) is not None:
            events.append(data)
        if (data := self._dispatch()) is not None:
            events.append(data)
        return events

    def _end_line(self) -> str | None:
        self._check_size()
        line = bytes(self._partial_line)
        self._partial_line.clear()
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._data_bytes += len(value) + 1
        return None

    def _dispatch(self) -> str | None:
        data = b"\n".join(self._data).decode("utf-8", errors="replace")
        self._data.clear()
        self._data_bytes = 0
        return data if data.strip() else None

    def _check_size(self) -> None:
        if self._data_bytes + len(self._partial_line) > self._max_event_bytes:
            raise EventTooLarge
