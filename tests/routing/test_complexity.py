"""The stored classifier reaches what docs/routing.md says, on questions it was not trained on."""

import asyncio
import json
import re
from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import ConfigurationError
from holdfast.knowledge import MiniLM
from holdfast.routing import ComplexityClassifier
from holdfast.routing import complexity as module
from holdfast.routing.features import FEATURES, features
from holdfast.routing.measure import Measured, measure
from tests.routing.conftest import DATA, Stored, rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "routing.md"


def scores(stored: Stored) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The classifier's scores of a stored set."""
    classifier = ComplexityClassifier.load()
    pairs = zip(stored.rows, stored.vectors, strict=True)
    return np.array([classifier.classify(row["text"], vector).score for row, vector in pairs])


def labels(stored: Stored) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """True for complex."""
    return np.array([row["label"] == "complex" for row in stored.rows])


@pytest.fixture(scope="module")
def measured(complexity_test: Stored) -> Measured:
    """The results on the test part."""
    return measure(scores(complexity_test), labels(complexity_test))


def test_the_stored_weights_reach_what_is_stored_beside_them(measured: Measured) -> None:
    stored = json.loads((DATA / "complexity.weights.json").read_text(encoding="utf-8"))["test"]
    assert measured.questions == stored["questions"]
    # Half-precision embeddings may move a question that lies on the border.
    assert measured.accuracy == pytest.approx(stored["accuracy"], abs=0.005)
    assert measured.auc == pytest.approx(stored["auc"], abs=0.002)
    assert measured.calibration_error == pytest.approx(stored["calibration_error"], abs=0.01)


def test_the_document_tells_the_measured_numbers(measured: Measured) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    row = re.search(r"^\| complexity, (\d+) questions \| ([\d.]+) % \| ([\d.]+) \| ([\d.]+) \|", text, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == measured.questions
    assert float(row[2]) == pytest.approx(measured.accuracy * 100, abs=0.5)
    assert float(row[3]) == pytest.approx(measured.auc, abs=0.003)
    assert float(row[4]) == pytest.approx(measured.calibration_error, abs=0.01)


def test_the_bands_mean_what_they_say(complexity_test: Stored) -> None:
    classifier = ComplexityClassifier.load()
    levels = [
        classifier.classify(row["text"], v).level
        for row, v in zip(complexity_test.rows, complexity_test.vectors, strict=True)
    ]
    truth = labels(complexity_test)
    called = np.array(levels)
    assert truth[called == "simple"].mean() < 0.06
    assert truth[called == "complex"].mean() > 0.94
    assert (called == "medium").mean() < 0.1


def test_no_template_is_in_two_parts() -> None:
    parts: dict[str, set[str]] = {}
    for row in rows("complexity"):
        parts.setdefault(row["template"], set()).add(row["split"])
    assert len(rows("complexity")) >= 600
    assert all(len(of_one) == 1 for of_one in parts.values())
    assert len({row["text"] for row in rows("complexity")}) == len(rows("complexity"))


def test_length_alone_makes_nothing_complex(complexity_test: Stored) -> None:
    found = scores(complexity_test)
    long_and_simple = [
        score
        for row, score in zip(complexity_test.rows, found, strict=True)
        if row["label"] == "simple" and len(row["text"]) > 120
    ]
    short_and_complex = [
        score
        for row, score in zip(complexity_test.rows, found, strict=True)
        if row["label"] == "complex" and len(row["text"]) < 50
    ]
    assert len(long_and_simple) >= 5
    assert len(short_and_complex) >= 5
    assert np.median(long_and_simple) < 0.35
    assert np.median(short_and_complex) > 0.65


def test_a_long_document_costs_no_more_than_its_ends() -> None:
    middle = "compare 3, then prove; " * 10_000
    ends = features(f"Why is it late? {middle}")
    assert (ends[1:] == features(f"Why is it late? {middle}{middle}")[1:]).all()
    assert ends[0] < features(f"Why is it late? {middle}{middle}")[0], "only the length is of the whole"
    assert features("").shape == (len(FEATURES),)


def test_weights_of_other_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEATURES", (*FEATURES, "mood"))
    with pytest.raises(ConfigurationError, match=r"complexity\.weights\.json: was trained on other features"):
        ComplexityClassifier.load()


def test_missing_weights_are_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WEIGHTS", "data/routing/absent.json")
    with pytest.raises(ConfigurationError, match=r"absent\.json: cannot be read.*Install Holdfast again"):
        ComplexityClassifier.load()


def test_the_real_model_gives_the_embeddings_that_are_stored(complexity_test: Stored) -> None:
    texts = [row["text"] for row in complexity_test.rows[::8]]

    async def embed() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        embedder = MiniLM()
        try:
            return np.asarray(await embedder.embed(texts), np.float32)
        finally:
            await embedder.aclose()

    fresh = asyncio.run(embed())
    assert np.abs(fresh - complexity_test.vectors[::8]).max() < 0.002
    classifier = ComplexityClassifier.load()
    for text, vector, stored in zip(texts, fresh, complexity_test.vectors[::8], strict=True):
        assert classifier.classify(text, vector).score == pytest.approx(
            classifier.classify(text, stored).score, abs=0.02
        )


def test_measuring_is_right_on_a_case_worked_by_hand() -> None:
    found = measure(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True]))
    assert (found.accuracy, found.auc) == (0.5, 0.75)
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)
    assert (found.simple_as_simple, found.simple_as_complex) == (1, 1)
    assert (found.complex_as_simple, found.complex_as_complex) == (1, 1)
    assert measure(np.array([0.5, 0.5]), np.array([False, True])).auc == 0.5, "a tie is half a win"
