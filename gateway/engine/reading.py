"""Reads what the engine keeps of a run - status, search attributes, memo, history - as the gateway's own values."""

import json
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from gateway.descriptions import literal
from gateway.engine.calls import calling
from gateway.execution import Execution
from holdfast.contracts import Approval, Status
from workflows import attributes

_STATUS_OF_CLOSED = {
    WorkflowExecutionStatus.CANCELED: Status.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: Status.CANCELLED,
    WorkflowExecutionStatus.TIMED_OUT: Status.EXPIRED,
    WorkflowExecutionStatus.FAILED: Status.FAILED,
}

_CLOSING = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    }
)


async def execution_of(found: WorkflowExecution) -> Execution:
    """A run's description as a request."""
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
        held=bool(await found.memo_value(attributes.HELD, False)),
        approval=approval,
        tokens=known.get(attributes.TOKENS),
        cost_usd=None if cost is None else Decimal(repr(cost)),
    )


async def history_pages(client: Client, workflow_id: str) -> AsyncGenerator[Sequence[HistoryEvent], None]:
    """Yield a run's history as it grows, everything that came at once together, across continue-as-new, to its end.

    Follows the history with the engine's own long poll, so nothing is polled on a clock.
    """
    run_id: str | None = None
    while True:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        history = handle.fetch_history_events(wait_new_event=True)
        successor = ""
        while True:
            with calling("wait for the request"):
                await history.fetch_next_page()
            if page := history.current_page:
                successor = page[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
                yield page
            if history.next_page_token is None:
                break
        if not successor:
            return
        run_id = successor


def ends_or_asks(page: Sequence[HistoryEvent]) -> bool:
    """Whether a page of history says that the request waits for a person or has ended."""
    return any(event.event_type in _CLOSING or _status_in(event) == Status.WAITING for event in page)


def moves(page: Sequence[HistoryEvent]) -> bool:
    """Whether a page of history says that the run has done something, so that its run sheet may have grown."""
    return any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED for event in page)


def term(key: SearchAttributeKey[str], value: str) -> str:
    """A condition of a visibility query."""
    return f"{key.name} = {literal(value)}"


def _status_in(event: HistoryEvent) -> str | None:
    if event.event_type != EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
        return None
    fields = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    if attributes.STATUS.name not in fields:
        return None
    value = json.loads(fields[attributes.STATUS.name].data or b"null")
    return value if isinstance(value, str) else None
