"""The engine's door against a real server, with workflows that keep only the engine's side of the bargain."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, CountWorkflowsInput, Interceptor, OutboundInterceptor, WorkflowExecutionCount
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from cli.temporal_server import TemporalServer
from gateway.descriptions import is_searchable, literal
from gateway.engine import Engine
from gateway.engine.reading import history_pages
from gateway.submission import new_id
from holdfast.contracts import (
    Answer,
    ApprovalRule,
    ContentRef,
    Decision,
    DecisionKind,
    IngestRun,
    Limits,
    Plan,
    Request,
    SourceText,
    Status,
)
from holdfast.errors import DecisionRefused, Unavailable
from holdfast.settings import EngineSettings
from tests.gateway.standin import CONTENT, StandInIngest, StandInRequest
from workflows.connection import connect_client, is_loopback

LONG = timedelta(seconds=60)
TEXT = ContentRef(sha256="a" * 64, size=3)
QUEUE = "gateway-tests"


@pytest.fixture(scope="module")
async def client(temporal_server: TemporalServer) -> Client:
    return await connect_client(temporal_server.address, temporal_server.namespace)


@pytest.fixture(scope="module")
async def engine(client: Client) -> AsyncIterator[Engine]:
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[StandInRequest, StandInIngest],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield Engine(client, EngineSettings(task_queue=QUEUE))


@pytest.fixture(scope="module")
def deserted(client: Client) -> Engine:
    """An engine whose queue no worker polls."""
    return Engine(client, EngineSettings(task_queue="nobody-polls-this"))


def request(
    *, tenant: str = "acme", user: str = "ann", session: str | None = None, approvers: tuple[str, ...] = ()
) -> Request:
    return Request(
        id=new_id("req_"),
        tenant=tenant,
        user=user,
        plan=Plan(
            agent="docs",
            version="0123456789abcdef",
            deployments=("extractive",),
            instructions=TEXT,
            approval=ApprovalRule(approvers=approvers) if approvers else None,
        ),
        input=TEXT,
        limits=Limits(),
        submitted_at=datetime.now(UTC),
        session=session,
    )


def approve(content: ContentRef = CONTENT, actor: str = "bob") -> Decision:
    return Decision(decision=DecisionKind.APPROVE, actor=actor, content_sha256=content.sha256)


async def waiting(engine: Engine, asked: Request) -> Request:
    found = await engine.wait(await engine.submit(asked), LONG)
    assert found.status is Status.WAITING
    return asked


async def listed(engine: Engine, tenant: str, *ids: str) -> None:
    """Return once the engine's index, which lags behind, shows the requests as waiting."""
    async with asyncio.timeout(60):
        while True:
            found = await engine.requests(tenant, status=Status.WAITING, agent=None, limit=100)
            if {execution.request_id for execution in found} >= set(ids):
                return
            await asyncio.sleep(0.02)


async def test_a_request_without_a_rule_is_waited_for_to_its_answer(engine: Engine) -> None:
    asked = request(session="talk")
    execution = await engine.submit(asked)
    assert execution.status is Status.RUNNING
    ended = await engine.wait(execution, LONG)
    assert ended.status is Status.COMPLETED
    assert ended.answer == Answer(request_id=asked.id, status=Status.COMPLETED, attempts=1)
    found = await engine.find(asked.id, "acme")
    assert found is not None
    assert found == replace(ended, submitted_at=found.submitted_at)


async def test_a_held_request_is_waited_for_until_a_person_is_asked(engine: Engine) -> None:
    asked = request(approvers=("bob",))
    execution = await engine.wait(await engine.submit(asked), LONG)
    assert execution.status is Status.WAITING
    assert execution.approval is not None
    assert execution.approval.content == CONTENT
    assert execution.approval.rule == asked.plan.approval
    assert execution.cost_usd == Decimal("0.0012")
    assert execution.answer is None


async def test_waiting_follows_a_request_that_started_over(engine: Engine) -> None:
    execution = await engine.submit(request(approvers=("bob",), session="starts over"))
    assert (await engine.wait(execution, LONG)).status is Status.WAITING


async def test_waiting_can_go_on_while_a_person_is_asked(engine: Engine) -> None:
    asked = await waiting(engine, request(approvers=("bob",)))
    execution = await engine.find(asked.id, "acme")
    assert execution is not None
    still = await engine.wait(execution, timedelta(milliseconds=50), through_approval=True)
    assert still.status is Status.WAITING
    ending = asyncio.ensure_future(engine.wait(execution, LONG, through_approval=True))
    await engine.decide(asked.id, approve(), new_id("dec_"))
    assert (await ending).status is Status.COMPLETED


