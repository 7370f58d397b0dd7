"""Requests and ingestions as workflows: starts them, finds them, waits for them, and hands decisions over.

Workflows are started by name, so that the gateway loads none of their code.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    Interceptor,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from gateway.descriptions import details, ingestion_summary, literal, summary
from gateway.engine.calls import (
    CALL_TIMEOUT,
    DECISION_TIMEOUT,
    NO_SUCH_RUN,
    PROGRESS_TIMEOUT,
    calling,
    ending,
    refusal,
    unavailable,
)
from gateway.engine.parked import window
from gateway.engine.reading import ends_or_asks, execution_of, history_pages, moves, term
from gateway.execution import Execution, Ingestion
from holdfast.contracts import Answer, Decision, DecisionReceipt, Ingested, IngestRun, Progress, Request, Run, Status
from holdfast.errors import DecisionRefused, Unavailable
from holdfast.settings import EngineSettings, Settings
from workflows import attributes
from workflows.connection import connect_client, tracing_interceptors

REQUEST_WORKFLOW = "RequestWorkflow"
INGEST_WORKFLOW = "IngestWorkflow"

INGESTION_DEADLINE = timedelta(hours=6)
POLLER_GONE = timedelta(seconds=75)
"""A worker polls at least once a minute; the engine remembers a dead one for five."""
STARTS = 16
"""Runs started at the same time. A development server given a thousand at once starts 21 a second with errors, paced
like this 52 without."""
PAGE = 1_000
"""Runs listed in one call to the engine, its own limit."""
PAGES = 256
"""Pages of inboxes whose ends are remembered."""
GRACE = timedelta(hours=1)
"""Time the engine leaves a run beyond the request's own deadline, to end by itself and say why."""


