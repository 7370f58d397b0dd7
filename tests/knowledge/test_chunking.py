from hypothesis import given
from hypothesis import strategies as st

from holdfast.knowledge import chunk
from holdfast.knowledge.chunking import MAX_CHUNK_CHARACTERS

markdown = st.lists(
    st.one_of(
        st.text(max_size=120),
        st.sampled_from(
            [
                "# Heading\n",
                "\n\n",
                "- item\n",
                "```\ncode\n",
                "| a | b |\n|---|---|\n",
                "    ",
                "\r\n",
                "word ",
                "😀𝄞 ",
            ]
        ),
    ),
    max_size=30,
).map("".join)


@given(markdown, st.integers(min_value=5, max_value=200))
def test_a_chunk_is_the_slice_of_the_text_that_its_offsets_name(text: str, size: int) -> None:
    for piece in chunk(text, size):
        assert text[piece.start : piece.end] == piece.text
        assert piece.text.strip()


@given(markdown, st.integers(min_value=5, max_value=200))
def test_chunks_come_in_order_and_leave_out_nothing_but_whitespace(text: str, size: int) -> None:
    end = 0
    for piece in chunk(text, size):
        assert piece.start >= end
        assert not text[end : piece.start].strip()
        end = piece.end
    assert not text[end:].strip()


@given(markdown, st.integers(min_value=5, max_value=200))
def test_no_chunk_is_longer_than_asked(text: str, size: int) -> None:
    assert all(len(piece.text) <= size for piece in chunk(text, size))


def test_offsets_count_code_points_not_bytes_or_surrogates() -> None:
    text = "😀😀😀 first.\n\n𝄞 second."
    assert [(piece.start, piece.end, piece.text) for piece in chunk(text, 12)] == [
        (0, 10, "😀😀😀 first."),
        (12, 21, "𝄞 second."),
    ]


def test_sections_stay_whole_when_they_fit() -> None:
    section = "## Part\n\n" + "A sentence of words. " * 25
    pieces = chunk(section + "\n\n" + section)
    assert [piece.text for piece in pieces] == [section.strip()] * 2
    assert len(section) < MAX_CHUNK_CHARACTERS < 2 * len(section)


def test_whitespace_gives_no_chunk() -> None:
    assert chunk("") == []
    assert chunk(" \n\t\r\n\u3000") == []
