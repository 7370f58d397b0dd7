"""Recognises questions that a deterministic handler answers better, sooner and for nothing.

An intent is a few example sentences. A question matches when it is near enough to two of them, and clearly nearer than
to any other intent, to the intent's own counter-examples, and to a background of everyday questions.
"""

import difflib
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from holdfast.contracts import Contract
from holdfast.contracts.plan import Name
from holdfast.errors import ConfigurationError
from holdfast.routing.candidate import IntentMatch

THRESHOLD = 0.6
"""Least mean cosine to the two nearest examples; chosen on written data, see docs/routing.md."""

MARGIN = 0.05
"""And how far above everything else."""

Vectors = NDArray[np.float32]


class Intent(Contract):
    """One kind of question, and who answers it."""

    name: Name
    examples: tuple[str, ...] = Field(min_length=3)
    """Sentences as users write them, as different from each other as they come."""
    unlike: tuple[str, ...] = ()
    """Sentences with the same words that mean something else."""
    deployment: Name
    """Usually one with provider `handler`."""
    threshold: float = Field(default=THRESHOLD, gt=0, le=1)
    """Higher answers less and errs less."""


def texts_of(intents: Sequence[Intent]) -> list[str]:
    """What has to be embedded for an `IntentMatcher`, in the order it expects."""
    return [text for intent in intents for text in (*intent.examples, *intent.unlike)]


def check_intents(intents: Sequence[Intent], deployments: Collection[str], *, where: str) -> None:
    """Check intents against each other and against what exists.

    Args:
        intents: Of one agent.
        deployments: Names of all deployments.
        where: File and key for messages, e.g. `config/agents/help.toml: intents`.

    Raises:
        ConfigurationError: A name or example is there twice, or a deployment does not exist.
    """
    names: set[str] = set()
    owner: dict[str, str] = {}
    for intent in intents:
        if intent.name in names:
            raise ConfigurationError(f"{where}: {intent.name!r} is there twice; give one of them another name.")
        names.add(intent.name)
        if intent.deployment not in deployments:
            near = difflib.get_close_matches(intent.deployment, deployments, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Defined: {', '.join(sorted(deployments))}."
            raise ConfigurationError(
                f"{where}: intent {intent.name!r} names deployment {intent.deployment!r}, which models.toml does not "
                f"define. {hint}"
            )
        for number, text in enumerate((*intent.examples, *intent.unlike), start=1):
            folded = " ".join(text.casefold().split())
            if not folded:
                raise ConfigurationError(f"{where}: sentence {number} of intent {intent.name!r} is empty; remove it.")
            if folded in owner:
                raise ConfigurationError(
                    f"{where}: sentence {number} of intent {intent.name!r} is also in {owner[folded]!r}; "
                    "a sentence can stand for one intent only, once."
                )
            owner[folded] = intent.name


class IntentMatcher:
    """Compares questions with the examples of one agent's intents; immutable after construction.

    Args:
        intents: The agent's.
        vectors: `(n, 384)` float32, unit length: the embeddings of `texts_of(intents)`.
        background: `(m, 384)`, everyday questions; those as near to an example as an answerable question are left out.
    """

    def __init__(self, intents: Sequence[Intent], vectors: Vectors, background: Vectors | None = None) -> None:
        self._intents = tuple(intents)
        self._examples: list[Vectors] = []
        self._unlike: list[Vectors] = []
        row = 0
        for intent in self._intents:
            middle, end = row + len(intent.examples), row + len(intent.examples) + len(intent.unlike)
            self._examples.append(vectors[row:middle])
            self._unlike.append(vectors[middle:end])
            row = end
        if row != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {row} sentences; embed `texts_of(intents)`.")
        everyday = everyday_questions() if background is None else background
        if self._intents and len(everyday):
            nearest = (everyday @ np.vstack(self._examples).T).max(axis=1)
            everyday = everyday[nearest < min(intent.threshold for intent in self._intents)]
        self._background = everyday

    def match(self, embedding: Vectors) -> IntentMatch | None:
        """The intent of a question, or `None` when no handler should answer it.

        Args:
            embedding: `(384,)` float32, unit length: of the sanitized question.
        """
        best = self.nearest(embedding)
        if best is None:
            return None
        threshold = next(intent.threshold for intent in self._intents if intent.name == best.intent)
        return best if best.score >= threshold and best.margin >= MARGIN else None

    def nearest(self, embedding: Vectors) -> IntentMatch | None:
        """The intent that a question is nearest to, however far that is; `None` without intents."""
        if not self._intents:
            return None
        scores = [_two_nearest(examples @ embedding) for examples in self._examples]
        best = int(np.argmax(scores))
        rivals = [score for number, score in enumerate(scores) if number != best]
        rivals += [
            float((vectors @ embedding).max()) for vectors in (self._unlike[best], self._background) if len(vectors)
        ]
        intent = self._intents[best]
        return IntentMatch(
            intent=intent.name,
            deployment=intent.deployment,
            score=scores[best],
            margin=scores[best] - max(rivals, default=0.0),
        )


@cache
def everyday_questions() -> Vectors:
    """`(m, 384)` float32: embeddings of questions of all kinds, one per template of the complexity training set."""
    with files("holdfast").joinpath("data/routing/background.npz").open("rb") as stored:
        vectors = np.load(stored)["vectors"].astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _two_nearest(cosines: Vectors) -> float:
    """One example alone may be near by a chance wording; two are a pattern."""
    return float(np.sort(cosines)[-2:].mean())
