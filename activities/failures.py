"""Turns the library's errors into the engine's, in one place: an interceptor around every activity.

What reaches a history is the library's own message, which never holds request text. An unexpected exception may hold
anything, so only its type goes there, with a reference to the worker's log.
"""

import logging
import secrets
import traceback
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from holdfast.errors import (
    ConfigurationError,
    ContentMissing,
    HoldfastError,
    IdempotencyConflict,
    InvalidInput,
    LimitExceeded,
    ProviderError,
    Throttled,
    Unavailable,
)

MOST_ATTEMPTS = 12
"""Times a step is tried that fails for another reason than a dependency that is away: nobody else will mend it."""

_PATIENT = (Unavailable, ProviderError, Throttled)
"""Pass by themselves, or are counted elsewhere."""

_FINAL = (ConfigurationError, ContentMissing, IdempotencyConflict, InvalidInput, LimitExceeded)

log = logging.getLogger(__name__)


class FailureInterceptor(Interceptor):
    """Put it on every worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap one activity."""
        return _Classify(next)


class _Classify(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except ApplicationError:
            raise
        except HoldfastError as error:
            raise application_error(error, last=_is_last() and not isinstance(error, _PATIENT)) from None
        except Exception as error:
            raise _unexpected(error, last=_is_last()) from None


def _is_last() -> bool:
    return activity.info().attempt >= MOST_ATTEMPTS


def application_error(error: HoldfastError, *, last: bool = False) -> ApplicationError:
    """The engine's form of an error of the library. A ceiling is not a crash, hence benign; its details say which."""
    benign = isinstance(error, LimitExceeded)
    which = (error.limit, error.needed, error.bound) if isinstance(error, LimitExceeded) else ()
    return ApplicationError(
        str(error),
        *which,
        type=type(error).__name__,
        non_retryable=last or isinstance(error, _FINAL),
        category=ApplicationErrorCategory.BENIGN if benign else ApplicationErrorCategory.UNSPECIFIED,
    )


def _unexpected(error: Exception, *, last: bool) -> ApplicationError:
    reference = secrets.token_hex(4)
    where = "".join(traceback.format_tb(error.__traceback__))
    step = activity.info().activity_type
    log.error("%s in step %s, reference %s\n%s", type(error).__name__, step, reference, where)
    return ApplicationError(
        f"{type(error).__name__} in step {step!r}; the worker's log has the place under reference {reference}.",
        type="UnexpectedError" if isinstance(error, TypeError | AttributeError | NameError) else type(error).__name__,
        non_retryable=last,
    )
