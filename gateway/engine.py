"""The one door between the HTTP edge and the workflow engine; nothing else in the gateway knows there is one.

Workflows are started by name, so that the gateway loads none of their code.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from temporalio.api.enums.v1 import EventType, TaskQueueType
from temporalio.api.history.v1 import HistoryEvent
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
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)
from temporalio.exceptions import TimeoutError as RunTimedOut
from temporalio.service import RPCError, RPCStatusCode

from gateway.descriptions import details, ingestion_summary, literal, summary
from gateway.execution import Execution, Ingestion
from holdfast.contracts import (
    Answer,
    Approval,
    Decision,
    DecisionReceipt,
    Ingested,
    IngestRun,
    Progress,
    Request,
    Run,
    Status,
)
from holdfast.errors import DecisionRefused, Unavailable
from holdfast.settings import EngineSettings, Settings
from workflows import attributes
from workflows.connection import connect_client, tracing_interceptors

REQUEST_WORKFLOW = "RequestWorkflow"
INGEST_WORKFLOW = "IngestWorkflow"

CALL_TIMEOUT = timedelta(seconds=10)
"""Bound of one call to the engine."""
PROGRESS_TIMEOUT = timedelta(seconds=1)
"""How long a query waits for a worker; a page that polls should not hang on a missing one."""
DECISION_TIMEOUT = timedelta(seconds=15)
"""How long a decision waits for a worker; less than the 20 s after which the server answers without an outcome."""
INGESTION_DEADLINE = timedelta(hours=6)
POLLER_GONE = timedelta(seconds=75)
"""A worker polls at least once a minute; the engine remembers a dead one for five."""
STARTS = 16
"""Runs started at the same time. A development server given a thousand at once starts 21 a second with errors, paced
like this 52 without."""
GRACE = timedelta(hours=1)
"""Time the engine leaves a run beyond the request's own deadline, to end by itself and say why."""

_HELD = "held"
"""Memo that marks a run whose plan has an approval rule."""

_STATUS_OF_CLOSED = {
    WorkflowExecutionStatus.CANCELED: Status.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: Status.CANCELLED,
    WorkflowExecutionStatus.TIMED_OUT: Status.EXPIRED,
    WorkflowExecutionStatus.FAILED: Status.FAILED,
}

_SILENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
    }
)
_NO_SUCH_RUN = frozenset({RPCStatusCode.NOT_FOUND})

