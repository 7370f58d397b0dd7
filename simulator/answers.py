"""The text of plain answers: drawn from the prompt's numbered passages, or filler of an exact length.

Everything follows from the arguments, so the same request gets the same text.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.tokens import encoding

_WORDS = (
    *("the", "and", "record", "approval", "budget", "request", "answer", "model", "agent", "provider", "policy"),
    *("window", "review", "limit", "account", "customer", "order", "payment", "report", "system", "service"),
    *("support", "team", "contract", "document", "change", "history", "check", "result", "level", "access", "plan"),
)
"""Each is one `o200k_base` token, after a space and capitalised, so filler has exactly the length asked for."""

_SENTENCE_TOKENS = 12
_PASSAGE = re.compile(r"^\[(\d+)\][ \t]*(.*)$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"\w{3,}")
_MOST_SENTENCE_CHARACTERS = 400


@dataclass(frozen=True)
class NumberedPassage:
    """A passage of the prompt."""

    marker: int
    text: str


def numbered_passages(message: str) -> tuple[tuple[NumberedPassage, ...], str]:
    """Split a message into its passages and the rest.

    A passage begins on a line that starts with `[n]` and goes on until an empty line or the next passage.

    Returns:
        The passages in order, and the text outside them (the question).
    """
    found: list[tuple[int, list[str]]] = []
    outside: list[str] = []
    inside = False
    for line in message.splitlines():
        if match := _PASSAGE.match(line):
            found.append((int(match[1]), [match[2]]))
            inside = True
        elif inside and line.strip():
            found[-1][1].append(line)
        else:
            inside = False
            outside.append(line)
    passages = ((marker, " ".join(" ".join(lines).split())) for marker, lines in found)
    return tuple(NumberedPassage(marker, text) for marker, text in passages if text), "\n".join(outside)


def plain_answer(message: str, tokens: int, draw: random.Random, *, wrong: bool = False) -> str:
    """Answer a message.

    Args:
        message: The last user message.
        tokens: Length of the answer when the message has no passages.
        draw: Seeded by the request.
        wrong: Quote the passage that fits least; if there is but one, cite it for what it does not say.

    Returns:
        One or two sentences of the passage that shares most words with the question, ending in its marker `[n]`; or
        filler of exactly `tokens` `o200k_base` tokens.
    """
    passages, question = numbered_passages(message)
    if wrong and len(passages) == 1:
        return f"{filler(tokens, draw)} [{passages[0].marker}]"
    if wrong and passages:
        asked = _words(question)
        passages = (min(passages, key=lambda passage: len(asked & _words(passage.text))),)
    return quote(passages, question) if passages else filler(tokens, draw)


def quote(passages: Sequence[NumberedPassage], question: str) -> str:
    """Quote the sentence that shares most words with the question, and the one after it, with the passage's marker."""
    asked = _words(question)
    best: tuple[int, NumberedPassage, list[str]] | None = None
    for passage in passages:
        sentences = [sentence for sentence in _SENTENCE_END.split(passage.text) if sentence]
        for start, sentence in enumerate(sentences):
            shared = len(asked & _words(sentence))
            if best is None or shared > best[0]:
                best = (shared, passage, sentences[start : start + 2])
    if best is None:
        raise ValueError("No passages to quote.")
    _, passage, quoted = best
    text = " ".join(quoted)
    if len(text) > _MOST_SENTENCE_CHARACTERS:
        text = quoted[0][:_MOST_SENTENCE_CHARACTERS].rstrip()
    return f"{text} [{passage.marker}]"


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def filler(tokens: int, draw: random.Random) -> str:
    """Sentences of plain words, exactly `tokens` tokens long under `o200k_base`.

    Args:
        tokens: At least 1.
        draw: Where the words come from.
    """
    pieces: list[str] = []
    while len(pieces) < tokens:
        length = min(_SENTENCE_TOKENS, tokens - len(pieces))
        words = draw.choices(_WORDS, k=max(1, length - 1))
        pieces += [words[0].capitalize(), *words[1:]]
        if length > 1:
            pieces.append(".")
    return " ".join(pieces).replace(" .", ".")


def token_pieces(text: str, size: int) -> Iterator[tuple[str, int]]:
    """Cut a text into pieces of at most `size` tokens.

    A character whose bytes span two pieces is in the later one, so every piece is valid text.

    Yields:
        The piece and its number of tokens.
    """
    codec = encoding()
    tokens = codec.encode_ordinary(text)
    pending: list[int] = []
    for start in range(0, len(tokens), size):
        pending += tokens[start : start + size]
        count = len(tokens[start : start + size])
        try:
            piece = codec.decode_bytes(pending).decode()
        except UnicodeDecodeError:
            yield "", count
            continue
        pending.clear()
        yield piece, count
