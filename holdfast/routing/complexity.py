"""Whether a small model will do: logistic regression on the question's embedding and surface, in numpy alone.

The weights are package data, trained by `python -m holdfast.routing.train`; docs/routing.md has what they reach.
"""

import json
import math
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import ConfigurationError
from holdfast.routing.candidate import Complexity, Level
from holdfast.routing.features import FEATURES, features

WEIGHTS = "data/routing/complexity.weights.json"
"""In the package."""

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class ComplexityClassifier:
    """The trained classifier; thread-safe.

    Args:
        weights: `(384 + 17,)` float32: of the embedding, then of the features, their scaling folded in.
        intercept: Added to the weighted sum.
        slope: Platt's scaling of that sum (Platt, 1999), fitted on data that trained nothing else.
        offset: The same scaling's offset.
        simple_below: Scores under it are simple.
        complex_from: Scores from it on are complex; between the two is medium.
    """

    weights: Vector
    intercept: float
    slope: float
    offset: float
    simple_below: float
    complex_from: float

    def classify(self, text: str, embedding: Vector) -> Complexity:
        """Judge a question.

        Args:
            text: The sanitized question.
            embedding: `(384,)` float32, unit length: all-MiniLM-L6-v2 of the same text.
        """
        dimensions = len(self.weights) - len(FEATURES)
        total = float(self.weights[:dimensions] @ embedding) + float(self.weights[dimensions:] @ features(text))
        score = _sigmoid(self.slope * (total + self.intercept) + self.offset)
        return Complexity(score, self._level(score))

    @classmethod
    def load(cls) -> "ComplexityClassifier":
        """The classifier whose weights the package carries.

        Raises:
            ConfigurationError: The file is missing or was made for other features.
        """
        remedy = "Install Holdfast again, or train with `python -m holdfast.routing.train`."
        try:
            stored = json.loads(files("holdfast").joinpath(WEIGHTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"holdfast/{WEIGHTS}: cannot be read: {type(error).__name__}. {remedy}") from None
        if tuple(stored["features"]) != FEATURES:
            raise ConfigurationError(f"holdfast/{WEIGHTS}: was trained on other features. {remedy}")
        return cls(
            weights=np.array(stored["weights"], np.float32),
            intercept=stored["intercept"],
            slope=stored["slope"],
            offset=stored["offset"],
            simple_below=stored["simple_below"],
            complex_from=stored["complex_from"],
        )

    def _level(self, score: float) -> Level:
        if score < self.simple_below:
            return "simple"
        return "complex" if score >= self.complex_from else "medium"


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
