"""What the failure of a model call means to the loop: the engine's error translated into a tick."""

from datetime import datetime, timedelta

from temporalio.exceptions import ApplicationError, TimeoutError

from holdfast import loop
from holdfast.contracts import AtLimit, Cause
from holdfast.errors import BudgetExceeded, LimitExceeded, Outcome, Throttled
from workflows.steps import StepFailure

_CAUSES = {
    Outcome.RATE_LIMITED.value: Cause.THROTTLED,
    Throttled.__name__: Cause.THROTTLED,
    Outcome.CONTEXT_LENGTH.value: Cause.CONTEXT_WINDOW,
    Outcome.CONTENT_FILTER.value: Cause.CONTENT_POLICY,
}
"""By the type of the error; everything else is an outage."""


def tick_of(deployment: str, error: StepFailure, now: datetime, remaining: timedelta) -> loop.LoopTick:
    """The tick that a failed call of a deployment is.

    Args:
        deployment: Which was called.
        error: How the step failed.
        now: The run's time.
        remaining: Left until the request's deadline.
    """
    cause = error.cause
    if isinstance(cause, TimeoutError) and remaining <= timedelta(0):
        return loop.DeadlinePassed()
    if not isinstance(cause, ApplicationError):
        return loop.ModelFailed(deployment, f"{deployment}: {error.reason}")
    if cause.type == LimitExceeded.__name__:
        return loop.BudgetDenied(cause.message)
    if cause.type == BudgetExceeded.__name__:
        return _denial(cause, now)
    wait = cause.details[0] if cause.details else None
    return loop.ModelFailed(
        deployment,
        f"{deployment}: {error.reason}",
        timedelta(seconds=wait) if isinstance(wait, int | float) else None,
        _CAUSES.get(cause.type or "", Cause.OUTAGE),
        called=cause.type != Throttled.__name__,
    )


def _denial(error: ApplicationError, now: datetime) -> loop.BudgetDenied:
    action, resets_at = error.details
    wait = max(datetime.fromisoformat(resets_at) - now, timedelta(seconds=1)) if resets_at else None
    return loop.BudgetDenied(error.message, AtLimit(action), wait)
