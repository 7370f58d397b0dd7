"""Ingest documents and retrieve passages: chunking, embedding and store put together."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.contracts import Passage, Unreadable
from holdfast.knowledge.chunking import Chunk, chunk
from holdfast.knowledge.documents import Document
from holdfast.knowledge.embedder import Embedder
from holdfast.knowledge.store import KnowledgeStore, Point

_CHUNKS_PER_GROUP = 64
"""Small documents are embedded together in groups of about this many chunks, so that forward passes are full."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion did."""

    indexed: dict[str, int]
    """Passages of each source."""
    unreadable: tuple[Unreadable, ...] = ()
    """Documents without passages, with reason and remedy."""


class Knowledge:
    """The knowledge of all tenants.

    Args:
        store: Keeps the passages.
        embedder: Embeds passages and queries; the same model for both, or similarities mean nothing.
    """

    def __init__(self, store: KnowledgeStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    async def ingest(self, tenant: str, collection: str, documents: Sequence[Document]) -> IngestReport:
        """Index documents; each replaces what its source held before. Durable when it returns, safe to repeat.

        Args:
            tenant: Who may retrieve them.
            collection: Which of the tenant's collections.
            documents: Texts by source. Of two with the same source the later one stays.

        Returns:
            Passages by source, and the documents that have no text to index, whose old passages are gone too.

        Raises:
            Unavailable: The store or the embedder does not answer; repeat the whole ingestion.
        """
        latest = {document.source: document for document in documents}
        chunked = await asyncio.to_thread(lambda: [(d.source, chunk(d.text)) for d in latest.values()])
        for group in _groups(chunked):
            vectors = await self._embedder.embed([c.text for _, chunks in group for c in chunks], bulk=True)
            row = 0
            for source, chunks in group:
                points = [Point(c, vectors[row + offset]) for offset, c in enumerate(chunks)]
                row += len(chunks)
                await self._store.replace(tenant, collection, source, points)
        await self._store.flush()
        return IngestReport(
            indexed={source: len(chunks) for source, chunks in chunked if chunks},
            unreadable=tuple(
                Unreadable(source=source, reason=f"{source!r} is empty. Write something in it, or remove it.")
                for source, chunks in chunked
                if not chunks
            ),
        )

    async def retrieve(self, tenant: str, collection: str, query: str, limit: int) -> list[Passage]:
        """Find the passages nearest to a query.

        Args:
            tenant: Whose knowledge.
            collection: Which of the tenant's collections.
            query: The question, sanitized. One of only whitespace finds nothing.
            limit: How many passages at most.

        Returns:
            Passages of different text, best first. Of passages with equal text the best-ranked one.

        Raises:
            Unavailable: The store or the embedder does not answer.
        """
        if limit < 1 or not query.strip():
            return []
        vector = (await self._embedder.embed([query]))[0]
        fetch = limit
        while True:
            found = await self._store.search(tenant, collection, vector, fetch)
            different: dict[str, Passage] = {}
            for passage in found:
                different.setdefault(passage.text, passage)
            if len(different) >= limit or len(found) < fetch:
                return list(different.values())[:limit]
            # Copies of the same text took places; look further down.
            fetch *= 2


def _groups(chunked: list[tuple[str, list[Chunk]]]) -> Iterator[list[tuple[str, list[Chunk]]]]:
    group: list[tuple[str, list[Chunk]]] = []
    for source, chunks in chunked:
        group.append((source, chunks))
        if sum(len(some) for _, some in group) >= _CHUNKS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group
