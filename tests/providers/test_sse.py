"""The event decoder: the same events however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.providers.sse import EventDecoder, EventTooLarge

STREAM = (
    b"\xef\xbb\xbfdata: after the mark\n\n"
    b": hello\r\n\r\n"
    b'data: {"text": "gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x8c\x8d"}\n\n'
    b"event: chunk\rid: 7\rdata:no space\r\r"
    b"data: first line\r\ndata: second line\r\n\r\n"
    b"retry: 10\ndata\ndata:\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [
    "after the mark",
    '{"text": "grüß dich 🌍"}',
    "no space",
    "first line\nsecond line",
    "[DONE]",
]


def decode(chunks: list[bytes]) -> list[str]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


def test_a_stream_cut_at_any_one_position_gives_the_same_events() -> None:
    for position in range(len(STREAM) + 1):
        assert decode([STREAM[:position], STREAM[position:]]) == EVENTS, f"cut at {position}"


def test_a_stream_that_comes_byte_by_byte_gives_the_same_events() -> None:
    assert decode([bytes([byte]) for byte in STREAM]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_cut_anywhere_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert decode([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_text_survives_any_line_end(lines: list[str], line_end: str) -> None:
    stream = "".join(f"data: {line}{line_end}" for line in lines) + line_end
    text = "\n".join(lines)
    assert decode([stream.encode()]) == ([text] if text.strip() else [])


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_make_the_decoder_fail(chunks: list[bytes]) -> None:
    assert all(isinstance(event, str) and event for event in decode(chunks))


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_the_last_event_may_lack_its_blank_line(ending: bytes) -> None:
    assert decode([b"data: [DONE]" + ending]) == ["[DONE]"]


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    decoder = EventDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: " + b"x" * 90) == []
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 10)


def test_an_event_of_many_lines_is_bounded_as_a_whole() -> None:
    decoder = EventDecoder(max_event_bytes=100)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: 123456789\n" * 11)


def test_the_bound_is_per_event_not_per_stream() -> None:
    assert len(EventDecoder(max_event_bytes=100).feed(b"data: 123456789\n\n" * 50)) == 50
