"""What the engine is told of an error: the library's own message, and of anything else only its type."""

from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.failures import FailureInterceptor, application_error
from holdfast.errors import (
    ConfigurationError,
    ContentMissing,
    HoldfastError,
    IdempotencyConflict,
    InvalidInput,
    LimitExceeded,
    Unavailable,
    UnknownAgent,
)
from workflows.steps import FINAL_ERRORS

SECRET = "the patient is called Zanzibarite"


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ConfigurationError("wrong"), True),
        (ContentMissing("gone"), True),
        (InvalidInput("bad"), True),
        (UnknownAgent("who"), True),
        (IdempotencyConflict("other"), True),
        (LimitExceeded("dear", limit="tokens", bound="1", needed="2"), True),
        (Unavailable("away"), False),
        (HoldfastError("else"), False),
    ],
)
def test_an_error_of_the_library_keeps_its_message_and_says_whether_to_repeat(
    error: HoldfastError, final: bool
) -> None:
    told = application_error(error)
    assert (told.type, told.message, told.non_retryable) == (type(error).__name__, str(error), final)


def test_a_ceiling_is_no_crash() -> None:
    denied = application_error(LimitExceeded("dear", limit="tokens", bound="1", needed="2"))
    assert denied.category is ApplicationErrorCategory.BENIGN
    assert application_error(Unavailable("away")).category is ApplicationErrorCategory.UNSPECIFIED


async def told(error: Exception) -> BaseException:
    """What leaves the interceptor when a step raises."""

    class Inner(ActivityInboundInterceptor):
        def __init__(self) -> None:
            pass

        async def execute_activity(self, input: ExecuteActivityInput) -> Any:
            raise error

    outer = FailureInterceptor().intercept_activity(Inner())

    @activity.defn(name="step")
    async def step() -> None:
        await outer.execute_activity(ExecuteActivityInput(fn=step, args=[], executor=None, headers={}))

    with pytest.raises(BaseException) as raised:  # noqa: PT011 - any error is looked at
        await ActivityEnvironment().run(step)
    return raised.value


async def test_the_message_of_an_unexpected_exception_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    error = await told(ValueError(SECRET))
    assert isinstance(error, ApplicationError)
    assert SECRET not in str(error)
    assert SECRET not in caplog.text
    assert error.__cause__ is None
    assert error.__suppress_context__, "else the engine would keep the cause, message and all"
    reference = error.message.rpartition("reference ")[2].rstrip(".")
    assert reference in caplog.text
    assert "in execute_activity" in caplog.text, "the log has the place"


@pytest.mark.parametrize("bug", [TypeError, AttributeError, NameError])
async def test_a_bug_is_not_repeated(bug: type[Exception]) -> None:
    error = await told(bug(SECRET))
    assert isinstance(error, ApplicationError)
    assert error.type in FINAL_ERRORS


@pytest.mark.parametrize("accident", [OSError, TimeoutError, ValueError, RuntimeError])
async def test_an_accident_is_repeated(accident: type[Exception]) -> None:
    error = await told(accident(SECRET))
    assert isinstance(error, ApplicationError)
    assert error.type == accident.__name__
    assert error.type not in FINAL_ERRORS
    assert not error.non_retryable


async def test_an_error_of_the_engine_passes_as_it_is() -> None:
    error = ApplicationError("classified", type="rate_limited", non_retryable=True)
    assert await told(error) is error