async def test_a_run_is_followed_turn_by_turn_to_its_end(engine: Engine) -> None:
    asked = request(approvers=("bob",))
    await engine.submit(asked)
    seen = []
    async with asyncio.timeout(60):
        async for _ in engine.turns(asked.id):
            progress = await engine.progress(asked.id)
            assert progress is not None
            seen.append(progress.status)
            if seen == [Status.WAITING]:
                await engine.decide(asked.id, approve(), new_id("dec_"))
    # Nothing is told on a clock: a turn for the question, one or two for the decision and the end.
    assert 2 <= len(seen) <= 4
    assert [None async for _ in engine.turns(asked.id)] == [None]


async def test_following_goes_on_when_a_run_starts_over(client: Client) -> None:
    queue = "gateway-tests-starting-over"
    asked = request(session="starts over")
    await Engine(client, EngineSettings(task_queue=queue)).submit(asked)
    pages = history_pages(client, asked.id)
    kinds = [event.event_type for event in await anext(pages)]
    # Only now that it is followed, the first run finds a worker.
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=queue, workflows=[StandInRequest], workflow_runner=runner):
        async with asyncio.timeout(60):
            kinds += [event.event_type async for page in pages for event in page]
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED) == 2
    assert kinds[-1] == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED


async def test_a_run_that_may_ask_about_its_budget_is_held_and_has_its_place_in_the_queue(
    engine: Engine, client: Client
) -> None:
    asked = request()
    rule = ApprovalRule(approvers=("bob",))
    asked = asked.model_copy(
        update={"plan": asked.plan.model_copy(update={"budget_approval": rule}), "priority": 2, "weight": 2.5}
    )
    assert (await engine.submit(asked)).held
    found = await engine.find(asked.id, "acme")
    assert found is not None
    assert found.held
    description = await client.get_workflow_handle(asked.id).describe()
    priority = description.raw_description.workflow_execution_info.priority
    assert (priority.priority_key, priority.fairness_weight) == (2, 2.5)
    assert priority.fairness_key == hashlib.sha256(b"acme").hexdigest()[:16]


async def test_waiting_ends_at_its_timeout(engine: Engine) -> None:
    for approvers in ((), ("bob",)):
        execution = await engine.submit(request(session="lingers", approvers=approvers))
        assert (await engine.wait(execution, timedelta(milliseconds=50))).status is Status.RUNNING


async def test_another_tenants_request_is_not_found(engine: Engine) -> None:
    asked = request()
    await engine.submit(asked)
    assert await engine.find(asked.id, "other") is None
    assert await engine.find("req_doesnotexist", "acme") is None


async def test_submitting_twice_starts_one_run(engine: Engine, client: Client) -> None:
    running = await waiting(engine, request(approvers=("bob",)))
    before = await client.get_workflow_handle(running.id).describe()
    await engine.submit(running)
    assert (await client.get_workflow_handle(running.id).describe()).run_id == before.run_id

    ended = request()
    await engine.wait(await engine.submit(ended), LONG)
    again = await engine.submit(ended)
    assert again.status is Status.COMPLETED
    assert again.answer is not None


async def test_a_run_is_described_for_people_without_its_text(engine: Engine, client: Client) -> None:
    asked = request(session="talk", approvers=("bob",))
    await waiting(engine, asked)
    description = await client.get_workflow_handle(asked.id).describe()
    assert await description.static_summary() == "docs: request of ann"
    details = await description.static_details() or ""
    assert "version `0123456789abcdef`" in details
    assert "50000 tokens" in details
    assert "deadline" in details


async def test_a_decision_is_taken_once_and_a_repetition_gets_the_same_receipt(engine: Engine) -> None:
    asked = await waiting(engine, request(approvers=("bob",)))
    taken = await engine.decide(asked.id, approve(), "dec_one")
    assert taken.actor == "bob"
    execution = await engine.find(asked.id, "acme")
    assert execution is not None
    ended = await engine.wait(execution, LONG)
    assert ended.answer is not None
    assert ended.answer.decided_by == "bob"
    assert await engine.decide(asked.id, approve(), "dec_one") == taken


async def test_a_decision_for_other_content_is_refused_with_its_code(engine: Engine) -> None:
    asked = await waiting(engine, request(approvers=("bob",)))
    with pytest.raises(DecisionRefused) as refused:
        await engine.decide(asked.id, approve(TEXT), "dec_two")
    assert refused.value.code == "other_content"
    execution = await engine.find(asked.id, "acme")
    assert execution is not None
    assert execution.status is Status.WAITING


