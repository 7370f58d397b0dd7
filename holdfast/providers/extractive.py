"""Answers without a model: the sentences of the retrieved passages that best match the question, each with its marker.

Deterministic, in process, and without a key, so that Holdfast can be tried, tested and measured anywhere. It quotes; it
does not reason. When no sentence covers enough of the question, it says so.
"""

import json
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.contracts import FinishReason, Passage, Usage
from holdfast.errors import Outcome, ProviderError
from holdfast.providers.protocol import Completed, ModelCall, ModelEvent, Provider, TextDelta
from holdfast.providers.sentences import statements
from holdfast.tokens import count_tokens, encoding

NO_ANSWER = "The documents do not contain an answer to this question."
"""The whole reply when nothing supports one."""

_MOST_SENTENCES = 3
_THRESHOLD = 0.3
"""Least support of the best sentence. Set by hand, like the weights, on questions about product documentation."""
_NEAR_BEST = 0.7
"""A further sentence needs this share of the best one's support."""
_TOO_SIMILAR = 0.6
"""Jaccard similarity of terms above which a sentence only repeats another."""
_LEXICAL_SHARE = 0.75
_TOPIC_SHARE = 0.6
"""How much a term counts that only the heading above the sentence holds."""
_RANK_PENALTY = 0.02
_PRONOUN_PENALTY = 0.85
_QUANTITY_BONUS = 0.08

_TEXT_FIELDS = ("answer", "text", "summary")
_CITATION_FIELDS = ("citations", "sources")

_TERM = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
_QUANTITY_QUESTION = re.compile(r"\b(?:how (?:long|many|much|often|old|soon|far|big|large)|when|what time)\b")
_LEANS_ON_CONTEXT = re.compile(r"(?:it|they|this|these|those|that|he|she|such|both|also)\b", re.IGNORECASE)
_STOP_WORD_LIST = """\
a about am an and any are as at be been but by can could did do does for from get had has have how i if in into
is it its many me much my of often on or our please s shall should so t tell than that the their them then there
these they this those to us was we were what when where which while who whom whose why will with would you your"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())


@dataclass(frozen=True)
class _Candidate:
    marker: int
    position: int
    text: str
    terms: frozenset[str]
    topic: frozenset[str]
    similarity: float


class Extractive(Provider):
    """Composes answers from `ModelCall.passages` for `ModelCall.question`; the messages are not read."""

    def __init__(self) -> None:
        encoding()  # half a second once, here rather than inside the first call

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Answer once.

        Raises:
            ProviderError: INVALID_REQUEST, when the reply has to be JSON of a shape that quotes cannot fill.
        """
        fields = None if call.output_schema is None else _fields(call.output_schema)
        quotes = best_sentences(call.question, call.passages)
        reply = [f"{text} [{marker}]" for marker, text in quotes] or [NO_ANSWER]
        if fields is not None:
            markers = sorted({marker for marker, _ in quotes})
            written_fields = {name: markers if name in _CITATION_FIELDS else " ".join(reply) for name in fields}
            reply = [json.dumps(written_fields, ensure_ascii=False)]
        written = 0
        finish_reason = FinishReason.STOP
        for position, sentence in enumerate(reply):
            piece = f" {sentence}" if position else sentence
            tokens = encoding().encode_ordinary(piece)
            room = call.max_output_tokens - written
            if len(tokens) > room:
                finish_reason = FinishReason.LENGTH
                piece = encoding().decode(tokens[:room], errors="ignore")
            written += min(len(tokens), room)
            if piece:
                yield TextDelta(piece)
            if finish_reason is FinishReason.LENGTH:
                break
        read = count_tokens(call.question) + sum(count_tokens(passage.text) for passage in call.passages)
        usage = Usage(input_tokens=read, output_tokens=written, cost_usd=None)
        yield Completed(finish_reason, call.model, None, usage)

    async def aclose(self) -> None:
        """Nothing to release."""


