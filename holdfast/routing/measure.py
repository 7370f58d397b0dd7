"""How well calibrated scores match labels: accuracy, AUC, expected calibration error, confusion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 10


@dataclass(frozen=True)
class Measured:
    """Results on one labelled set."""

    questions: int
    accuracy: float
    auc: float
    """Chance that a complex question scores above a simple one (Mann-Whitney)."""
    calibration_error: float
    """Expected calibration error over ten bins of equal width (Guo and others, 2017)."""
    simple_as_simple: int
    simple_as_complex: int
    complex_as_simple: int
    complex_as_complex: int


def measure(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> Measured:
    """Compare scores with labels at the threshold 0.5.

    Args:
        scores: `(n,)`, probabilities.
        labels: `(n,)`, true for complex.
    """
    called = scores >= 0.5
    positive, negative = scores[labels], scores[~labels]
    above = (positive[:, None] > negative[None, :]).mean() + (positive[:, None] == negative[None, :]).mean() / 2
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    error = sum(
        abs(scores[bins == number].mean() - labels[bins == number].mean()) * (bins == number).mean()
        for number in np.unique(bins)
    )
    return Measured(
        questions=len(scores),
        accuracy=float((called == labels).mean()),
        auc=float(above),
        calibration_error=float(error),
        simple_as_simple=int((~called & ~labels).sum()),
        simple_as_complex=int((called & ~labels).sum()),
        complex_as_simple=int((~called & labels).sum()),
        complex_as_complex=int((called & labels).sum()),
    )
