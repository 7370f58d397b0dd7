"""How each step is called: where it runs, how long it may take, how often it is tried.

Short steps are local activities, so that they share one workflow task; the one that must not begin before a decision
is in the history is an ordinary activity. `generate` is one on the deployment's own queue, because it needs heartbeats,
cancellation and, per deployment, limits; a call of a tool is one because it may take long and has to be broken off.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, is_cancelled_exception

from holdfast.contracts import (
    CallToolInput,
    Contract,
    Generated,
    GenerateInput,
    Request,
    Routed,
    Step,
    ToolReturned,
)
from holdfast.loop import CallModel

ResultT = TypeVar("ResultT", bound=Contract)

FINAL_ERRORS = ["InvalidInput", "ContentMissing", "ConfigurationError", "UnexpectedError"]
"""Error types that a repetition cannot mend."""

MOST_DISPATCHES = 10_000
"""Times a step may be handed to a worker. A store that is away is waited for; any other failure ends after a dozen
attempts, which `activities.failures` counts; calls of models are counted by the ledger."""

_SHORT_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=MOST_DISPATCHES,
    non_retryable_error_types=FINAL_ERRORS,
)

SHORT = timedelta(seconds=8)
"""Most time that a short step takes."""

LONG = timedelta(minutes=1)
"""For a short step that many long texts make a long one; the engine is told meanwhile that the task is alive."""

LEAST_PATIENCE = timedelta(seconds=90)
"""For a step that has to be made although the request's time is up: the one that closes its books."""

DEFAULT_QUEUE = "holdfast"
"""Queue of the workflows and their local activities."""

ATTEMPTS_BEFORE_FALLBACK = 3
"""Calls of one deployment before another one is tried."""

TOOL_DISPATCHES = 20
"""Times a call of a tool may be handed to a worker. The ledger knows whether it was made; what is bounded is how many
workers a tool can take down with it, and how long a store that is away is waited for."""

TOOL_GRACE = timedelta(seconds=30)
"""What a worker needs beyond the tool's own time: to put the call on record, before and after."""

HEARTBEAT = timedelta(seconds=20)
"""Silence after which a worker is taken for dead, where no route was chosen that says otherwise."""


class StepFailure(Exception):
    """A step failed for good.

    The engine reports an ordinary activity's error inside an `ActivityError` and a local one's bare; here they are one.

    Args:
        step: Which.
        cause: The error of the last attempt, or a `TimeoutError`.
    """

    def __init__(self, step: Step, cause: BaseException | None) -> None:
        super().__init__(step, cause)
        self.step = step
        self.cause = cause

    @property
    def reason(self) -> str:
        """Why, in one line without request text."""
        cause = self.cause
        if isinstance(cause, TimeoutError):
            return f"no answer in time ({cause.type.name.lower() if cause.type else 'timeout'})"
        return cause.message if isinstance(cause, ApplicationError) else type(cause).__name__

    def __str__(self) -> str:
        return f"{self.step.value}: {self.reason}"


@contextmanager
def _failing(step: Step) -> Iterator[None]:
    try:
        yield
    except (ActivityError, ApplicationError) as error:
        if is_cancelled_exception(error):
            raise
        raise StepFailure(step, error.cause if isinstance(error, ActivityError) else error) from error


async def local(
    step: Step,
    argument: Contract,
    result: type[ResultT],
    summary: str,
    patience: timedelta = LEAST_PATIENCE,
    takes: timedelta = SHORT,
) -> ResultT:
    """Run a short step as a local activity.

    Args:
        step: Which.
        argument: Its input.
        result: The type of its result.
        summary: For the trace.
        patience: How long a store that does not answer is waited for.
        takes: Most time of one attempt.

    Raises:
        StepFailure: It failed for good.
    """
    with _failing(step):
        returned: ResultT = await workflow.execute_local_activity(
            step.value,
            argument,
            result_type=result,
            start_to_close_timeout=takes,
            schedule_to_close_timeout=max(patience, LEAST_PATIENCE),
            retry_policy=_SHORT_RETRY,
            summary=f"{step.value}: {summary}",
        )
    return returned


