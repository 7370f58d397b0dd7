"""Passages on local disk, in Qdrant's own engine inside this process (qdrant-edge-py).

One process at a time may hold a directory; a file lock of our own says so in words. Search is exact: at 20,000
passages it takes under a millisecond, while building a graph index blocks every search for seconds (5.6 s measured on
two cores) and makes it no faster. An installation that outgrows exact search moves to a Qdrant server.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar
from uuid import UUID

import qdrant_edge as edge

from holdfast.contracts import Passage
from holdfast.errors import Unavailable
from holdfast.knowledge.store import DENSE, INDEXED_FIELDS, Point, Vectors, passages_of, payload_of, point_id

_Result = TypeVar("_Result")

_READERS = 2
_NO_GRAPH_INDEX = 1_000_000_000
"""Kilobytes of vectors below which a segment is searched exactly; out of reach."""


class EdgeStore:
    """A `KnowledgeStore` in a directory. Make one with `EdgeStore.open`.

    The engine's calls block, so they run in threads: writes in one, in order, and reads in two others.
    """

    def __init__(self, directory: Path, shard: edge.EdgeShard, lock: IO[str]) -> None:
        self._directory = directory
        self._shard = shard
        self._lock = lock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="knowledge-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="knowledge-read")
        self._closed = False

    @classmethod
    async def open(cls, directory: Path, *, dimensions: int = 384) -> "EdgeStore":
        """Open or create the index in a directory, and clear out what earlier runs deleted.

        Args:
            directory: Created if missing.
            dimensions: Length of the vectors.

        Raises:
            Unavailable: Another process holds the directory, it is not writable, or its index cannot be read.
        """
        return await asyncio.to_thread(cls._open, directory, dimensions)

    @classmethod
    def _open(cls, directory: Path, dimensions: int) -> "EdgeStore":
        lock = _acquire(directory)
        try:
            return cls(directory, _open_shard(directory / "index", dimensions), lock)
        except Exception as error:  # the engine raises bare Exception
            lock.close()
            raise Unavailable(
                f"The knowledge index in '{directory}' cannot be opened: {error}. "
                "If it was made for another embedding model or is damaged, move the directory away and ingest again."
            ) from error

    async def replace(self, tenant: str, collection: str, source: str, points: Sequence[Point]) -> None:
        """See `KnowledgeStore.replace`. Here the whole replacement is one job of the one writer."""

        def write() -> None:
            ids = [point_id(tenant, collection, source, point.chunk) for point in points]
            if points:
                self._shard.update(
                    edge.UpdateOperation.upsert_points(
                        [
                            edge.Point(
                                identifier,
                                {DENSE: point.vector.tolist()},
                                payload_of(tenant, collection, source, point.chunk),
                            )
                            for identifier, point in zip(ids, points, strict=True)
                        ]
                    )
                )
            stale = _within(keep=ids, tenant=tenant, collection=collection, source=source)
            self._shard.update(edge.UpdateOperation.delete_points_by_filter(stale))

        await self._run(self._writer, write)

    async def delete_source(self, tenant: str, collection: str, source: str) -> None:
        """See `KnowledgeStore.delete_source`."""
        await self.replace(tenant, collection, source, ())

    async def search(self, tenant: str, collection: str, vector: Vectors, limit: int) -> list[Passage]:
        """See `KnowledgeStore.search`."""
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=DENSE),
            filter=_within(tenant=tenant, collection=collection),
            with_payload=True,
        )
        found = await self._run(self._readers, lambda: self._shard.query(request))
        return passages_of([(point.payload or {}, point.score) for point in found])

    async def sources(self, tenant: str, collection: str) -> dict[str, int]:
        """See `KnowledgeStore.sources`."""
        within = _within(tenant=tenant, collection=collection)

        def read() -> dict[str, int]:
            # There are never more sources than passages, so no source falls behind the limit.
            limit = self._shard.count(edge.CountRequest(filter=within))
            request = edge.FacetRequest("source", limit=max(1, limit), exact=True, filter=within)
            return {str(hit.value): hit.count for hit in self._shard.facet(request).hits}

        return dict(sorted((await self._run(self._readers, read)).items()))

    async def count(self, tenant: str, collection: str) -> int:
        """See `KnowledgeStore.count`."""
        within = _within(tenant=tenant, collection=collection)
        return await self._run(self._readers, lambda: self._shard.count(edge.CountRequest(filter=within)))

    async def flush(self) -> None:
        """See `KnowledgeStore.flush`."""
        await self._run(self._writer, self._shard.flush)

    async def aclose(self) -> None:
        """See `KnowledgeStore.aclose`."""
        if self._closed:
            return
        self._closed = True

        def close() -> None:
            # Both pools drain first: the engine's close under a running call is an error in that call.
            self._readers.shutdown()
            self._writer.shutdown()
            self._shard.flush()
            self._shard.close()
            self._lock.close()

        await asyncio.to_thread(close)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
        if self._closed:
            raise Unavailable(f"The knowledge index in '{self._directory}' is closed. Open it again.")
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except Exception as error:  # the engine raises bare Exception
            raise Unavailable(
                f"The knowledge index in '{self._directory}' failed: {error}. Check the disk's free space and rights."
            ) from error


def _open_shard(path: Path, dimensions: int) -> edge.EdgeShard:
    config = edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(dimensions, edge.Distance.Cosine)},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NO_GRAPH_INDEX),
    )
    # A crash in the middle of creation leaves no segments; creating again is then right.
    if (path / "segments").is_dir() and any((path / "segments").iterdir()):
        shard = edge.EdgeShard.load(str(path), config)
        shard.optimize()
    else:
        path.mkdir(parents=True, exist_ok=True)
        shard = edge.EdgeShard.create(str(path), config)
    for field in INDEXED_FIELDS:
        shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword))
    return shard


def _acquire(directory: Path) -> IO[str]:
    """Lock the directory for this process, until the returned file is closed or the process ends in any way."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise Unavailable(
            f"The knowledge directory '{directory}' cannot be written ({error.strerror}). "
            "Give this user write access, or set another `knowledge.path`."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Unavailable(
            f"The knowledge directory '{directory}' is in use by another process (id {holder}), "
            "and only one may hold it. Stop that process, send the work to it, or set `knowledge.url` to a Qdrant "
            "server, which many can share."
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _within(*, keep: Iterable[UUID] = (), **fields: str) -> edge.Filter:
    """Points whose payload has all these values, except those with an id in `keep`."""
    return edge.Filter(
        must=[edge.FieldCondition(key, edge.MatchValue(value)) for key, value in fields.items()],
        must_not=[edge.HasIdCondition(set(keep))],
    )
