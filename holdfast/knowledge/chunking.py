"""Cuts a document into passages whose offsets point back at the exact characters.

Citations quote a source by offset, so a chunk is always a slice of the document: nothing is rewritten, and between two
chunks nothing but whitespace is left out.
"""

from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter

MAX_CHUNK_CHARACTERS = 800
"""Longest chunk. all-MiniLM-L6-v2 reads 256 tokens and ignores the rest; English prose has about four characters a
token, so 800 characters are about 200 tokens and leave room for denser text. Scripts that take a token per character
(Chinese, Japanese) are embedded by their first quarter thousand characters only, but quoted whole."""


@dataclass(frozen=True)
class Chunk:
    """A slice of a document: `document[start:end] == text`, counted in Unicode code points."""

    text: str
    start: int
    end: int


def chunk(text: str, max_characters: int = MAX_CHUNK_CHARACTERS) -> list[Chunk]:
    """Split at the highest Markdown boundary that fits: heading, paragraph, sentence, word.

    Plain text and reStructuredText are read as Markdown too: their paragraphs, sentences and words are the same.

    Args:
        text: The document.
        max_characters: Upper bound of a chunk's length, in code points.

    Returns:
        Chunks in document order, without overlap; none for a text of only whitespace.
    """
    pieces = MarkdownSplitter(max_characters).chunk_indices(text)
    return [Chunk(text=piece, start=start, end=start + len(piece)) for start, piece in pieces if piece.strip()]
