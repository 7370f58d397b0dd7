"""Trains the complexity classifier: `python -m holdfast.routing.train`. Needs scikit-learn; nothing at run time does.

Fits on the `train` part, chooses the penalty by cross-validation in which a template never spans two folds, calibrates
on the `calibrate` part and measures once on the `test` part. Writes the weights, and the embeddings that the tests and
`holdfast.routing.intents` read.
"""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # ships no types
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold  # type: ignore[import-untyped]

from holdfast.knowledge import MiniLM
from holdfast.routing.complexity import WEIGHTS, ComplexityClassifier
from holdfast.routing.features import FEATURES, features
from holdfast.routing.measure import Measured, measure

DATA = Path(__file__).parents[1] / "data" / "routing"
SIMPLE_BELOW = 0.35
COMPLEX_FROM = 0.65
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
EMBEDDING_SCALE = 8.0
"""Brings a unit vector's coordinates, about 0.05 each, to the order of the scaled features."""


@dataclass(frozen=True)
class Part:
    """One part of the data set."""

    texts: list[str]
    labels: NDArray[np.bool_]
    templates: list[str]


def read(split: str, path: Path = DATA / "complexity.jsonl") -> Part:
    """The rows of one part: `train`, `calibrate` or `test`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == split]
    return Part(
        [row["text"] for row in rows],
        np.array([row["label"] == "complex" for row in rows]),
        [row["template"] for row in rows],
    )


def fit(
    train: Part, calibrate: Part, vectors: NDArray[np.float32], held: NDArray[np.float32]
) -> tuple[ComplexityClassifier, float]:
    """Fit and calibrate.

    Args:
        vectors: Embeddings of the `train` part.
        held: Embeddings of the `calibrate` part.

    Returns:
        The classifier, and the inverse penalty that cross-validation chose.
    """
    surface = np.stack([features(text) for text in train.texts])
    mean, deviation = surface.mean(axis=0), surface.std(axis=0) + 1e-6
    inputs = np.hstack([vectors * EMBEDDING_SCALE, (surface - mean) / deviation])
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(
        LogisticRegression(class_weight="balanced", max_iter=5_000),
        {"C": list(PENALTIES)},
        cv=folds,
        scoring="neg_log_loss",
    )
    search.fit(inputs, train.labels, groups=train.templates)
    coefficients = search.best_estimator_.coef_[0]
    embedding, rest = coefficients[: vectors.shape[1]] * EMBEDDING_SCALE, coefficients[vectors.shape[1] :] / deviation
    intercept = float(search.best_estimator_.intercept_[0] - rest @ mean)
    plain = ComplexityClassifier(
        np.concatenate([embedding, rest]).astype(np.float32), intercept, 1.0, 0.0, SIMPLE_BELOW, COMPLEX_FROM
    )
    scores = scored(plain, calibrate.texts, held)
    platt = LogisticRegression(C=1e6).fit(np.log(scores / (1 - scores))[:, None], calibrate.labels)
    calibrated = ComplexityClassifier(
        plain.weights,
        intercept,
        float(platt.coef_[0, 0]),
        float(platt.intercept_[0]),
        SIMPLE_BELOW,
        COMPLEX_FROM,
    )
    return calibrated, float(search.best_params_["C"])


def scored(classifier: ComplexityClassifier, texts: list[str], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The classifier's scores."""
    return np.array([classifier.classify(text, vector).score for text, vector in zip(texts, vectors, strict=True)])


def write(classifier: ComplexityClassifier, measured: Measured) -> None:
    """Store the weights with what they reach."""
    stored = {
        "trained_by": "python -m holdfast.routing.train",
        "features": FEATURES,
        "simple_below": classifier.simple_below,
        "complex_from": classifier.complex_from,
        "slope": round(classifier.slope, 6),
        "offset": round(classifier.offset, 6),
        "intercept": round(classifier.intercept, 6),
        "test": {name: round(value, 4) for name, value in asdict(measured).items()},
        "weights": [round(float(value), 5) for value in classifier.weights],
    }
    path = DATA.parents[1] / WEIGHTS
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def keep(name: str, vectors: NDArray[np.float32]) -> None:
    """Store embeddings in half precision: tests and the matcher need no model then."""
    np.savez_compressed(DATA / f"{name}.npz", vectors=vectors.astype(np.float16))


async def embedded(*lists: list[str]) -> list[NDArray[np.float32]]:
    """Embeddings of each list of texts."""
    embedder = MiniLM()
    try:
        return [await embedder.embed(texts, bulk=True) for texts in lists]
    finally:
        await embedder.aclose()


def main() -> None:
    """Train, measure, store, report."""
    train, calibrate, test = read("train"), read("calibrate"), read("test")
    intents = [json.loads(line)["text"] for line in (DATA / "intents.jsonl").read_text(encoding="utf-8").splitlines()]
    vectors, held, unseen, intent_vectors = asyncio.run(embedded(train.texts, calibrate.texts, test.texts, intents))
    classifier, penalty = fit(train, calibrate, vectors, held)
    measured = measure(scored(classifier, test.texts, unseen), test.labels)
    write(classifier, measured)
    keep("complexity.test", unseen)
    keep("intents", intent_vectors)
    first_of_template = [train.templates.index(template) for template in dict.fromkeys(train.templates)]
    keep("background", vectors[first_of_template])
    report = {"C": penalty, "train": len(train.texts), "calibrate": len(calibrate.texts), **asdict(measured)}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
