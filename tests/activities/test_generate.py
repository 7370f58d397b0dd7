"""A provider's failure in the engine's terms: repeat here, repeat later, or go elsewhere."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from activities.generate import LONGEST_RETRY_DELAY, PATIENCE, Generate
from holdfast.calls import Meter, ModelCaller
from holdfast.contracts import AtLimit, ContentRef, FinishReason, Generated, GenerateInput, Limits, Usage
from holdfast.errors import BudgetExceeded, LimitExceeded, Outcome, ProviderError, Throttled

TEXT = ContentRef(sha256="0" * 64, size=1)
REPLY = Generated(output=TEXT, finish_reason=FinishReason.STOP, model="m", usage=Usage(), spent=Usage(), attempts=1)
SHORT = timedelta(seconds=2)
LONG = LONGEST_RETRY_DELAY + timedelta(seconds=1)


def given(*, last_resort: bool, tries: int = 0) -> GenerateInput:
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
        tries=tries,
    )


class Caller:
    """Stands at the network's edge: fails as told, or waits until it is cancelled."""

    def __init__(self, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self._failure = failure
        self._hangs = hangs
        self.called = asyncio.Event()
        self.cancelled = False
        self.renewed = 0

    async def renew(self, meter: Meter) -> None:
        """Keep what the call holds."""
        self.renewed += 1

    async def call(self, given: GenerateInput, meter: Meter) -> Generated:
        """Answer."""
        meter.attempt_id, meter.tokens, meter.tries = "att_1", 42, 2
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


async def failure(error: Exception, *, last_resort: bool, tries: int = 0) -> ApplicationError:
    """What the engine is told."""
    step = Generate(cast(ModelCaller, Caller(error)))
    with pytest.raises(ApplicationError) as told:
        await ActivityEnvironment().run(step.generate, given(last_resort=last_resort, tries=tries))
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
        (Outcome.OVERLOADED, PATIENCE + SHORT, False, False),
        (Outcome.OVERLOADED, PATIENCE + SHORT, True, True),
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


@pytest.mark.parametrize(("tries", "repeated"), [(0, True), (3, True), (2, False)])
async def test_a_deployment_is_given_up_after_its_tries(tries: int, repeated: bool) -> None:
    told = await failure(ProviderError("It failed.", outcome=Outcome.OVERLOADED), last_resort=False, tries=tries)
    assert told.non_retryable is not repeated


@pytest.mark.parametrize(
    ("outcome", "said", "repeated"),
    [
        (Outcome.OVERLOADED, False, False),
        (Outcome.UNKNOWN, False, False),
        (Outcome.INVALID_REQUEST, True, False),
        (Outcome.BILLING, True, False),
        (Outcome.OVERLOADED, None, True),
    ],
)
async def test_what_the_provider_says_of_a_repetition_counts(
    outcome: Outcome, said: bool | None, repeated: bool
) -> None:
    told = await failure(ProviderError("It failed.", outcome=outcome, should_retry=said), last_resort=True)
    assert told.non_retryable is not repeated


@pytest.mark.parametrize(
    ("wait", "last_resort", "here"), [(SHORT, True, True), (SHORT, False, False), (LONG, True, False)]
)
async def test_a_call_without_room_comes_back_when_it_is_its_turn(
    wait: timedelta, last_resort: bool, here: bool
) -> None:
    told = await failure(Throttled("No room.", wait=wait, by="tokens"), last_resort=last_resort)
    assert told.type == "Throttled"
    assert told.non_retryable is not here
    assert told.next_retry_delay == (wait if here else None)
    assert list(told.details) == [wait.total_seconds()]
    assert told.category is ApplicationErrorCategory.BENIGN, "waiting is no crash"


async def test_a_budgets_refusal_says_what_the_budget_wants_done() -> None:
    resets = datetime(2026, 4, 1, tzinfo=UTC)
    error = BudgetExceeded(
        "Over.", limit="tokens", bound="1", needed="2", scope="user ann", action=AtLimit.QUEUE, resets_at=resets
    )
    told = await failure(error, last_resort=True)
    assert told.type == "BudgetExceeded"
    assert told.non_retryable
    assert list(told.details) == ["queue", resets.isoformat()]


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
    async with asyncio.timeout(60):
        for _ in range(2):
            assert await beats.get() == ({"attempt": "att_1", "tokens": 42},)
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert caller.renewed, "a call under way keeps its slot"
    assert caller.cancelled, "the connection to the provider must be closed"


async def test_a_call_that_is_over_at_once_beats_not_at_all() -> None:
    environment, beats = beating(timedelta(seconds=30))
    assert await environment.run(Generate(cast(ModelCaller, Caller())).generate, given(last_resort=True)) == REPLY
    assert beats.empty()