class Engine:
    """Requests and ingestions as workflows.

    Args:
        client: A connected client; in one process with the worker, the worker's own, so that runs start eagerly.
        settings: Task queue and timeouts.
    """

    def __init__(self, client: Client, settings: EngineSettings) -> None:
        self._client = client
        self._settings = settings
        self._starts = asyncio.Semaphore(STARTS)
        self._counting: dict[str, asyncio.Task[int]] = {}
        self._ends: OrderedDict[tuple[str, tuple[str, ...], int, int], datetime] = OrderedDict()
        """Where the pages of inboxes ended that were looked at last."""

    async def submit(self, request: Request) -> Execution:
        """Start the request unless its id is taken, in which case the one that has it is returned."""
        plan, limits = request.plan, request.limits
        try:
            async with self._starts:
                with calling("submit the request"):
                    await self._client.start_workflow(
                        REQUEST_WORKFLOW,
                        Run(request=request),
                        id=request.id,
                        task_queue=self._settings.task_queue,
                        result_type=Answer,
                        execution_timeout=limits.deadline + GRACE,
                        task_timeout=self._settings.workflow_task_timeout,
                        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                        memo=attributes.pinned(request),
                        search_attributes=attributes.found_by(request),
                        static_summary=summary(request),
                        static_details=details(request),
                        # Handed to a worker of this process, a run would not go to the current version.
                        request_eager_start=not self._settings.deployment,
                        priority=_priority(request),
                        rpc_timeout=CALL_TIMEOUT,
                    )
        except WorkflowAlreadyStartedError:
            if existing := await self.find(request.id, request.tenant):
                return existing
            raise Unavailable(f"Request {request.id!r} has ended but cannot be read yet; try again.") from None
        return Execution(
            request_id=request.id,
            tenant=request.tenant,
            user=request.user,
            agent=plan.agent,
            status=Status.RUNNING,
            submitted_at=request.submitted_at,
            session=request.session,
            held=attributes.can_wait(request),
        )

    async def find(self, request_id: str, tenant: str) -> Execution | None:
        """The request, or `None` when there is none of that id or it belongs to another tenant."""
        description = await self._describe(request_id)
        if description is None or description.workflow_type != REQUEST_WORKFLOW:
            return None
        execution = await execution_of(description)
        if execution.tenant != tenant:
            return None
        if not execution.status.is_final:
            return execution
        return replace(execution, answer=await self._answer(request_id, execution.status))

    async def wait(self, execution: Execution, timeout: timedelta, *, through_approval: bool = False) -> Execution:
        """Return as soon as the request is final, or waits for a person, at the latest after `timeout`."""
        over = execution.status.is_final or (execution.status is Status.WAITING and not through_approval)
        if over or timeout <= timedelta(0):
            return execution
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                if through_approval or not execution.held:
                    answer = await self._answer(execution.request_id, Status.FAILED)
                    return replace(execution, status=answer.status, answer=answer, approval=None)
                async with aclosing(history_pages(self._client, execution.request_id)) as pages:
                    async for page in pages:
                        if not ends_or_asks(page):
                            continue
                        found = await self.find(execution.request_id, execution.tenant)
                        if found and found.status is not Status.RUNNING:
                            return found
        except TimeoutError:
            pass
        return await self.find(execution.request_id, execution.tenant) or execution

    async def turns(self, request_id: str) -> AsyncGenerator[None, None]:
        """Yield whenever the request has moved on, the first time at once, until it has ended."""
        async with aclosing(history_pages(self._client, request_id)) as pages:
            async for page in pages:
                if moves(page):
                    yield

    async def progress(self, request_id: str) -> Progress | None:
        """The run sheet so far; `None` when no worker answers."""
        handle = self._client.get_workflow_handle(request_id)
        try:
            progress: Progress = await handle.query("progress", result_type=Progress, rpc_timeout=PROGRESS_TIMEOUT)
        except WorkflowQueryFailedError:
            return None
        except RPCError as error:
            if error.status is RPCStatusCode.UNAVAILABLE:
                raise unavailable("read the progress") from None
            return None
        return progress

    async def cancel(self, request_id: str, reason: str) -> None:
        """Ask the request to stop; one that has ended already stays as it is."""
        try:
            with calling("cancel the request", telling=NO_SUCH_RUN):
                await self._client.get_workflow_handle(request_id).cancel(reason=reason, rpc_timeout=CALL_TIMEOUT)
        except RPCError:
            return

    async def requests(self, tenant: str, *, status: Status | None, agent: str | None, limit: int) -> list[Execution]:
        """The tenant's requests, the latest first."""
        terms = [term(attributes.TENANT, tenant)]
        if status:
            terms.append(term(attributes.STATUS, status.value))
        if agent:
            terms.append(term(attributes.AGENT, agent))
        found = await self._query(terms, limit)
        return sorted(found, key=lambda execution: execution.submitted_at, reverse=True)

    async def approvals(self, tenant: str, names: Sequence[str], limit: int, offset: int = 0) -> list[Execution]:
        """Requests that wait for a decision by one of the names, the nearest deadline first."""
        terms = _waiting(tenant, names)

        async def count_until(moment: datetime | None) -> int:
            return await self._count(terms if moment is None else [*terms, _deadline("<=", moment)])

        page = (tenant, tuple(names), limit, offset)
        shown = await window(count_until, offset, limit, datetime.now(UTC), self._ends.pop(page, None))
        if shown.until is not None:
            self._ends[page] = shown.until
            if len(self._ends) > PAGES:
                self._ends.popitem(last=False)
        if shown.after is not None:
            terms.append(_deadline(">", shown.after))
        if shown.until is not None:
            terms.append(_deadline("<=", shown.until))
        found = [
            (execution.approval.deadline, execution.request_id, execution)
            for execution in await self._query(terms, max(shown.within - shown.before, 1))
            if execution.approval and not set(names).isdisjoint(execution.approval.approvers)
        ]
        return [execution for _, _, execution in sorted(found, key=lambda row: row[:2])][
            offset - shown.before : offset - shown.before + limit
        ]

    async def count_approvals(self, tenant: str, names: Sequence[str]) -> int:
        """How many requests wait for a decision by one of the names."""
        return await self._count(_waiting(tenant, names))

    async def decide(self, request_id: str, decision: Decision, update_id: str) -> DecisionReceipt:
        """Hand a decision to the request; the same `update_id` is taken once.

        Raises:
            DecisionRefused: It may not be taken; nothing has changed.
        """
        handle = self._client.get_workflow_handle(request_id)
        try:
            with calling("hand over the decision", telling=NO_SUCH_RUN):
                receipt: DecisionReceipt = await handle.execute_update(
                    "decide", decision, id=update_id, result_type=DecisionReceipt, rpc_timeout=DECISION_TIMEOUT
                )
        except WorkflowUpdateFailedError as error:
            raise refusal(error.cause) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise Unavailable(
                f"No worker took the decision on {request_id!r} within {DECISION_TIMEOUT.total_seconds():.0f} s. "
                "It may still be taken: read the request first, or send it again with the same Idempotency-Key."
            ) from None
        except RPCError:
            raise DecisionRefused(
                f"Request {request_id!r} has ended; there is nothing left to decide.", code="not_open"
            ) from None
        return receipt

    async def ingest(self, run: IngestRun, ingestion_id: str, timeout: timedelta) -> Ingestion:
        """Start an ingestion unless its id is taken, and wait for it up to `timeout`."""
        try:
            with calling("start the ingestion"):
                await self._client.start_workflow(
                    INGEST_WORKFLOW,
                    run,
                    id=ingestion_id,
                    task_queue=self._settings.task_queue,
                    result_type=Ingested,
                    execution_timeout=INGESTION_DEADLINE,
                    task_timeout=self._settings.workflow_task_timeout,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    search_attributes=TypedSearchAttributes([SearchAttributePair(attributes.TENANT, run.tenant)]),
                    static_summary=ingestion_summary(run),
                    request_eager_start=True,
                    rpc_timeout=CALL_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            pass  # the same documents were sent before under the same key: tell what became of them
        return await self._ingested(ingestion_id, timeout)

    async def ingestion(self, ingestion_id: str, tenant: str) -> Ingestion | None:
        """An ingestion of the tenant, or `None`."""
        description = await self._describe(ingestion_id)
        if description is None or description.workflow_type != INGEST_WORKFLOW:
            return None
        if description.typed_search_attributes.get(attributes.TENANT) != tenant:
            return None
        if description.status is WorkflowExecutionStatus.RUNNING:
            return Ingestion(ingestion_id)
        return await self._ingested(ingestion_id, CALL_TIMEOUT)

    async def missing(self) -> list[str]:
        """What keeps requests from being worked on, one line each; empty when all is well."""
        queue = self._settings.task_queue
        try:
            with calling("look at the task queue"):
                reply = await self._client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=self._client.namespace,
                        task_queue=TaskQueue(name=queue),
                        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
                    ),
                    timeout=PROGRESS_TIMEOUT,
                )
        except Unavailable as error:
            return [f"engine: {error}"]
        now = datetime.now(UTC)
        if all(now - poller.last_access_time.ToDatetime(UTC) > POLLER_GONE for poller in reply.pollers):
            return [f"worker: none polls task queue {queue!r}; start one with `python worker.py`"]
        return []

    async def _describe(self, workflow_id: str) -> WorkflowExecution | None:
        try:
            with calling("look the request up", telling=NO_SUCH_RUN):
                return await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=CALL_TIMEOUT)
        except RPCError:
            return None

    async def _answer(self, request_id: str, otherwise: Status) -> Answer:
        """Wait for the result; for a run that ended without one, make it from the way it ended."""
        try:
            with calling("wait for the answer"):
                answer: Answer = await self._client.get_workflow_handle(request_id, result_type=Answer).result()
        except WorkflowFailureError as error:
            status, reason = ending(error.cause, otherwise)
            return Answer(request_id=request_id, status=status, reason=reason)
        return answer

    async def _ingested(self, ingestion_id: str, timeout: timedelta) -> Ingestion:
        handle = self._client.get_workflow_handle(ingestion_id, result_type=Ingested)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                with calling("wait for the ingestion"):
                    return Ingestion(ingestion_id, result=await handle.result())
        except TimeoutError:
            return Ingestion(ingestion_id)
        except WorkflowFailureError as error:
            return Ingestion(ingestion_id, failure=ending(error.cause, Status.FAILED)[1])

    async def _query(self, terms: Sequence[str], limit: int) -> list[Execution]:
        query = " AND ".join([f"WorkflowType = '{REQUEST_WORKFLOW}'", *terms])
        with calling("list the requests"):
            return [
                await execution_of(found)
                async for found in self._client.list_workflows(
                    query, limit=limit, page_size=min(limit, PAGE), rpc_timeout=CALL_TIMEOUT
                )
            ]

    async def _count(self, terms: Sequence[str]) -> int:
        """How many there are; those who ask the same at the same time are told together."""
        query = " AND ".join([f"WorkflowType = '{REQUEST_WORKFLOW}'", *terms])
        if (counting := self._counting.get(query)) is None:
            counting = self._counting[query] = asyncio.create_task(self._ask(query))
            counting.add_done_callback(lambda done: self._counted(query, done))
        return await asyncio.shield(counting)

    def _counted(self, query: str, done: asyncio.Task[int]) -> None:
        del self._counting[query]
        if not done.cancelled():
            done.exception()  # looked at, in case nobody waits any longer

    async def _ask(self, query: str) -> int:
        with calling("count the requests"):
            return (await self._client.count_workflows(query, rpc_timeout=CALL_TIMEOUT)).count


