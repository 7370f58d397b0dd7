"""The very same input again: answered at once, on record, and never stale, another tenant's, or of another kind."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.edge_answers import EdgeAnswers
from gateway.submission import digest, keyed_id, new_id
from holdfast.configuration import Configuration, load_configuration, reference
from holdfast.contracts import Answer, AnswerDocument, Status
from holdfast.ledger import FinishedRequest, Ledger, Reuse
from holdfast.settings import LedgerSettings
from tests.gateway.conftest import AGENTS, MODELS, SCHEMA
from tests.gateway.recorded import Edge, opened, problem

QUESTION = {"agent": "writer", "input": "Why?"}
ANN, OLGA = ({"Authorization": f"Bearer {key}"} for key in ("ka", "ko"))


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """The usual agents, and one that does not recall."""
    for name in ("agents", "prompts", "schemas"):
        (tmp_path / name).mkdir()
    (tmp_path / "schemas" / "form.json").write_text(SCHEMA)
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "prompts" / "prompt.md").write_text("Answer briefly.")
    forgetful = {"forgetful": 'deployments = ["extractive"]\nprompt = "prompt.md"\nrecall = false\n'}
    for name, text in (AGENTS | forgetful).items():
        (tmp_path / "agents" / f"{name}.toml").write_text(text)
    return load_configuration(tmp_path)


@pytest.fixture
async def edge(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Edge]:
    async with opened(configuration, ledger) as edge:
        yield edge


async def answered(
    edge: Edge,
    text: str = "Because.",
    *,
    agent: str = "writer",
    tenant: str = "local",
    user: str = "earlier",
    session: str | None = None,
    age: timedelta = timedelta(),
) -> str:
    """Leave the traces of a request that was answered, and return its id."""
    plan = edge.configuration.agents[agent].plan
    asked = await edge.ledger.contents.put(tenant, "Why?")
    content = await edge.ledger.contents.put(tenant, text)
    then = datetime.now(UTC) - age
    request_id = new_id("req_")
    await edge.ledger.finish(
        FinishedRequest(
            tenant=tenant,
            user=user,
            session=session,
            agent=agent,
            plan_version=plan.version,
            submitted_at=then,
            finished_at=then,
            input=asked,
            answer=Answer(request_id=request_id, status=Status.COMPLETED, content_sha256=content.sha256),
        ),
        document=AnswerDocument(text=text).model_dump_json(),
        reuse=Reuse(asked.sha256, content, input_sha256=asked.sha256),
    )
    return request_id


async def test_the_same_input_is_answered_without_a_run_and_is_on_record(edge: Edge) -> None:
    await answered(edge)
    reply = await edge.ask(QUESTION | {"session": "s1"})
    shown = reply.json()
    assert reply.status_code == 200
    assert (shown["status"], shown["answer"]["text"], shown["recalled"]) == ("completed", "Because.", True)
    assert (shown["usage"]["total_tokens"], shown["usage"]["cost_usd"], shown["attempts"]) == (0, "0", 0)
    assert shown["links"] == {"self": f"/v1/requests/{shown['id']}"}
    assert edge.engine.submitted == []
    assert (await edge.http.get(reply.headers["location"])).json() == shown
    stored = await edge.ledger.requests.get("local", shown["id"])
    assert stored is not None
    assert (stored.user, stored.session, stored.input) == ("local", "s1", reference("Why?"))
    other = await edge.ask(QUESTION | {"session": "s2"})
    assert other.json()["id"] != shown["id"]


async def test_the_same_key_is_the_same_answer_and_another_body_is_refused(edge: Edge) -> None:
    await answered(edge)
    first, again = [await edge.ask(QUESTION, Idempotency_Key="k-1") for _ in range(2)]
    assert first.json() == again.json()
    assert edge.engine.submitted == []
    problem(await edge.ask(QUESTION | {"input": "What?"}, Idempotency_Key="k-1"), 409, None)


async def test_a_key_whose_answer_was_never_put_on_record_is_answered_when_it_comes_again(edge: Edge) -> None:
    await answered(edge)
    # A gateway that died between claiming the key and recording the answer leaves only the claim.
    request_id = keyed_id("req_", "local", "k-1")
    await edge.ledger.submissions.claim("local", "k-1", body_sha256=digest(QUESTION), request_id=request_id)
    shown = (await edge.ask(QUESTION, Idempotency_Key="k-1")).json()
    assert (shown["id"], shown["answer"]["text"]) == (request_id, "Because.")
    assert await edge.ledger.requests.get("local", request_id) is not None


@pytest.mark.parametrize(
    "body",
    [
        {"input": "Why? "},
        {"agent": "forgetful"},
        {"agent": "docs"},
        {"batch": True},
        {"not_before": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
    ],
)
async def test_another_question_needs_a_run(edge: Edge, body: dict[str, Any]) -> None:
    for agent in ("writer", "forgetful", "docs"):
        await answered(edge, agent=agent)
    assert (await edge.ask(QUESTION | body)).status_code == 202
    assert len(edge.engine.submitted) == 1


async def test_another_tenant_gets_no_answer_of_ours(configuration: Configuration, ledger: Ledger) -> None:
    async with opened(configuration, ledger, api_keys="ka=acme/ann,ko=other/olga") as edge:
        await answered(edge, tenant="acme")
        assert (await edge.ask(QUESTION, **ANN)).status_code == 200
        assert (await edge.ask(QUESTION, **OLGA)).status_code == 202


@pytest.mark.parametrize(("age", "status"), [(59, 200), (61, 202)])
async def test_an_answer_that_is_too_old_needs_a_run(
    configuration: Configuration, ledger: Ledger, age: int, status: int
) -> None:
    settings = LedgerSettings(recall_for=timedelta(hours=1))
    async with opened(configuration, ledger, ledger=settings) as edge:
        await answered(edge, age=timedelta(minutes=age))
        assert (await edge.ask(QUESTION)).status_code == status


async def test_an_answer_grows_too_old_in_memory(edge: Edge) -> None:
    now = datetime.now(UTC)
    answers = EdgeAnswers(edge.ledger, timedelta(hours=1), now=lambda: now)
    await answered(edge)
    key = ("local", edge.configuration.agents["writer"].plan.version, reference("Why?").sha256)
    assert await answers.find(*key) is not None
    now += timedelta(minutes=61)
    assert await answers.find(*key) is None


async def test_the_same_words_in_a_conversation_are_another_question(edge: Edge) -> None:
    await answered(edge, user="local", session="s1")
    assert (await edge.ask(QUESTION | {"session": "s1"})).status_code == 202
    assert (await edge.ask(QUESTION | {"session": "s2"})).status_code == 200


async def test_documents_indexed_here_void_the_answers_at_once(edge: Edge) -> None:
    await answered(edge)
    assert (await edge.ask(QUESTION)).status_code == 200
    await edge.ledger.answers.forget("local")  # what ingestion does
    await edge.http.post("/v1/collections/docs/documents", json={"documents": [{"source": "a.md", "text": "x"}]})
    assert (await edge.ask(QUESTION)).status_code == 202


async def test_answers_voided_elsewhere_are_served_for_a_second_at_most(edge: Edge) -> None:
    now = 0.0
    answers = EdgeAnswers(edge.ledger, timedelta(hours=1), clock=lambda: now)
    await answered(edge)
    key = ("local", edge.configuration.agents["writer"].plan.version, reference("Why?").sha256)
    assert await answers.find(*key) is not None
    await edge.ledger.answers.forget("local")
    now = 0.99
    assert await answers.find(*key) is not None
    now = 1.0
    assert await answers.find(*key) is None


async def test_what_is_kept_is_bounded_and_reads_the_ledger_once(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    recall = edge.ledger.answers.recall_input

    async def counted(tenant: str, plan_version: str, input_sha256: str, **given: Any) -> Any:
        reads.append(tenant)
        return await recall(tenant, plan_version, input_sha256, **given)

    monkeypatch.setattr(edge.ledger.answers, "recall_input", counted)
    for tenant in ("one", "two", "three"):
        await answered(edge, "x" * 1_000, tenant=tenant)
    version, digest = edge.configuration.agents["writer"].plan.version, reference("Why?").sha256
    answers = EdgeAnswers(edge.ledger, timedelta(hours=1), max_bytes=2 * (3 * 1_100 + 2_000))
    for tenant in ("one", "one", "two", "one", "three", "one", "two"):
        assert await answers.find(tenant, version, digest) is not None
    # "two" was the longest unused when "three" came.
    assert reads == ["one", "two", "three", "two"]


async def test_a_chat_completion_is_answered_at_the_edge_too(edge: Edge) -> None:
    await answered(edge)
    body = {"model": "writer", "messages": [{"role": "user", "content": "Why?"}]}
    reply = (await edge.http.post("/v1/chat/completions", json=body)).json()
    assert reply["choices"][0]["message"]["content"] == "Because."
    assert reply["usage"]["total_tokens"] == 0
    assert reply["holdfast"]["recalled"] is True
    assert edge.engine.submitted == []
    streamed = (await edge.http.post("/v1/chat/completions", json=body | {"stream": True})).text
    assert '"content":"Because."' in streamed
    assert streamed.endswith("data: [DONE]\n\n")
