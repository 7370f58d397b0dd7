"""A deterministic embedder that stands in for the model: no weights, no seconds of loading."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pytest

from holdfast.knowledge import DIMENSIONS, Embedder, Vectors


class HashingEmbedder:
    """Bag of words, each word hashed to one dimension with a sign: texts that share words are alike."""

    async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Vectors:
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = sha256(word.strip(".,?!#").encode()).digest()
                vectors[row, int.from_bytes(digest[:4]) % DIMENSIONS] += 1 if digest[4] % 2 else -1
            if not vectors[row].any():
                vectors[row, 0] = 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    async def aclose(self) -> None:
        pass


@pytest.fixture
def embedder() -> Embedder:
    return HashingEmbedder()
