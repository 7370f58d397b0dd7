from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from holdfast.knowledge import Document, EdgeStore, Embedder, Knowledge, KnowledgeStore, MiniLM, Vectors, open_store

GUIDE = """# Passwords

To reset your password, open Settings and choose "Forgot password". A link arrives by e-mail 😀.

# Invoices

Invoices are sent on the first day of each month and can be paid by card or bank transfer.
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KnowledgeStore]:
    opened = await open_store(tmp_path / "knowledge")
    yield opened
    await opened.aclose()


@pytest.fixture
def knowledge(store: KnowledgeStore, embedder: Embedder) -> Knowledge:
    return Knowledge(store, embedder)


async def test_an_ingested_document_is_found_and_its_offsets_quote_it(knowledge: Knowledge) -> None:
    report = await knowledge.ingest("acme", "docs", [Document("guide.md", GUIDE * 4)])
    found = await knowledge.retrieve("acme", "docs", "reset password", 3)
    assert report.indexed["guide.md"] > 1
    assert "reset your password" in found[0].text
    for passage in found:
        assert (GUIDE * 4)[passage.start : passage.end] == passage.text
    assert [passage.score for passage in found] == sorted((passage.score for passage in found), reverse=True)


async def test_each_passage_is_kept_with_its_own_vector(knowledge: Knowledge) -> None:
    texts = {"a.md": "red apples", "b.md": "green pears", "c.md": "yellow plums"}
    await knowledge.ingest("acme", "docs", [Document(source, text) for source, text in texts.items()])
    for source, text in texts.items():
        (best,) = await knowledge.retrieve("acme", "docs", text, 1)
        assert best.source == source
        assert best.score == pytest.approx(1, abs=1e-5)


async def test_a_document_ingested_again_replaces_itself(knowledge: Knowledge, store: KnowledgeStore) -> None:
    await knowledge.ingest("acme", "docs", [Document("a.md", "old words"), Document("b.md", "other words")])
    report = await knowledge.ingest("acme", "docs", [Document("a.md", "new words")])
    assert report.indexed == {"a.md": 1}
    assert {passage.text for passage in await knowledge.retrieve("acme", "docs", "words", 9)} == {
        "new words",
        "other words",
    }


async def test_a_document_that_became_empty_is_reported_and_its_passages_go(
    knowledge: Knowledge, store: KnowledgeStore
) -> None:
    await knowledge.ingest("acme", "docs", [Document("a.md", "words")])
    report = await knowledge.ingest("acme", "docs", [Document("a.md", " \n"), Document("b.md", "words")])
    assert report.indexed == {"b.md": 1}
    assert [(entry.source, "empty" in entry.reason) for entry in report.unreadable] == [("a.md", True)]
    assert await store.sources("acme", "docs") == {"b.md": 1}


async def test_copies_of_a_text_take_one_place_and_the_others_go_to_different_texts(knowledge: Knowledge) -> None:
    copies = [Document(f"copy-{n}.md", "red apples") for n in range(20)]
    others = [Document("z1.md", "red pears"), Document("z2.md", "red plums")]
    await knowledge.ingest("acme", "docs", [*copies, *others])
    found = await knowledge.retrieve("acme", "docs", "red apples", 3)
    assert found[0].source == "copy-0.md"
    assert sorted(passage.text for passage in found) == ["red apples", "red pears", "red plums"]


async def test_fewer_passages_than_asked_for_are_all_returned(knowledge: Knowledge) -> None:
    await knowledge.ingest("acme", "docs", [Document("a.md", "red apples"), Document("b.md", "red pears")])
    assert len(await knowledge.retrieve("acme", "docs", "red", 2)) == 2
    assert len(await knowledge.retrieve("acme", "docs", "red", 50)) == 2
    assert await knowledge.retrieve("acme", "empty", "red", 50) == []


async def test_a_blank_query_or_no_place_finds_nothing(knowledge: Knowledge) -> None:
    await knowledge.ingest("acme", "docs", [Document("a.md", "red apples")])
    assert await knowledge.retrieve("acme", "docs", " \n", 5) == []
    assert await knowledge.retrieve("acme", "docs", "red", 0) == []


async def test_another_tenants_documents_are_not_retrieved(knowledge: Knowledge) -> None:
    await knowledge.ingest("globex", "docs", [Document("a.md", "red apples")])
    assert await knowledge.retrieve("acme", "docs", "red apples", 5) == []


async def test_ingestion_gives_way_to_queries_and_fills_its_passes(store: KnowledgeStore, embedder: Embedder) -> None:
    calls: list[tuple[int, bool]] = []

    class Recording:
        async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Vectors:
            calls.append((len(texts), bulk))
            return await embedder.embed(texts)

        async def aclose(self) -> None:
            pass

    knowledge = Knowledge(store, Recording())
    await knowledge.ingest("acme", "docs", [Document(f"{n}.md", f"apples {n}") for n in range(150)])
    await knowledge.retrieve("acme", "docs", "apples", 1)
    assert calls == [(64, True), (64, True), (22, True), (1, False)]
    assert await store.count("acme", "docs") == 150


async def test_the_packaged_model_finds_an_answer_that_shares_no_word_with_the_question(tmp_path: Path) -> None:
    model = MiniLM()
    store = await EdgeStore.open(tmp_path)
    knowledge = Knowledge(store, model)
    sections = [Document(f"{n}.md", f"# {part}") for n, part in enumerate(GUIDE.split("# ")[1:])]
    await knowledge.ingest("acme", "docs", sections)
    found = await knowledge.retrieve("acme", "docs", "I cannot log in to my account", 1)
    assert found[0].source == "0.md"
    await store.aclose()
    await model.aclose()