def best_sentences(question: str, passages: Sequence[Passage]) -> list[tuple[int, str]]:
    """The sentences that answer a question best, at most three, in reading order.

    A sentence's support is the share of the question's terms that it or its heading holds, weighted by inverse sentence
    frequency, mixed with its passage's similarity to the question.

    Args:
        question: In plain words.
        passages: Best first.

    Returns:
        Pairs of marker, counted from 1, and sentence; empty when nothing supports an answer.
    """
    candidates = [
        _Candidate(marker, position, statement.text, terms(statement.text), terms(statement.topic), passage.score)
        for marker, passage in enumerate(passages, start=1)
        for position, statement in enumerate(statements(passage.text))
    ]
    wanted = terms(question)
    if not wanted or not candidates:
        return []
    weights = _weights(wanted, candidates)
    quantity = bool(_QUANTITY_QUESTION.search(question.casefold()))
    scored = [(_support(candidate, weights, quantity), candidate) for candidate in candidates]
    scored.sort(key=lambda pair: (-pair[0], pair[1].marker, pair[1].position))
    best = scored[0][0]
    if best < _THRESHOLD:
        return []
    chosen: list[_Candidate] = []
    for support, candidate in scored:
        if len(chosen) == _MOST_SENTENCES or support < max(_THRESHOLD, _NEAR_BEST * best):
            break
        adds = candidate.terms & wanted and all(
            _similarity(candidate.terms, other.terms) < _TOO_SIMILAR for other in chosen
        )
        if adds or not chosen:
            chosen.append(candidate)
    chosen.sort(key=lambda candidate: (candidate.marker, candidate.position))
    return [(candidate.marker, candidate.text) for candidate in chosen]


def terms(text: str) -> frozenset[str]:
    """The stems of a text's words, without stop words."""
    words = (word for word in _TERM.findall(text.casefold().replace("’", "'")) if word not in _STOP_WORDS)
    return frozenset(stem(word) for word in words)


def stem(word: str) -> str:
    """A rough stem, the same for `cancel`, `cancelled` and `cancellation`; it need not be a word."""
    if not word.isascii() or not word.isalpha() or len(word) < 4:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix, shortest in (("ation", 8), ("ment", 7), ("ing", 6), ("ed", 5)):
        if word.endswith(suffix) and len(word) >= shortest:
            word = word[: -len(suffix)]
            break
    word = word.removesuffix("e")
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


def _fields(schema: dict[str, Any]) -> list[str]:
    """The properties of an output schema that quotes can fill: texts and lists of markers.

    Raises:
        ProviderError: INVALID_REQUEST, when there is no text property or another property is required.
    """
    properties = schema.get("properties")
    properties = properties if schema.get("type") == "object" and isinstance(properties, dict) else {}
    texts = [name for name in _TEXT_FIELDS if _has_type(properties.get(name), "string")]
    lists = [
        name
        for name in _CITATION_FIELDS
        if _has_type(properties.get(name), "array") and _has_type(properties[name].get("items"), "integer")
    ]
    missing = sorted(set(schema.get("required", ())) - {*texts, *lists})
    if not texts or missing:
        names = f" (required: {', '.join(map(repr, missing))})" if missing else ""
        raise ProviderError(
            "The extractive provider cannot write JSON for this agent's output schema"
            f"{names}: it fills only an object with a string property 'answer', 'text' or 'summary' and integer arrays "
            "'citations' or 'sources'. Use a deployment with a language model.",
            outcome=Outcome.INVALID_REQUEST,
        )
    return texts + lists


def _has_type(schema: Any, name: str) -> bool:
    return isinstance(schema, dict) and schema.get("type") == name


def _weights(wanted: Iterable[str], candidates: Sequence[_Candidate]) -> dict[str, float]:
    """Smoothed inverse sentence frequency of each term; one that occurs nowhere weighs like one that occurs once."""
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    return {term: 1 + math.log((len(candidates) + 1) / (max(counts[term], 1) + 1)) for term in sorted(wanted)}


def _support(candidate: _Candidate, weights: dict[str, float], quantity: bool) -> float:
    covered = sum(
        weight * (1.0 if term in candidate.terms else _TOPIC_SHARE if term in candidate.topic else 0.0)
        for term, weight in weights.items()
    )
    if covered == 0:
        return 0.0
    support = _LEXICAL_SHARE * covered / sum(weights.values())
    support += (1 - _LEXICAL_SHARE) * min(1.0, max(0.0, candidate.similarity))
    if quantity and any(character.isdigit() for character in candidate.text):
        support += _QUANTITY_BONUS
    if _LEANS_ON_CONTEXT.match(candidate.text):
        support *= _PRONOUN_PENALTY
    return support * (1 - _RANK_PENALTY * min(candidate.marker - 1, 10))


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    union = len(one | other)
    return len(one & other) / union if union else 1.0