_CLOSING = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    }
)


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

    async def submit(self, request: Request) -> Execution:
        """Start the request unless its id is taken, in which case the one that has it is returned."""
        plan, limits = request.plan, request.limits
        pairs = [
            SearchAttributePair(attributes.TENANT, request.tenant),
            SearchAttributePair(attributes.USER, request.user),
            SearchAttributePair(attributes.AGENT, plan.agent),
            SearchAttributePair(attributes.STATUS, Status.RUNNING.value),
            SearchAttributePair(attributes.TIER, request.tier),
        ]
        if request.session:
            pairs.append(SearchAttributePair(attributes.SESSION, request.session))
        try:
            async with self._starts:
                with _calling("submit the request"):
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
                        memo={_HELD: True} if plan.approval else None,
                        search_attributes=TypedSearchAttributes(pairs),
                        static_summary=summary(request),
                        static_details=details(request),
                        request_eager_start=True,
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
            held=plan.approval is not None,
        )

    async def find(self, request_id: str, tenant: str) -> Execution | None:
        """The request, or `None` when there is none of that id or it belongs to another tenant."""
        description = await self._describe(request_id)
        if description is None or description.workflow_type != REQUEST_WORKFLOW:
            return None
        execution = await _execution(description)
        if execution.tenant != tenant:
            return None
        if not execution.status.is_final:
            return execution
        return replace(execution, answer=await self._answer(request_id, execution.status))

    async def wait(self, execution: Execution, timeout: timedelta) -> Execution:
        """Return as soon as the request is final or waits for a person, at the latest after `timeout`."""
        if execution.status is not Status.RUNNING or timeout <= timedelta(0):
            return execution
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                if not execution.held:
                    answer = await self._answer(execution.request_id, Status.FAILED)
                    return replace(execution, status=answer.status, answer=answer, approval=None)
                async for _ in self._turns(execution.request_id):
                    found = await self.find(execution.request_id, execution.tenant)
                    if found and found.status is not Status.RUNNING:
                        return found
        except TimeoutError:
            pass
        return await self.find(execution.request_id, execution.tenant) or execution

    async def progress(self, request_id: str) -> Progress | None:
        """The run sheet so far; `None` when no worker answers."""
        handle = self._client.get_workflow_handle(request_id)
        try:
            progress: Progress = await handle.query("progress", result_type=Progress, rpc_timeout=PROGRESS_TIMEOUT)
        except WorkflowQueryFailedError:
            return None
        except RPCError as error:
            if error.status is RPCStatusCode.UNAVAILABLE:
                raise _unavailable("read the progress") from None
            return None
        return progress

    async def cancel(self, request_id: str, reason: str) -> None:
        """Ask the request to stop; one that has ended already stays as it is."""
        try:
            with _calling("cancel the request", telling=_NO_SUCH_RUN):
                await self._client.get_workflow_handle(request_id).cancel(reason=reason, rpc_timeout=CALL_TIMEOUT)
        except RPCError:
            return

    async def requests(self, tenant: str, *, status: Status | None, agent: str | None, limit: int) -> list[Execution]:
        """The tenant's requests, the latest first."""
        terms = [_is(attributes.TENANT, tenant)]
        if status:
            terms.append(_is(attributes.STATUS, status.value))
        if agent:
            terms.append(_is(attributes.AGENT, agent))
        found = await self._query(terms, limit)
        return sorted(found, key=lambda execution: execution.submitted_at, reverse=True)

    async def approvals(self, tenant: str, user: str, limit: int) -> list[Execution]:
        """Requests that wait for a decision and name the user among the approvers, the nearest deadline first."""
        terms = [
            _is(attributes.TENANT, tenant),
            _is(attributes.STATUS, Status.WAITING.value),
            f"{attributes.APPROVERS.name} IN ({literal(user)}, '*')",
        ]
        found = [
            (execution.approval.deadline, execution.request_id, execution)
            for execution in await self._query(terms, limit)
            if execution.approval and {user, "*"} & set(execution.approval.rule.approvers)
        ]
        return [execution for _, _, execution in sorted(found, key=lambda row: row[:2])]

    async def decide(self, request_id: str, decision: Decision, update_id: str) -> DecisionReceipt:
        """Hand a decision to the request; the same `update_id` is taken once.

        Raises:
            DecisionRefused: It may not be taken; nothing has changed.
        """
        handle = self._client.get_workflow_handle(request_id)
        try:
            with _calling("hand over the decision", telling=_NO_SUCH_RUN):
                receipt: DecisionReceipt = await handle.execute_update(
                    "decide", decision, id=update_id, result_type=DecisionReceipt, rpc_timeout=DECISION_TIMEOUT
                )
        except WorkflowUpdateFailedError as error:
            raise _refusal(error.cause) from None
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
            with _calling("start the ingestion"):
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
            with _calling("look at the task queue"):
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
            with _calling("look the request up", telling=_NO_SUCH_RUN):
                return await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=CALL_TIMEOUT)
        except RPCError:
            return None

    async def _answer(self, request_id: str, otherwise: Status) -> Answer:
        """Wait for the result; for a run that ended without one, make it from the way it ended."""
        try:
            with _calling("wait for the answer"):
                answer: Answer = await self._client.get_workflow_handle(request_id, result_type=Answer).result()
        except WorkflowFailureError as error:
            status, reason = _ending(error.cause, otherwise)
            return Answer(request_id=request_id, status=status, reason=reason)
        return answer

    async def _ingested(self, ingestion_id: str, timeout: timedelta) -> Ingestion:
        handle = self._client.get_workflow_handle(ingestion_id, result_type=Ingested)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                with _calling("wait for the ingestion"):
                    return Ingestion(ingestion_id, result=await handle.result())
        except TimeoutError:
            return Ingestion(ingestion_id)
        except WorkflowFailureError as error:
            return Ingestion(ingestion_id, failure=_ending(error.cause, Status.FAILED)[1])

    async def _turns(self, request_id: str) -> AsyncIterator[None]:
        """Yield whenever the history says that the request waits for a person or has ended.

        Follows the history with the engine's own long poll, so nothing is polled on a clock.
        """
        run_id: str | None = None
        while True:
            successor = None
            handle = self._client.get_workflow_handle(request_id, run_id=run_id)
            with _calling("wait for the request"):
                async for event in handle.fetch_history_events(wait_new_event=True):
                    if event.event_type in _CLOSING or _status_in(event) == Status.WAITING:
                        yield
                    successor = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            if not successor:
                return
            run_id = successor

    async def _query(self, terms: Sequence[str], limit: int) -> list[Execution]:
        query = " AND ".join([f"WorkflowType = '{REQUEST_WORKFLOW}'", *terms])
        with _calling("list the requests"):
            return [
                await _execution(found)
                async for found in self._client.list_workflows(
                    query, limit=limit, page_size=limit, rpc_timeout=CALL_TIMEOUT
                )
            ]


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


