"""What the failure of a model call means to the loop: the engine's error translated into a tick."""

from datetime import datetime, timedelta

from temporalio.exceptions import ApplicationError, TimeoutError

from holdfast import loop
from holdfast.contracts import AtLimit, Cause, LimitReached, Usage
from holdfast.errors import BudgetExceeded, LimitExceeded, Outcome, Throttled
from workflows.steps import StepFailure

NOTHING = Usage()

_CAUSES = {
    Outcome.RATE_LIMITED.value: Cause.THROTTLED,
    Throttled.__name__: Cause.THROTTLED,
    Outcome.CONTEXT_LENGTH.value: Cause.CONTEXT_WINDOW,
    Outcome.CONTENT_FILTER.value: Cause.CONTENT_POLICY,
}
"""By the type of the error; everything else is an outage."""


def tick_of(
    deployment: str, error: StepFailure, now: datetime, remaining: timedelta, delegated: Usage = NOTHING
) -> loop.LoopTick:
    """The tick that a failed call of a deployment is.

    Args:
        deployment: Which was called.
        error: How the step failed.
        now: The run's time.
        remaining: Left until the request's deadline.
        delegated: What delegates spent of the request's limits.
    """
    cause = error.cause
    if isinstance(cause, TimeoutError) and remaining <= timedelta(0):
        return loop.DeadlinePassed()
    if not isinstance(cause, ApplicationError):
        return loop.ModelFailed(deployment, f"{deployment}: {error.reason}")
    if cause.type == LimitExceeded.__name__:
        return loop.BudgetDenied(f"{cause.message}{_beside(delegated)}", limit=_limit(cause))
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


def _limit(error: ApplicationError) -> LimitReached | None:
    """Which limit the ledger named; runs that began on earlier versions were not told."""
    if len(error.details) < 3:
        return None
    limit, needed, bound = error.details[:3]
    return LimitReached(limit=limit, value=needed, bound=bound)


def _beside(delegated: Usage) -> str:
    """Why the ceiling is lower than the agent's file says."""
    if delegated == NOTHING:
        return ""
    return f" Delegates spent {delegated.total_tokens} tokens of what the request may spend in all."
