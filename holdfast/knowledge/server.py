"""Passages on a Qdrant server, shared by many processes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from holdfast.contracts import Passage
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.knowledge.store import DENSE, INDEXED_FIELDS, Point, Vectors, passages_of, payload_of, point_id

_POINTS_PER_REQUEST = 256
"""About 1 MB of JSON; the server refuses bodies above 32 MB by default."""

_CONFLICT = 409


class ServerStore:
    """A `KnowledgeStore` in one collection of a Qdrant server. Make one with `ServerStore.open`.

    All tenants share the Qdrant collection, as Qdrant advises for many small tenants (its guide "Multitenancy"): the
    tenant is an indexed payload field, every request filters by it, and graphs are built per tenant.

    Args:
        client: Connected client; closed by `aclose`.
        address: How messages name the server; without credentials.
        name: The Qdrant collection.
        dimensions: Length of the vectors.
    """

    def __init__(
        self, client: AsyncQdrantClient, address: str, *, name: str = "holdfast_knowledge", dimensions: int = 384
    ) -> None:
        self._client = client
        self._address = address
        self._name = name
        self._dimensions = dimensions

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        timeout: timedelta = timedelta(seconds=10),
        name: str = "holdfast_knowledge",
        dimensions: int = 384,
    ) -> "ServerStore":
        """Connect, and create the Qdrant collection and its indexes when they are missing.

        Args:
            url: The server, e.g. `http://127.0.0.1:6333`.
            api_key: Sent with every request.
            timeout: Bound of one request.
            name: The Qdrant collection.
            dimensions: Length of the vectors.

        Raises:
            Unavailable: The server does not answer, or refuses.
            ConfigurationError: The collection exists for vectors of another shape.
        """
        # The client's own version check connects inside the constructor and only warns when that fails.
        client = AsyncQdrantClient(
            url=url, api_key=api_key, timeout=max(1, round(timeout.total_seconds())), check_compatibility=False
        )
        store = cls(client, _without_credentials(url), name=name, dimensions=dimensions)
        try:
            await store.prepare()
        except BaseException:
            await store.aclose()
            raise
        return store

    async def prepare(self) -> None:
        """Create the Qdrant collection and its indexes when they are missing.

        Raises:
            Unavailable: The server does not answer, or refuses.
            ConfigurationError: The collection exists for vectors of another shape.
        """
        async with self._asking():
            if not await self._client.collection_exists(self._name):
                await self._create()
            info = await self._client.get_collection(self._name)
            for field in INDEXED_FIELDS:
                schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=field == "tenant")
                await self._client.create_payload_index(self._name, field, schema, wait=True)
        vectors = info.config.params.vectors
        dense = vectors.get(DENSE) if isinstance(vectors, dict) else None
        if dense is None or dense.size != self._dimensions or dense.distance != models.Distance.COSINE:
            raise ConfigurationError(
                f"Qdrant collection {self._name!r} at {self._address} does not hold cosine vectors named {DENSE!r} of "
                f"{self._dimensions} dimensions. Delete it and ingest again, or use another Qdrant server."
            )

    async def _create(self) -> None:
        try:
            await self._client.create_collection(
                self._name,
                vectors_config={DENSE: models.VectorParams(size=self._dimensions, distance=models.Distance.COSINE)},
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            )
        except UnexpectedResponse as error:
            # Another process starting at the same time created it between the question and the request.
            if error.status_code != _CONFLICT:
                raise

    async def replace(self, tenant: str, collection: str, source: str, points: Sequence[Point]) -> None:
        """See `KnowledgeStore.replace`."""
        ids = [str(point_id(tenant, collection, source, point.chunk)) for point in points]
        structs = [
            models.PointStruct(
                id=identifier,
                vector={DENSE: point.vector.tolist()},
                payload=payload_of(tenant, collection, source, point.chunk),
            )
            for identifier, point in zip(ids, points, strict=True)
        ]
        stale = _within(tenant=tenant, collection=collection, source=source)
        if ids:
            stale.must_not = [models.HasIdCondition(has_id=list(ids))]
        async with self._asking():
            for first in range(0, len(structs), _POINTS_PER_REQUEST):
                await self._client.upsert(self._name, structs[first : first + _POINTS_PER_REQUEST], wait=True)
            await self._client.delete(self._name, models.FilterSelector(filter=stale), wait=True)

    async def delete_source(self, tenant: str, collection: str, source: str) -> None:
        """See `KnowledgeStore.delete_source`."""
        await self.replace(tenant, collection, source, ())

    async def search(self, tenant: str, collection: str, vector: Vectors, limit: int) -> list[Passage]:
        """See `KnowledgeStore.search`."""
        async with self._asking():
            found = await self._client.query_points(
                self._name,
                query=vector.tolist(),
                using=DENSE,
                query_filter=_within(tenant=tenant, collection=collection),
                limit=limit,
                with_payload=True,
            )
        return passages_of([(point.payload or {}, point.score) for point in found.points])

    async def sources(self, tenant: str, collection: str) -> dict[str, int]:
        """See `KnowledgeStore.sources`."""
        # There are never more sources than passages, so no source falls behind the limit.
        limit = max(1, await self.count(tenant, collection))
        within = _within(tenant=tenant, collection=collection)
        async with self._asking():
            facet = await self._client.facet(self._name, "source", facet_filter=within, limit=limit, exact=True)
        return dict(sorted((str(hit.value), hit.count) for hit in facet.hits))

    async def count(self, tenant: str, collection: str) -> int:
        """See `KnowledgeStore.count`."""
        within = _within(tenant=tenant, collection=collection)
        async with self._asking():
            return (await self._client.count(self._name, count_filter=within, exact=True)).count

    async def flush(self) -> None:
        """See `KnowledgeStore.flush`. The server logs each write before it answers, so there is nothing to do."""

    async def aclose(self) -> None:
        """See `KnowledgeStore.aclose`."""
        await self._client.close()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Turn the client's failures into `Unavailable`, without the bodies of request or response."""
        try:
            yield
        except UnexpectedResponse as error:
            raise Unavailable(
                f"The Qdrant server at {self._address} refused with status {error.status_code}. "
                "Check its log, `knowledge.url` and the API key."
            ) from error
        except (ApiException, OSError) as error:
            raise Unavailable(
                f"The Qdrant server at {self._address} does not answer ({type(error).__name__}). "
                "Check that it runs and that `knowledge.url` names it."
            ) from error


def _within(**fields: str) -> models.Filter:
    return models.Filter(
        must=[models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in fields.items()]
    )


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or "an unnamed host"
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