async def connect(settings: Settings, *, interceptors: Sequence[Interceptor] | None = None) -> Engine:
    """Connect to the engine that the settings name.

    Args:
        settings: Address, namespace, task queue; and whether spans are exported.
        interceptors: Instead of OpenTelemetry's, which is used when an export endpoint is configured.

    Raises:
        Unavailable: Nothing answers there.
    """
    engine = settings.engine
    if interceptors is None:
        interceptors = tracing_interceptors(settings.telemetry.otlp_endpoint)
    return Engine(await connect_client(engine.address, engine.namespace, interceptors=interceptors), engine)


def _waiting(tenant: str, names: Sequence[str]) -> list[str]:
    """The conditions on what waits for a decision by one of the names."""
    return [
        term(attributes.TENANT, tenant),
        term(attributes.STATUS, Status.WAITING.value),
        f"{attributes.APPROVERS.name} IN ({', '.join(literal(name) for name in names)})",
        "ExecutionStatus = 'Running'",
    ]


def _deadline(than: str, moment: datetime) -> str:
    return f"{attributes.APPROVAL_DEADLINE.name} {than} '{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}'"


def _priority(request: Request) -> Priority:
    """A run's place in the queue: its tier first, and within a tier each tenant by its share."""
    return Priority(
        priority_key=request.priority,
        fairness_key=hashlib.sha256(request.tenant.encode()).hexdigest()[:16],
        fairness_weight=request.weight,
    )
