"""How calls to the engine are bounded, and what its silence and its refusals mean to the caller."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.exceptions import TimeoutError as RunTimedOut
from temporalio.service import RPCError, RPCStatusCode

from holdfast.contracts import Status
from holdfast.errors import DecisionRefused, Unavailable

CALL_TIMEOUT = timedelta(seconds=10)
"""Bound of one call to the engine."""
PROGRESS_TIMEOUT = timedelta(seconds=1)
"""How long a query waits for a worker; a page that polls should not hang on a missing one."""
DECISION_TIMEOUT = timedelta(seconds=15)
"""How long a decision waits for a worker; less than the 20 s after which the server answers without an outcome."""

NO_SUCH_RUN = frozenset({RPCStatusCode.NOT_FOUND})

_SILENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
    }
)


@contextmanager
def calling(what: str, *, telling: frozenset[RPCStatusCode] = frozenset()) -> Iterator[None]:
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
            raise unavailable(what) from None
        raise Unavailable(
            f"Temporal could not {what}: {error.message}. `holdfast doctor` checks namespace and search attributes."
        ) from None


def unavailable(what: str) -> Unavailable:
    """The engine is silent.

    Args:
        what: What was tried, to follow "could not".
    """
    return Unavailable(f"Temporal does not answer: could not {what}. Try again; `holdfast doctor` says more.")


def ending(cause: BaseException, otherwise: Status) -> tuple[Status, str]:
    """The status and reason of a run that ended without a result.

    Args:
        cause: Why it ended, as the engine tells it.
        otherwise: The status when the cause is a fault of the run's own code.
    """
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


def refusal(cause: BaseException) -> DecisionRefused:
    """Why a run did not take a decision.

    Raises:
        Unavailable: The fault is the run's, not the decision's.
    """
    if isinstance(cause, ApplicationError):
        if cause.type == "DecisionRefused":
            code = cause.details[0] if cause.details else "not_open"
            return DecisionRefused(cause.message, code=str(code))
        if cause.type == "AcceptedUpdateCompletedWorkflow":
            # https://docs.temporal.io/workflows#update: the run ended before the handler could answer.
            return DecisionRefused("The request ended while the decision was taken; read its status.", code="not_open")
    raise Unavailable("The decision could not be carried out; the request's trace says why.")
