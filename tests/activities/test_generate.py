"""A provider's failure in the engine's terms: repeat here, repeat later, or go elsewhere."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.generate import LONGEST_RETRY_DELAY, Generate
from holdfast.calls import Meter, ModelCaller
from holdfast.contracts import ContentRef, FinishReason, Generated, GenerateInput, Limits, Usage
from holdfast.errors import LimitExceeded, Outcome, ProviderError

TEXT = ContentRef(sha256="0" * 64, size=1)
REPLY = Generated(output=TEXT, finish_reason=FinishReason.STOP, model="m", usage=Usage(), spent=Usage(), attempts=1)
SHORT = timedelta(seconds=2)
LONG = LONGEST_RETRY_DELAY + timedelta(seconds=1)


def given(*, last_resort: bool) -> GenerateInput:
    """One model call."""
    return GenerateInput(
        request_id="req_00000001",
        tenant="acme",
        deployment="sim",
        turn=1,
        question=TEXT,
        instructions=TEXT,
        limits=Limits(),
        last_resort=last_resort,
    )


class Caller:
    """Stands at the network's edge: fails as told, or waits until it is cancelled."""

    def __init__(self, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self._failure = failure
        self._hangs = hangs
        self.called = asyncio.Event()
        self.cancelled = False

    async def call(self, given: GenerateInput, meter: Meter) -> Generated:
        """Answer."""
        meter.attempt_id, meter.characters = "att_1", 42
        self.called.set()
        if self._hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if self._failure is not None:
            raise self._failure
        return REPLY


async def failure(error: Exception, *, last_resort: bool) -> ApplicationError:
    """What the engine is told."""
    step = Generate(cast(ModelCaller, Caller(error)))
    with pytest.raises(ApplicationError) as told:
        await ActivityEnvironment().run(step.generate, given(last_resort=last_resort))
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__
    return told.value


@pytest.mark.parametrize(
    ("outcome", "wait", "last_resort", "repeated"),
    [
        (Outcome.RATE_LIMITED, SHORT, True, True),
        (Outcome.RATE_LIMITED, None, True, True),
        (Outcome.RATE_LIMITED, LONG, True, False),
        (Outcome.RATE_LIMITED, LONGEST_RETRY_DELAY, True, True),
        (Outcome.RATE_LIMITED, SHORT, False, False),
        (Outcome.OVERLOADED, SHORT, False, True),
        (Outcome.OVERLOADED, LONG, True, False),
        (Outcome.NOT_SENT, None, False, True),
        (Outcome.UNKNOWN, None, False, True),
        (Outcome.BROKEN_STREAM, None, False, True),
        (Outcome.BILLING, None, True, False),
        (Outcome.AUTHENTICATION, None, True, False),
        (Outcome.CONTEXT_LENGTH, None, True, False),
        (Outcome.CONTENT_FILTER, None, True, False),
        (Outcome.INVALID_REQUEST, SHORT, True, False),
    ],
)
async def test_an_outcome_says_whether_and_when_the_call_is_repeated_here(
    outcome: Outcome, wait: timedelta | None, last_resort: bool, repeated: bool
) -> None:
    told = await failure(ProviderError("It failed.", outcome=outcome, retry_after=wait), last_resort=last_resort)
    assert told.type == outcome.value
    assert told.message == "It failed."
    assert told.non_retryable is not repeated
    assert told.next_retry_delay == (wait if repeated else None)
    assert list(told.details) == ([] if wait is None else [wait.total_seconds()]), "the workflow reads the wait there"


async def test_other_errors_are_left_to_the_interceptor() -> None:
    denied = LimitExceeded("Too dear.", limit="tokens", bound="1", needed="2")
    step = Generate(cast(ModelCaller, Caller(denied)))
    with pytest.raises(LimitExceeded):
        await ActivityEnvironment().run(step.generate, given(last_resort=True))


def beating(timeout: timedelta) -> tuple[ActivityEnvironment, asyncio.Queue[Any]]:
    """An environment with a heartbeat timeout, and its beats."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timeout)
    beats: asyncio.Queue[Any] = asyncio.Queue()
    environment.on_heartbeat = lambda *details: beats.put_nowait(details)
    return environment, beats


async def test_a_call_beats_with_what_it_has_and_ends_when_it_is_cancelled() -> None:
    caller = Caller(hangs=True)
    environment, beats = beating(timedelta(milliseconds=30))
    running = asyncio.ensure_future(
        environment.run(Generate(cast(ModelCaller, caller)).generate, given(last_resort=True))
    )
    async with asyncio.timeout(30):
        for _ in range(2):
            assert await beats.get() == ({"attempt": "att_1", "characters": 42},)
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert caller.cancelled, "the connection to the provider must be closed"


async def test_a_call_that_is_over_at_once_beats_not_at_all() -> None:
    environment, beats = beating(timedelta(seconds=30))
    assert await environment.run(Generate(cast(ModelCaller, Caller())).generate, given(last_resort=True)) == REPLY
    assert beats.empty()
