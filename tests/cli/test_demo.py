from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import demo
from cli.client import GatewayClient
from cli.demo import Demo
from cli.ingest import Indexed
from cli.output import Output, Problem
from holdfast.contracts import Ingested, Status
from tests.cli.scripted import (
    DIGEST,
    MORNING,
    REQUEST_ID,
    ScriptedGateway,
    approval_document,
    ingestion_document,
    request_document,
    row_document,
)

DOCUMENTS = f"POST /v1/collections/{demo.COLLECTION}/documents"
LISTED = "GET /v1/requests"
QUIET = Output(as_json=True)
VERSION = "0123456789abcdef"
NONE_LISTED = (200, {"requests": [], "more": False})


@pytest.fixture
def client(gateway: ScriptedGateway) -> Iterator[GatewayClient]:
    with GatewayClient(gateway.url, demo.ASKER) as client:
        yield client


def test_readme_and_docs_are_indexed_under_their_paths(
    gateway: ScriptedGateway, client: GatewayClient, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "architecture.md").write_text("Rooms.", encoding="utf-8")
    (tmp_path / "README.md").write_text("Read.", encoding="utf-8")
    (tmp_path / "secret.md").write_text("Not this.", encoding="utf-8")
    gateway.on(DOCUMENTS, (200, ingestion_document(Ingested(sources=2, passages=2))))
    demo.index_documents(client, QUIET, tmp_path)
    sources = [document["source"] for document in gateway.calls[0].body["documents"]]
    assert sources == ["docs/architecture.md", "README.md"]


def test_a_directory_without_documents_says_what_to_do(
    gateway: ScriptedGateway, client: GatewayClient, tmp_path: Path
) -> None:
    with pytest.raises(Problem, match=r"neither documents in docs/ nor a README.md") as refused:
        demo.index_documents(client, QUIET, tmp_path)
    assert "holdfast ingest PATH" in refused.value.remedy
    assert gateway.calls == []


def test_the_question_is_asked_and_what_waits_is_shown(
    gateway: ScriptedGateway, client: GatewayClient, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(LISTED, NONE_LISTED)
    gateway.on("POST /v1/requests", (202, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document()]}))
    held = demo.ask(client, Output(as_json=False), Indexed(), VERSION)
    assert held.question == approval_document()
    assert gateway.calls[1].body["input"] == demo.QUESTION
    assert gateway.calls[1].body["session"] == f"demo-{VERSION}"
    assert f"approve --content {DIGEST} --user demo --url {gateway.url}\n" in capsys.readouterr().out


def earlier(status: Status, session: str) -> tuple[int, dict[str, Any]]:
    return 200, {"requests": [row_document(status) | {"session": session}], "more": False}


def test_what_an_earlier_start_asked_is_shown_again_while_it_waits(
    gateway: ScriptedGateway, client: GatewayClient
) -> None:
    gateway.on(LISTED, earlier(Status.WAITING, f"demo-{VERSION}"))
    gateway.on(f"GET /v1/requests/{REQUEST_ID}", (200, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document()]}))
    assert demo.ask(client, QUIET, Indexed(), VERSION).question == approval_document()
    assert [call.method for call in gateway.calls] == ["GET", "GET", "GET"], "nothing is asked"


@pytest.mark.parametrize(
    ("status", "session"),
    [(Status.COMPLETED, f"demo-{VERSION}"), (Status.WAITING, "demo-of another version"), (Status.WAITING, "mine")],
)
def test_what_was_decided_or_is_somebody_elses_is_asked_anew(
    gateway: ScriptedGateway, client: GatewayClient, status: Status, session: str
) -> None:
    gateway.on(LISTED, earlier(status, session))
    gateway.on("POST /v1/requests", (202, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": [approval_document()]}))
    demo.ask(client, QUIET, Indexed(), VERSION)
    assert [call.method for call in gateway.calls] == ["GET", "POST", "GET"]


def test_an_agent_without_approval_shows_its_answer_and_there_is_nothing_to_approve(
    gateway: ScriptedGateway, client: GatewayClient
) -> None:
    gateway.on(LISTED, NONE_LISTED)
    gateway.on("POST /v1/requests", (200, request_document(Status.COMPLETED)))
    held = demo.ask(client, QUIET, Indexed(), VERSION)
    assert held.question is None
    assert demo.approve(client, QUIET, held) is held
    assert [call.method for call in gateway.calls] == ["GET", "POST"]


def test_a_demo_that_ends_without_an_answer_is_an_error(gateway: ScriptedGateway, client: GatewayClient) -> None:
    gateway.on(LISTED, NONE_LISTED)
    gateway.on("POST /v1/requests", (200, request_document(Status.FAILED, reason="No deployment answers.")))
    with pytest.raises(Problem, match=r"is failed: No deployment answers\."):
        demo.ask(client, QUIET, Indexed(), VERSION)


def test_a_question_that_only_others_may_decide_is_an_error(gateway: ScriptedGateway, client: GatewayClient) -> None:
    gateway.on(LISTED, NONE_LISTED)
    gateway.on("POST /v1/requests", (202, request_document(Status.WAITING)))
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    with pytest.raises(Problem, match="whom the demo cannot stand for"):
        demo.ask(client, QUIET, Indexed(), VERSION)


def test_the_approval_names_what_was_shown_and_the_delivered_answer_is_kept(
    gateway: ScriptedGateway, client: GatewayClient
) -> None:
    receipt = {"request_id": REQUEST_ID, "actor": demo.APPROVER, "decided_at": MORNING.isoformat()}
    gateway.on(f"POST /v1/approvals/{REQUEST_ID}/decisions", (200, receipt))
    gateway.on(f"GET /v1/requests/{REQUEST_ID}", (200, request_document(Status.COMPLETED)))
    held = Demo(Indexed(), request_document(Status.WAITING), approval_document())
    delivered = demo.approve(client, QUIET, held)
    assert gateway.calls[0].body["content_sha256"] == DIGEST
    document = delivered.document()
    assert document["answer"] == request_document(Status.COMPLETED)["answer"]
    assert document["trace"].endswith(REQUEST_ID)
