"""What every passage store promises, run against each back end.

The server back end runs in qdrant-client's in-memory mode, which checks that both back ends speak the same API but is
not a server: set HOLDFAST_TEST_QDRANT_URL to run the suite against a real one as well.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from holdfast.contracts import Passage
from holdfast.knowledge import Chunk, EdgeStore, Embedder, KnowledgeStore, Point
from holdfast.knowledge.server import ServerStore
from holdfast.knowledge.store import point_id

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

QDRANT_URL = os.environ.get("HOLDFAST_TEST_QDRANT_URL", "")


@pytest.fixture(params=["edge", "server-in-memory", *(["server"] if QDRANT_URL else [])])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KnowledgeStore]:
    opened: KnowledgeStore
    name = f"holdfast_test_{uuid4().hex}"
    match request.param:
        case "edge":
            opened = await EdgeStore.open(tmp_path)
        case "server-in-memory":
            opened = ServerStore(AsyncQdrantClient(location=":memory:"), "memory")
            await opened.prepare()
        case _:
            opened = await ServerStore.open(QDRANT_URL, name=name)
    yield opened
    await opened.aclose()
    if request.param == "server":
        client = AsyncQdrantClient(url=QDRANT_URL)
        await client.delete_collection(name)
        await client.close()


async def points(embedder: Embedder, *texts: str) -> list[Point]:
    """One point for each text, as if they followed each other in a document."""
    made = []
    start = 0
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        made.append(Point(Chunk(text, start, start + len(text)), vector))
        start += len(text) + 1
    return made


async def texts_found(
    store: KnowledgeStore,
    embedder: Embedder,
    query: str,
    *,
    tenant: str = "acme",
    collection: str = "docs",
    limit: int = 10,
) -> list[str]:
    vector = (await embedder.embed([query]))[0]
    return [passage.text for passage in await store.search(tenant, collection, vector, limit)]


async def test_search_returns_the_nearest_passages_with_cosine_and_offsets(
    store: KnowledgeStore, embedder: Embedder
) -> None:
    stored = await points(embedder, "red apples 😀", "green pears", "blue apples")
    await store.replace("acme", "docs", "fruit.md", stored)
    query = (await embedder.embed(["red apples"]))[0]
    found = await store.search("acme", "docs", query, 2)
    assert [passage.text for passage in found] == ["red apples 😀", "blue apples"]
    first = stored[0].chunk
    assert found[0] == Passage(
        source="fruit.md", start=first.start, end=first.end, text=first.text, score=found[0].score
    )
    for passage, point in ((found[0], stored[0]), (found[1], stored[2])):
        assert passage.score == pytest.approx(float(query @ point.vector), abs=1e-5)


async def test_the_score_is_the_cosine_whatever_the_length_of_the_vectors(
    store: KnowledgeStore, embedder: Embedder
) -> None:
    (point,) = await points(embedder, "red apples")
    await store.replace("acme", "docs", "a.md", [Point(point.chunk, point.vector * 3)])
    (same,) = await store.search("acme", "docs", point.vector * 5, 1)
    assert same.score == pytest.approx(1, abs=1e-5)
    assert same.score <= 1
    (opposite,) = await store.search("acme", "docs", -point.vector, 1)
    assert opposite.score == pytest.approx(-1, abs=1e-5)


async def test_another_tenants_passages_never_come_back(store: KnowledgeStore, embedder: Embedder) -> None:
    same = await points(embedder, "the same secret text")
    for tenant in ("acme", "globex"):
        await store.replace(tenant, "docs", "plan.md", same)
    await store.replace("globex", "docs", "more.md", await points(embedder, "another secret text"))
    assert await texts_found(store, embedder, "secret text") == ["the same secret text"]
    assert await texts_found(store, embedder, "secret text", tenant="initech") == []
    assert await store.sources("acme", "docs") == {"plan.md": 1}
    assert await store.count("acme", "docs") == 1
    await store.delete_source("acme", "docs", "plan.md")
    await store.replace("acme", "docs", "more.md", ())
    assert await store.sources("globex", "docs") == {"more.md": 1, "plan.md": 1}


async def test_collections_of_one_tenant_are_apart(store: KnowledgeStore, embedder: Embedder) -> None:
    await store.replace("acme", "docs", "a.md", await points(embedder, "apples here"))
    await store.replace("acme", "wiki", "a.md", await points(embedder, "apples there"))
    assert await texts_found(store, embedder, "apples", collection="wiki") == ["apples there"]
    await store.delete_source("acme", "wiki", "a.md")
    assert await texts_found(store, embedder, "apples") == ["apples here"]


async def test_replacing_a_source_leaves_nothing_of_the_old_one(store: KnowledgeStore, embedder: Embedder) -> None:
    await store.replace("acme", "docs", "a.md", await points(embedder, "apples stay", "apples go", "apples go too"))
    await store.replace("acme", "docs", "b.md", await points(embedder, "apples elsewhere"))
    await store.replace("acme", "docs", "a.md", await points(embedder, "apples stay", "apples come"))
    assert sorted(await texts_found(store, embedder, "apples")) == ["apples come", "apples elsewhere", "apples stay"]
    assert await store.sources("acme", "docs") == {"a.md": 2, "b.md": 1}


async def test_replacing_twice_with_the_same_changes_nothing(store: KnowledgeStore, embedder: Embedder) -> None:
    same = await points(embedder, "apples", "pears", "apples")
    await store.replace("acme", "docs", "a.md", same)
    before = await texts_found(store, embedder, "apples pears")
    await store.replace("acme", "docs", "a.md", same)
    assert await texts_found(store, embedder, "apples pears") == before
    assert await store.count("acme", "docs") == 3


async def test_a_source_replaced_by_nothing_is_gone(store: KnowledgeStore, embedder: Embedder) -> None:
    await store.replace("acme", "docs", "a.md", await points(embedder, "apples"))
    await store.replace("acme", "docs", "a.md", ())
    await store.delete_source("acme", "docs", "never-there.md")
    assert await store.count("acme", "docs") == 0
    assert await store.sources("acme", "docs") == {}


async def test_sources_are_counted_completely_and_in_order(store: KnowledgeStore, embedder: Embedder) -> None:
    for number in reversed(range(30)):
        await store.replace("acme", "docs", f"{number:02}.md", await points(embedder, *["apples"] * (1 + number % 3)))
    expected = {f"{number:02}.md": 1 + number % 3 for number in range(30)}
    assert list((await store.sources("acme", "docs")).items()) == list(expected.items())
    assert await store.count("acme", "docs") == sum(expected.values())


async def test_equal_scores_come_in_the_order_of_source_and_position(store: KnowledgeStore, embedder: Embedder) -> None:
    same = await points(embedder, "apples", "apples")
    await store.replace("acme", "docs", "b.md", same)
    await store.replace("acme", "docs", "a.md", same)
    found = await store.search("acme", "docs", same[0].vector, 10)
    assert [(passage.source, passage.start) for passage in found] == [
        ("a.md", 0),
        ("a.md", 7),
        ("b.md", 0),
        ("b.md", 7),
    ]


async def test_a_source_larger_than_one_request_is_kept_whole(store: KnowledgeStore, embedder: Embedder) -> None:
    await store.replace("acme", "docs", "big.md", await points(embedder, *(f"line {n}" for n in range(700))))
    assert await store.count("acme", "docs") == 700
    assert await store.sources("acme", "docs") == {"big.md": 700}
    await store.replace("acme", "docs", "big.md", await points(embedder, "line 3"))
    assert await store.count("acme", "docs") == 1


async def test_searches_beside_writes_never_fail_and_never_miss_the_source(
    store: KnowledgeStore, embedder: Embedder
) -> None:
    await store.replace("acme", "docs", "a.md", await points(embedder, "apples 0"))

    async def write() -> None:
        for number in range(40):
            await store.replace("acme", "docs", "a.md", await points(embedder, f"apples {number}"))

    async def read() -> Sequence[int]:
        return [len(await texts_found(store, embedder, "apples")) for _ in range(40)]

    _, *counts = await asyncio.gather(write(), read(), read(), read())
    assert all(min(found) >= 1 for found in counts)
    assert await texts_found(store, embedder, "apples") == ["apples 39"]


async def test_closing_twice_is_fine(store: KnowledgeStore) -> None:
    await store.flush()
    await store.aclose()
    await store.aclose()


def test_no_choice_of_names_makes_two_tenants_share_a_point() -> None:
    piece = Chunk("text", 0, 4)
    parts = [("a", "b/c", "d"), ("a/b", "c", "d"), ("a", "b", "c/d"), ('a","b', "c", "d"), ("ab", "c", "d")]
    assert len({point_id(*names, piece) for names in parts}) == len(parts)
    assert point_id("a", "b", "c", piece) == point_id("a", "b", "c", Chunk("text", 0, 4))
    assert np.unique([str(point_id("a", "b", "c", Chunk("text", n, n + 4))) for n in range(3)]).size == 3
