"""Uploading documents."""

from datetime import timedelta
from typing import Any

import pytest

from tests.gateway.recorded import Edge, problem

ANN, OLGA = ({"Authorization": f"Bearer {key}"} for key in ("ka", "ko"))
BODY = {"documents": [{"source": "a.md", "text": "Alpha."}, {"source": "b.md", "text": ""}]}


async def upload(edge: Edge, body: Any, name: str = "docs", **headers: str) -> Any:
    return await edge.http.post(f"/v1/collections/{name}/documents", json=body, headers=ANN | headers)


async def test_documents_are_stored_and_their_ingestion_is_waited_for(guarded: Edge) -> None:
    response = await upload(guarded, BODY)
    assert response.status_code == 200
    shown = response.json()
    assert (shown["status"], shown["sources"], shown["passages"], shown["unreadable"]) == ("completed", 2, 3, [])
    [(ingestion_id, run)] = guarded.engine.ingested
    assert (run.tenant, run.collection) == ("acme", "docs")
    assert response.headers["location"] == shown["links"]["self"] == f"/v1/ingestions/{ingestion_id}"
    assert guarded.engine.waits == [timedelta(seconds=60)]
    texts = [await guarded.ledger.contents.get("acme", document.text) for document in run.documents]
    assert texts == ["Alpha.", ""]


async def test_an_ingestion_is_read_by_its_own_tenant_only(guarded: Edge) -> None:
    where = (await upload(guarded, BODY)).headers["location"]
    assert (await guarded.http.get(where, headers=ANN)).json()["status"] == "running"
    problem(await guarded.http.get(where, headers=OLGA), 404, "id")


async def test_the_same_key_uploads_once_and_not_something_else(guarded: Edge) -> None:
    key = {"Idempotency-Key": "k"}
    first = await upload(guarded, BODY, **key)
    assert (await upload(guarded, BODY, **key)).json()["id"] == first.json()["id"]
    problem(await upload(guarded, BODY, name="other", **key), 409, None)
    # A request may use the same key: it stands for something else.
    asked = await guarded.ask({"agent": "writer", "input": "Why?"}, Idempotency_Key="k", **ANN)
    assert asked.status_code == 202


@pytest.mark.parametrize(
    ("body", "name", "field"),
    [
        ({}, "docs", "documents"),
        ({"documents": []}, "docs", "documents"),
        ({"documents": [{"source": "", "text": "x"}]}, "docs", "documents.0.source"),
        ({"documents": [{"source": "a"}]}, "docs", "documents.0.text"),
        ({"documents": [{"source": "a", "text": "x", "titel": "y"}]}, "docs", "documents.0.titel"),
        ({"documents": [{"source": "a\0", "text": "x"}]}, "docs", "documents.0.source"),
        ({"documents": [{"source": "a", "text": "x"}, {"source": "a", "text": "y"}]}, "docs", "documents.1.source"),
        ({"documents": [{"source": f"{n}", "text": ""} for n in range(501)]}, "docs", "documents"),
        (BODY, "Docs!", "name"),
    ],
)
async def test_an_upload_that_does_not_fit_is_named_and_starts_nothing(
    guarded: Edge, body: Any, name: str, field: str
) -> None:
    problem(await upload(guarded, body, name), 422, field)
    assert guarded.engine.ingested == []


async def test_half_a_character_in_a_document_is_named(guarded: Edge) -> None:
    response = await guarded.http.post(
        "/v1/collections/docs/documents",
        content=b'{"documents": [{"source": "a", "text": "\\udc00"}]}',
        headers=ANN | {"Content-Type": "application/json"},
    )
    problem(response, 400, "documents.0.text")
