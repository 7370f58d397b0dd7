"""What the gateway writes, any reader of server-sent events understands."""

import re
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sse
from holdfast.providers.sse import EventDecoder


class _Event(NamedTuple):
    type: str
    data: str
    last_id: str


def _read(stream: bytes) -> tuple[list[_Event], str | None]:
    """Interpret a stream by the steps of the standard, section 9.2.6; return the events and the reconnection time."""
    events, data, kind, last_id, retry = [], list[str](), "", "", None
    for line in re.split(r"\r\n|\n|\r", stream.decode())[:-1]:
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append(_Event(kind or "message", "\n".join(data), last_id))
            data, kind = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retry = value
        else:
            assert colon, f"{line!r} is no field"
    return events, retry


_LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.none() | _LINES, st.none() | _LINES)
def test_an_event_is_read_as_it_was_written(data: str, kind: str | None, identity: str | None) -> None:
    (event,), _ = _read(sse.encode(data, event=kind, id=identity))
    assert event == (kind or "message", re.sub(r"\r\n|\r", "\n", data), identity or "")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)), st.integers(1, 7))
def test_the_library_reads_what_the_gateway_writes(texts: list[str], size: int) -> None:
    stream = b"".join(part for text in texts for part in (sse.HEARTBEAT, sse.encode(text), sse.comment(text)))
    decoder = EventDecoder()
    read = [data for start in range(0, len(stream), size) for data in decoder.feed(stream[start : start + size])]
    assert read == [re.sub(r"\r\n|\r", "\n", text) for text in texts]


def test_fields_look_like_the_standard_says() -> None:
    written = sse.encode('{"a": 1}\nb', event="text", id="2:17", retry=timedelta(seconds=1.5))
    assert written == b'event: text\nid: 2:17\nretry: 1500\ndata: {"a": 1}\ndata: b\n\n'


def test_a_comment_and_a_heartbeat_are_no_events() -> None:
    assert _read(sse.HEARTBEAT + sse.comment("still\r\nhere") + sse.encode("x")) == ([("message", "x", "")], None)


def test_an_id_and_a_retry_without_data_are_noted_but_dispatch_nothing() -> None:
    events, retry = _read(sse.encode(id="7", retry=timedelta(milliseconds=250)) + sse.encode("x"))
    assert events == [("message", "x", "7")]
    assert retry == "250"


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_a_line_end_cannot_smuggle_in_a_field(line_end: str) -> None:
    with pytest.raises(ValueError, match="another field"):
        sse.encode("x", event=f"text{line_end}data: forged")
    with pytest.raises(ValueError, match="another field"):
        sse.encode("x", id=f"1{line_end}data: forged")
    assert [event.type for event in _read(sse.encode(f"x{line_end}event: forged"))[0]] == ["message"]


def test_a_null_in_an_id_and_a_negative_retry_are_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        sse.encode("x", id="1\0")
    with pytest.raises(ValueError, match="negative"):
        sse.encode("x", retry=timedelta(seconds=-1))


def test_half_a_surrogate_pair_does_not_break_the_stream() -> None:
    assert sse.encode("\ud83d") == b"data: ?\n\n"
