import json
from pathlib import Path
from typing import Any

import pytest

from cli import ingest
from cli.ingest import BATCH_BYTES, BATCH_DOCUMENTS, Source, batches
from cli.main import execute
from holdfast.contracts import Ingested, Unreadable
from tests.cli.scripted import Call, Reply, ScriptedGateway, ingestion_document

DOCUMENTS = "POST /v1/collections/docs/documents"


def indexed(call: Call) -> Reply:
    count = len(call.body["documents"])
    return 200, ingestion_document(Ingested(sources=count, passages=3 * count))


def names(call: Call) -> list[str]:
    return [document["source"] for document in call.body["documents"]]


def write(directory: Path, **texts: str) -> None:
    for name, text in texts.items():
        (directory / f"{name}.md").write_text(text, encoding="utf-8")


def test_a_directory_is_sent_with_names_relative_to_it(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, one="First.", two="Zweitens: ä.")
    gateway.on(DOCUMENTS, indexed)
    assert execute(["ingest", str(tmp_path)]) == 0
    assert gateway.calls[0].body["documents"] == [
        {"source": "one.md", "text": "First."},
        {"source": "two.md", "text": "Zweitens: ä."},
    ]
    assert "Indexed 2 documents as 6 passages in collection 'docs'." in capsys.readouterr().out


def test_an_unreadable_document_is_named_the_others_are_indexed_and_the_end_is_1(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, good="Text.")
    (tmp_path / "bad.md").write_bytes(b"\xff\xfe\xfd")
    gateway.on(DOCUMENTS, indexed)
    assert execute(["ingest", str(tmp_path), "--json"]) == 1
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (result["sources"], result["passages"]) == (1, 3)
    assert [left_out["source"] for left_out in result["unreadable"]] == ["bad.md"]
    assert names(gateway.calls[0]) == ["good.md"]


def test_what_the_gateway_could_not_index_counts_as_unreadable(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, one="Text.")
    left_out = Unreadable(source="one.md", reason="'one.md' has no words.")
    gateway.on(DOCUMENTS, (200, ingestion_document(Ingested(unreadable=(left_out,)))))
    assert execute(["ingest", str(tmp_path)]) == 1
    assert "Left out: 'one.md' has no words." in capsys.readouterr().err


def test_a_request_that_is_too_large_for_the_gateway_is_halved_until_the_culprit_is_named(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, a="x", b="large", c="y")

    def refuse_large(call: Call) -> Reply:
        if any(document["text"] == "large" for document in call.body["documents"]):
            return 413, {"status": 413, "detail": "The body is larger than 9 bytes.", "remedy": "Raise the limit."}
        return indexed(call)

    gateway.on(DOCUMENTS, refuse_large)
    assert execute(["ingest", str(tmp_path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["sources"] == 2
    assert [left_out["source"] for left_out in result["unreadable"]] == ["b.md"]
    assert "Raise the limit." in result["unreadable"][0]["reason"]


def test_an_ingestion_that_takes_longer_is_followed_to_its_end(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, one="Text.")
    monkeypatch.setattr("cli.client.INGESTION_POLL_SECONDS", 0)
    gateway.on(DOCUMENTS, (202, ingestion_document()))
    running = (200, ingestion_document())
    gateway.on("GET /v1/ingestions/ing_1", running, (200, ingestion_document(Ingested(sources=1, passages=1))))
    assert execute(["ingest", str(tmp_path)]) == 0
    assert [call.method for call in gateway.calls] == ["POST", "GET", "GET"]


def test_an_ingestion_that_fails_is_an_error_with_its_trace(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, one="Text.")
    gateway.on(DOCUMENTS, (200, ingestion_document(failure="The index is gone.")))
    assert execute(["ingest", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "The index is gone." in error
    assert "/workflows/ing_1" in error


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_path_without_documents_is_an_error_and_sends_nothing(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert execute(["ingest", str(tmp_path / name), "--json"]) == 1
    assert name in json.loads(capsys.readouterr().out)["detail"]
    assert gateway.calls == []


def test_batches_stay_within_bytes_and_number_and_lose_nothing() -> None:
    sizes = [10, BATCH_BYTES - 10, 1, BATCH_BYTES * 2, *[1] * (BATCH_DOCUMENTS + 1)]
    documents = [Source(str(position), "x" * size) for position, size in enumerate(sizes)]
    made = list(batches(documents))
    assert [document for batch in made for document in batch] == documents
    assert [len(batch) for batch in made] == [2, 1, 1, BATCH_DOCUMENTS, 1]


def test_sources_can_be_told_apart_by_a_prefix(tmp_path: Path) -> None:
    write(tmp_path, one="Text.")
    documents, unreadable = ingest.read(tmp_path, "docs/")
    assert [document.name for document in documents] == ["docs/one.md"]
    assert unreadable == []
