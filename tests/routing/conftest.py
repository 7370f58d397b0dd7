"""The stored data sets with their stored embeddings, so that no test but one needs the model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import holdfast

DATA = Path(holdfast.__file__).parent / "data" / "routing"


@dataclass(frozen=True)
class Stored:
    """Rows of a data set and their embeddings."""

    rows: list[dict[str, Any]]
    vectors: NDArray[np.float32]


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a data set."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def vectors(name: str) -> NDArray[np.float32]:
    """Stored embeddings."""
    with (DATA / f"{name}.npz").open("rb") as file:
        return np.asarray(np.load(file)["vectors"], np.float32)


@pytest.fixture(scope="session")
def complexity_test() -> Stored:
    """The test part of the complexity data."""
    return Stored([row for row in rows("complexity") if row["split"] == "test"], vectors("complexity.test"))


@pytest.fixture(scope="session")
def intent_data() -> Stored:
    """All intent data."""
    return Stored(rows("intents"), vectors("intents"))
