"""What a passage store is, whoever keeps the vectors. One conformance suite holds every implementation to it.

Every read and every delete is bound to a tenant and a collection; there is no operation across tenants.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from holdfast.contracts import Passage
from holdfast.knowledge.chunking import Chunk

Vectors = NDArray[np.float32]
"""`(n, d)` or `(d,)` float32, unit length along the last axis."""

DENSE = "dense"
"""Name of the dense vector. Vectors are named so that a sparse one can stand beside it for hybrid search."""

INDEXED_FIELDS = ("tenant", "collection", "source")
"""Payload fields that filters use."""

_NAMESPACE = UUID("6f0d3a52-6f2f-5f0e-9a51-3d5b0f6f9c11")


@dataclass(frozen=True)
class Point:
    """A chunk and its embedding, `(d,)` float32."""

    chunk: Chunk
    vector: Vectors


class KnowledgeStore(Protocol):
    """Keeps passages and finds the nearest ones."""

    async def replace(self, tenant: str, collection: str, source: str, points: Sequence[Point]) -> None:
        """Make `points` the only passages of a source. Repeating it changes nothing.

        New passages are written before old ones go, so a search meanwhile may see both, and never none. Two callers
        that replace the same source with different texts at the same time must be kept apart by whoever starts them.

        Raises:
            Unavailable: The store does not answer; repeat the call.
        """
        ...

    async def delete_source(self, tenant: str, collection: str, source: str) -> None:
        """Forget a source. A source that is not there is fine.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def search(self, tenant: str, collection: str, vector: Vectors, limit: int) -> list[Passage]:
        """Find the passages of one tenant's collection nearest to a vector.

        Args:
            tenant: Whose passages; no other tenant's ever come back.
            collection: Which of the tenant's collections.
            vector: `(d,)` float32.
            limit: How many passages at most.

        Returns:
            Passages by descending cosine similarity; ties by source and position.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def sources(self, tenant: str, collection: str) -> dict[str, int]:
        """Count the passages of each source, in the order of the sources' names.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def count(self, tenant: str, collection: str) -> int:
        """Count the passages of a collection.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def flush(self) -> None:
        """Return once everything written before survives a crash of this process.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def aclose(self) -> None:
        """Flush and release files and connections. Calling it twice is fine."""
        ...


def point_id(tenant: str, collection: str, source: str, chunk: Chunk) -> UUID:
    """Derive a point's id from what it is, so that writing it again overwrites it.

    The parts are joined as JSON: no choice of names lets one tenant's id collide with another's.
    """
    digest = sha256(chunk.text.encode()).hexdigest()
    return uuid5(_NAMESPACE, json.dumps([tenant, collection, source, chunk.start, digest]))


def payload_of(tenant: str, collection: str, source: str, chunk: Chunk) -> dict[str, Any]:
    """The payload a back end stores beside the vector."""
    return {
        "tenant": tenant,
        "collection": collection,
        "source": source,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
    }


def passages_of(scored: Sequence[tuple[dict[str, Any], float]]) -> list[Passage]:
    """Read passages back from payloads and scores, best first."""
    passages = [
        Passage(
            source=payload["source"],
            start=payload["start"],
            end=payload["end"],
            text=payload["text"],
            # Rounding in float32 takes the cosine of equal vectors a little above 1.
            score=max(-1.0, min(1.0, score)),
        )
        for payload, score in scored
    ]
    return sorted(passages, key=lambda passage: (-passage.score, passage.source, passage.start))