async def recorded(
    step: Step, argument: Contract, result: type[ResultT], summary: str, request: Request, patience: timedelta
) -> ResultT:
    """Run a short step as an ordinary activity, which begins only once all that came before it is in the history.

    A local activity begins within the workflow task, and what came with the task, a decision say, may yet be lost with
    its worker.

    Args:
        step: Which.
        argument: Its input.
        result: The type of its result.
        summary: For the trace.
        request: Whose priority counts.
        patience: How long a store that does not answer is waited for.

    Raises:
        StepFailure: It failed for good.
    """
    with _failing(step):
        returned: ResultT = await workflow.execute_activity(
            step.value,
            argument,
            result_type=result,
            start_to_close_timeout=SHORT,
            schedule_to_close_timeout=max(patience, LEAST_PATIENCE),
            retry_policy=_SHORT_RETRY,
            priority=priority(request),
            summary=f"{step.value}: {summary}",
        )
    return returned


def tries(request: Request, command: CallModel) -> int:
    """Calls of one deployment before it is given up; 0 in runs of the first walk, where the engine counts them."""
    if request.walk == 1:
        return 0
    return request.limits.attempts if command.last_resort else ATTEMPTS_BEFORE_FALLBACK


def priority(request: Request) -> Priority:
    """A request's place in the queues: its tier first, and within a tier each tenant by its share."""
    return Priority(
        priority_key=request.priority,
        fairness_key=hashlib.sha256(request.tenant.encode()).hexdigest()[:16],
        fairness_weight=request.weight,
    )


async def generate(call: GenerateInput, route: Routed, request: Request, remaining: timedelta) -> Generated:
    """Call a model through the deployment's queue, or here if the deployment is no model but code of this process.

    Args:
        call: What to ask.
        route: Names the deployment and the bounds of one call.
        request: Whose priority counts in the queue.
        remaining: Time left until the request's deadline; the queueing counts.

    Raises:
        StepFailure: The deployment could not answer; the cause carries the classified outcome.
    """
    kind = "generate" if not call.violations else "repair"
    if route.in_process:
        return await local(Step.GENERATE, call, Generated, f"{kind}: {call.deployment}", remaining)
    with _failing(Step.GENERATE):
        reply: Generated = await workflow.execute_activity(
            Step.GENERATE.value,
            call,
            task_queue=generate_queue(call.deployment, workflow.info().task_queue),
            result_type=Generated,
            start_to_close_timeout=min(route.call_timeout, remaining),
            schedule_to_close_timeout=remaining,
            heartbeat_timeout=route.heartbeat_timeout,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=500),
                maximum_interval=timedelta(seconds=30),
                maximum_attempts=MOST_DISPATCHES if call.tries else _first_walk_attempts(call),
                non_retryable_error_types=FINAL_ERRORS,
            ),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=priority(request),
            summary=f"{kind}: {call.deployment}, at most {call.limits.output_tokens} out",
        )
    return reply


async def call_tool(
    given: CallToolInput, request: Request, remaining: timedelta, heartbeat_timeout: timedelta
) -> ToolReturned:
    """Call a tool once; a repetition after a worker died finds in the ledger what came of the call, if anything did.

    Args:
        given: What to call.
        request: Whose priority counts.
        remaining: Time left until the request's deadline.
        heartbeat_timeout: Silence after which a worker is taken for dead.

    Raises:
        StepFailure: It could not be called, or nobody knows what came of it.
    """
    call = given.call
    with _failing(Step.CALL_TOOL):
        returned: ToolReturned = await workflow.execute_activity(
            Step.CALL_TOOL.value,
            given,
            result_type=ToolReturned,
            start_to_close_timeout=min(call.timeout + TOOL_GRACE, remaining),
            schedule_to_close_timeout=remaining,
            heartbeat_timeout=heartbeat_timeout,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=500),
                maximum_interval=timedelta(seconds=30),
                maximum_attempts=TOOL_DISPATCHES,
                non_retryable_error_types=[*FINAL_ERRORS, "ToolProblem", "OutcomeUnknown"],
            ),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=priority(request),
            summary=f"{call.name}, call {call.key}",
        )
    return returned


def _first_walk_attempts(call: GenerateInput) -> int:
    return call.limits.attempts if call.last_resort else ATTEMPTS_BEFORE_FALLBACK


def generate_queue(deployment: str, task_queue: str) -> str:
    """The task queue in front of a deployment."""
    return _beside(task_queue, f"generate.{deployment}")


def ingest_queue(task_queue: str) -> str:
    """The task queue of the worker that owns the knowledge index."""
    return _beside(task_queue, "ingest")


def notify_queue(task_queue: str) -> str:
    """The task queue of notifications, so that slow receivers take no place from anything else."""
    return _beside(task_queue, "notify")


def _beside(task_queue: str, name: str) -> str:
    # A second installation in one namespace has another main queue and must not be served by the first one's workers.
    return name if task_queue == DEFAULT_QUEUE else f"{task_queue}.{name}"