async def test_a_decision_on_an_ended_request_is_refused_as_not_open(engine: Engine) -> None:
    asked = request()
    await engine.wait(await engine.submit(asked), LONG)
    with pytest.raises(DecisionRefused) as refused:
        await engine.decide(asked.id, approve(), "dec_three")
    assert refused.value.code == "not_open"


async def test_a_decision_without_a_worker_is_unavailable(deserted: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.door.DECISION_TIMEOUT", timedelta(milliseconds=300))
    asked = request(approvers=("bob",))
    await deserted.submit(asked)
    with pytest.raises(Unavailable, match="No worker took the decision"):
        await deserted.decide(asked.id, approve(), "dec_four")


async def test_the_inbox_shows_what_the_user_may_decide_nearest_deadline_first(engine: Engine) -> None:
    tenant = new_id("tenant_")
    later = await waiting(engine, request(tenant=tenant, approvers=("bob",)))
    sooner = await waiting(engine, request(tenant=tenant, approvers=("*",), session="hurries"))
    others = await waiting(engine, request(tenant=tenant, approvers=("carol", "bob smith")))
    await listed(engine, tenant, later.id, sooner.id, others.id)
    found = await engine.approvals(tenant, ("bob", "*"), 10)
    assert [execution.request_id for execution in found] == [sooner.id, later.id]
    assert await engine.approvals("other", ("bob", "*"), 10) == []


async def test_the_nearest_deadlines_are_found_among_many(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.parked.SPARE", 0)
    monkeypatch.setattr("gateway.engine.parked._LONGEST", timedelta(days=40_000))
    tenant = new_id("tenant_")
    minutes = [(number * 7) % 30 for number in range(30)]
    asked = [
        await engine.submit(request(tenant=tenant, approvers=("role:x",), session=str(after))) for after in minutes
    ]
    ordered = [one.request_id for _, one in sorted(zip(minutes, asked, strict=True), key=lambda row: row[0])]
    names = ("bob", "*", "role:x")
    async with asyncio.timeout(60):
        while await engine.count_approvals(tenant, names) < len(asked):  # noqa: ASYNC110 - the index has no event
            await asyncio.sleep(0.05)
    pages = [await engine.approvals(tenant, names, 5, offset) for offset in (0, 5, 25, 30)]
    assert [[one.request_id for one in page] for page in pages] == [ordered[:5], ordered[5:10], ordered[25:], []]
    assert await engine.count_approvals(tenant, ("bob", "*")) == 0


class Counted(Interceptor):
    """Counts what the index is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Stand in the way."""
        counted = self

        class Counting(OutboundInterceptor):
            async def count_workflows(self, input: CountWorkflowsInput) -> WorkflowExecutionCount:
                counted.asked.append(input.query or "")
                return await super().count_workflows(input)

        return Counting(next)


async def test_an_inbox_that_is_looked_at_again_asks_the_index_little(
    engine: Engine, temporal_server: TemporalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.engine.parked.SPARE", 0)
    monkeypatch.setattr("gateway.engine.parked._LONGEST", timedelta(days=40_000))
    tenant, names, index = new_id("tenant_"), ("ann", "*"), Counted()
    looking = Engine(
        await connect_client(temporal_server.address, temporal_server.namespace, interceptors=[index]),
        EngineSettings(task_queue=QUEUE),
    )
    for after in range(12):
        await engine.submit(request(tenant=tenant, approvers=("*",), session=str(after)))
    async with asyncio.timeout(60):
        while await engine.count_approvals(tenant, names) < 12:  # noqa: ASYNC110 - the index has no event
            await asyncio.sleep(0.05)
    first = await looking.approvals(tenant, names, 4)
    index.asked.clear()
    again, count = await asyncio.gather(looking.approvals(tenant, names, 4), looking.count_approvals(tenant, names))
    assert [one.request_id for one in again] == [one.request_id for one in first]
    assert (len(again), count, len(index.asked)) == (4, 12, 2)


@pytest.mark.parametrize(
    "name", ["o'hara", "x' OR HoldfastTenant != 'y", "x'' OR ''='y", "ann@example.org", "Zoë (a-b) %_*"]
)
async def test_names_cannot_change_the_inbox_query(engine: Engine, name: str) -> None:
    tenant = name + new_id("")
    asked = await waiting(engine, request(tenant=tenant, approvers=(name,)))
    await listed(engine, tenant, asked.id)
    found = await engine.approvals(tenant, (name, "*"), 10)
    assert [execution.request_id for execution in found] == [asked.id]
    assert await engine.approvals(tenant, ("someone else", "*"), 10) == []


@pytest.mark.parametrize("name", ["back\\slash", 'a"b', "ends'", " leads", "line\nbreak"])
def test_a_name_that_the_index_cannot_find_is_not_put_in_a_query(name: str) -> None:
    assert not is_searchable(name)
    with pytest.raises(ValueError, match="visibility query"):
        literal(name)


async def test_requests_are_listed_by_tenant_status_and_agent(engine: Engine) -> None:
    tenant = new_id("tenant_")
    asked = await waiting(engine, request(tenant=tenant, approvers=("bob",)))
    await listed(engine, tenant, asked.id)
    for status, agent, expected in (
        (Status.WAITING, None, [asked.id]),
        (None, "docs", [asked.id]),
        (Status.FAILED, None, []),
        (None, "writer", []),
    ):
        found = await engine.requests(tenant, status=status, agent=agent, limit=10)
        assert [execution.request_id for execution in found] == expected


async def test_a_cancelled_request_ends_as_cancelled(engine: Engine) -> None:
    asked = request(session="lingers")
    execution = await engine.submit(asked)
    await engine.cancel(asked.id, "by ann")
    ended = await engine.wait(execution, LONG)
    assert ended.status is Status.CANCELLED
    found = await engine.find(asked.id, "acme")
    assert found is not None
    assert found.status is Status.CANCELLED


async def test_cancelling_an_ended_request_changes_nothing(engine: Engine) -> None:
    asked = request()
    ended = await engine.wait(await engine.submit(asked), LONG)
    await engine.cancel(asked.id, "too late")
    found = await engine.find(asked.id, "acme")
    assert found is not None
    assert (found.status, found.answer) == (Status.COMPLETED, ended.answer)


@pytest.mark.parametrize(
    ("session", "reason"),
    [("fails", "No deployment could answer."), ("breaks", "The run failed; its trace says where.")],
)
async def test_a_failed_run_tells_its_reason_but_no_internals(engine: Engine, session: str, reason: str) -> None:
    ended = await engine.wait(await engine.submit(request(session=session)), LONG)
    assert ended.status is Status.FAILED
    assert ended.answer is not None
    assert ended.answer.reason == reason


async def test_a_terminated_run_is_cancelled(engine: Engine, client: Client) -> None:
    asked = await waiting(engine, request(approvers=("bob",)))
    await client.get_workflow_handle(asked.id).terminate()
    found = await engine.find(asked.id, "acme")
    assert found is not None
    assert found.status is Status.CANCELLED
    assert found.approval is None


async def test_progress_is_read_from_the_run_and_missing_without_a_worker(engine: Engine, deserted: Engine) -> None:
    asked = await waiting(engine, request(approvers=("bob",)))
    progress = await engine.progress(asked.id)
    assert progress is not None
    assert progress.status is Status.WAITING
    unworked = request()
    await deserted.submit(unworked)
    assert await deserted.progress(unworked.id) is None


async def test_an_ingestion_is_waited_for_and_found_again(engine: Engine) -> None:
    run = IngestRun(tenant="acme", collection="docs", documents=(SourceText(source="a.md", text=TEXT),))
    first = await engine.ingest(run, new_id("ing_"), LONG)
    assert first.result is not None
    assert first.result.sources == 1
    assert await engine.ingest(run, first.id, LONG) == first
    assert await engine.ingestion(first.id, "acme") == first
    assert await engine.ingestion(first.id, "other") is None
    slow = await engine.ingest(
        run.model_copy(update={"collection": "lingers"}), new_id("ing_"), timedelta(milliseconds=50)
    )
    assert slow.result is None
    assert slow.failure is None


async def test_readiness_names_a_missing_worker(engine: Engine, deserted: Engine) -> None:
    assert await engine.missing() == []
    assert "none polls task queue 'nobody-polls-this'" in (await deserted.missing())[0]


async def test_an_engine_that_is_set_up_otherwise_is_unavailable_with_the_reason(
    temporal_server: TemporalServer,
) -> None:
    elsewhere = Engine(await connect_client(temporal_server.address, "nowhere"), EngineSettings())
    with pytest.raises(Unavailable, match=r"nowhere.*holdfast doctor"):
        await elsewhere.submit(request())
    assert "nowhere" in (await elsewhere.missing())[0]


async def test_a_server_that_does_not_answer_is_unavailable(free_port: int) -> None:
    with pytest.raises(Unavailable, match="No Temporal server answers"):
        await connect_client(f"127.0.0.1:{free_port}", "default")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:7233", True), ("localhost:7233", True), ("[::1]:7233", True), ("temporal:7233", False)],
)
def test_only_this_machine_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