async def _execution(found: WorkflowExecution) -> Execution:
    known = found.typed_search_attributes
    try:
        status = Status(known.get(attributes.STATUS) or Status.RUNNING)
    except ValueError:
        status = Status.RUNNING
    if found.status is WorkflowExecutionStatus.RUNNING:
        # The run tells its last status before it ends; until it has ended there is no answer to read.
        status = Status.RUNNING if status.is_final else status
    elif not status.is_final or found.status in _STATUS_OF_CLOSED:
        status = _STATUS_OF_CLOSED.get(found.status or WorkflowExecutionStatus.COMPLETED, Status.COMPLETED)
    approval: Approval | None = None
    if status is Status.WAITING:
        approval = await found.memo_value("approval", None, type_hint=Approval)
    cost = known.get(attributes.COST_USD)
    return Execution(
        request_id=found.id,
        tenant=known.get(attributes.TENANT) or "",
        user=known.get(attributes.USER) or "",
        agent=known.get(attributes.AGENT) or "",
        status=status,
        submitted_at=found.start_time,
        session=known.get(attributes.SESSION),
        held=bool(await found.memo_value(_HELD, False)),
        approval=approval,
        tokens=known.get(attributes.TOKENS),
        cost_usd=None if cost is None else Decimal(repr(cost)),
    )


def _ending(cause: BaseException, otherwise: Status) -> tuple[Status, str]:
    match cause:
        case CancelledError():
            return Status.CANCELLED, "Cancelled before it was finished."
        case TerminatedError():
            return Status.CANCELLED, "Ended by an operator of the engine."
        case RunTimedOut():
            return Status.EXPIRED, "The deadline passed before it was finished."
        case ApplicationError(type="RequestFailed", message=message):
            return Status.FAILED, message
        case _:
            return otherwise, "The run failed; its trace says where."


def _refusal(cause: BaseException) -> DecisionRefused:
    if isinstance(cause, ApplicationError):
        if cause.type == "DecisionRefused":
            code = cause.details[0] if cause.details else "not_open"
            return DecisionRefused(cause.message, code=str(code))
        if cause.type == "AcceptedUpdateCompletedWorkflow":
            # https://docs.temporal.io/workflows#update: the run ended before the handler could answer.
            return DecisionRefused("The request ended while the decision was taken; read its status.", code="not_open")
    raise Unavailable("The decision could not be carried out; the request's trace says why.")


@contextmanager
def _calling(what: str, *, telling: frozenset[RPCStatusCode] = frozenset()) -> Iterator[None]:
    """Turn an engine that does not answer, or not as it should, into `Unavailable`.

    Args:
        what: What was tried, to follow "could not".
        telling: Status codes that mean something to the caller and pass as they are.
    """
    try:
        yield
    except RPCError as error:
        if error.status in telling:
            raise
        if error.status in _SILENT:
            raise _unavailable(what) from None
        raise Unavailable(
            f"Temporal could not {what}: {error.message}. `holdfast doctor` checks namespace and search attributes."
        ) from None


def _unavailable(what: str) -> Unavailable:
    return Unavailable(f"Temporal does not answer: could not {what}. Try again; `holdfast doctor` says more.")


def _status_in(event: HistoryEvent) -> str | None:
    if event.event_type != EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
        return None
    fields = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    if attributes.STATUS.name not in fields:
        return None
    value = json.loads(fields[attributes.STATUS.name].data or b"null")
    return value if isinstance(value, str) else None


def _is(key: SearchAttributeKey[str], value: str) -> str:
    return f"{key.name} = {literal(value)}"
