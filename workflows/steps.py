"""How each step is called: where it runs, how long it may take, how often it is tried.

Short steps are local activities, so that they share one workflow task. `generate` is an ordinary activity on the
deployment's own queue, because it needs heartbeats, cancellation and, per deployment, limits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, is_cancelled_exception

from holdfast.contracts import Contract, Generated, GenerateInput, Routed, Step

ResultT = TypeVar("ResultT", bound=Contract)

FINAL_ERRORS = ["InvalidInput", "ContentMissing", "ConfigurationError", "UnexpectedError"]
"""Error types that a repetition cannot mend."""

_LOCAL_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=12,
    non_retryable_error_types=FINAL_ERRORS,
)

DEFAULT_QUEUE = "holdfast"
"""Queue of the workflows and their local activities."""

ATTEMPTS_BEFORE_FALLBACK = 3
"""Calls of one deployment before another one is tried."""


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


async def local(step: Step, argument: Contract, result: type[ResultT], summary: str) -> ResultT:
    """Run a short step as a local activity.

    Raises:
        StepFailure: It failed for good.
    """
    with _failing(step):
        returned: ResultT = await workflow.execute_local_activity(
            step.value,
            argument,
            result_type=result,
            start_to_close_timeout=timedelta(seconds=8),
            schedule_to_close_timeout=timedelta(seconds=90),
            retry_policy=_LOCAL_RETRY,
            summary=f"{step.value}: {summary}",
        )
    return returned


async def generate(call: GenerateInput, route: Routed, remaining: timedelta) -> Generated:
    """Call a model through the deployment's queue.

    Args:
        call: What to ask.
        route: Names the deployment and the bounds of one call.
        remaining: Time left until the request's deadline; the queueing counts.

    Raises:
        StepFailure: The deployment could not answer; the cause carries the classified outcome.
    """
    kind = "generate" if call.turn == 1 else f"repair {call.turn - 1}"
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
                maximum_attempts=call.limits.attempts if call.last_resort else ATTEMPTS_BEFORE_FALLBACK,
                non_retryable_error_types=FINAL_ERRORS,
            ),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{kind}: {call.deployment}, at most {call.limits.output_tokens} out",
        )
    return reply


def generate_queue(deployment: str, task_queue: str) -> str:
    """The task queue in front of a deployment."""
    return _beside(task_queue, f"generate.{deployment}")


def ingest_queue(task_queue: str) -> str:
    """The task queue of the worker that owns the knowledge index."""
    return _beside(task_queue, "ingest")


def _beside(task_queue: str, name: str) -> str:
    # A second installation in one namespace has another main queue and must not be served by the first one's workers.
    return name if task_queue == DEFAULT_QUEUE else f"{task_queue}.{name}"
