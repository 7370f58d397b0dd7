"""The model searches the tenant's documents, and no other tenant's."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ToolProblem
from holdfast.knowledge import Document, Knowledge, open_store
from holdfast.tools.knowledge import build
from tests.house import HashedWords
from tests.tools.test_function import CONTEXT

SEARCH = build("handbook", {"collection": "docs", "passages": 2, "about": "How we travel."}, "tools.handbook")


@pytest.fixture
async def knowledge(tmp_path: Path) -> AsyncIterator[Knowledge]:
    store = await open_store(tmp_path / "knowledge", "", api_key=None)
    opened = Knowledge(store, HashedWords())
    documents = [Document("trains.md", "Trains are booked early."), Document("planes.md", "Planes are for far away.")]
    await opened.ingest("acme", "docs", documents)
    await opened.ingest("other", "docs", [Document("secret.md", "Trains of another tenant.")])
    yield opened
    await store.aclose()


async def search(knowledge: Knowledge | None, query: str, **context: Any) -> str:
    arguments = SEARCH.validate(f'{{"query": "{query}"}}')
    return await SEARCH.call(arguments, replace(CONTEXT, knowledge=knowledge, **context))


async def test_it_finds_passages_of_the_tenant_with_their_sources_best_first(knowledge: Knowledge) -> None:
    found = await search(knowledge, "Trains early")
    assert found == "trains.md:\nTrains are booked early.\n\nplanes.md:\nPlanes are for far away."


async def test_it_says_that_nothing_was_found(knowledge: Knowledge) -> None:
    assert await search(knowledge, "Trains", tenant="nobody") == "No passage was found."


async def test_without_an_index_the_model_is_told() -> None:
    with pytest.raises(ToolProblem, match="cannot be searched"):
        await search(None, "Trains")


def test_it_tells_the_model_what_is_in_the_collection_and_taints_with_documents() -> None:
    assert "How we travel." in SEARCH.description
    assert "at most 2 passages" in SEARCH.description
    assert (SEARCH.origin, SEARCH.side_effects) == ("documents", False)
    with pytest.raises(ToolProblem, match="query"):
        SEARCH.validate('{"query": "", "tenant": "other"}')
