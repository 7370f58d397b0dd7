"""What both stores promise."""

import asyncio
from datetime import timedelta

import pytest

from holdfast.breaker import Cause, Verdict
from holdfast.errors import Outcome
from holdfast.health import Standing
from tests.health.conftest import KEY, Ward


async def test_a_deployment_that_fails_is_left_alone_and_then_probed_once(ward: Ward) -> None:
    await ward.open()
    refused = await ward.ask()
    assert (refused.verdict, refused.reason) == (Verdict.REFUSE, Cause.FAILURES)
    assert refused.until == ward.now + timedelta(seconds=15)
    await ward.advance(15)
    assert (await ward.ask()).verdict is Verdict.PROBE
    assert (await ward.ask()).verdict is Verdict.REFUSE
    assert (await ward.health.look([KEY]))[KEY].state is Standing.HALF_OPEN
    await ward.advance(1)
    await ward.health.record(
        KEY, Outcome.OK, first_token=timedelta(milliseconds=100), duration=timedelta(milliseconds=900)
    )
    assert (await ward.ask()).verdict is Verdict.ALLOW


async def test_of_many_that_ask_at_once_one_is_the_probe(ward: Ward) -> None:
    await ward.open()
    await ward.advance(15)
    answers = await asyncio.gather(*(ward.ask(sole=number % 2 == 0) for number in range(50)))
    assert [answer.verdict for answer in answers].count(Verdict.PROBE) == 1
    assert [answer.verdict for answer in answers].count(Verdict.REFUSE) == 49


async def test_a_probe_whose_worker_died_lapses(ward: Ward) -> None:
    await ward.open()
    await ward.advance(15)
    assert (await ward.ask()).verdict is Verdict.PROBE
    await ward.advance(60)
    assert (await ward.ask()).verdict is Verdict.PROBE
    assert (await ward.ask()).verdict is Verdict.REFUSE


async def test_a_sole_deployment_is_probed_at_once(ward: Ward) -> None:
    await ward.open()
    assert (await ward.ask()).verdict is Verdict.REFUSE
    assert (await ward.ask(sole=True)).verdict is Verdict.PROBE
    assert (await ward.ask(sole=True)).verdict is Verdict.REFUSE


async def test_a_stall_that_times_many_calls_out_at_once_opens_nothing(ward: Ward) -> None:
    for _ in range(50):
        await ward.call(Outcome.UNKNOWN, timed_out=True)
    assert (await ward.ask()).verdict is Verdict.ALLOW
    await ward.advance(10)
    await ward.call(Outcome.UNKNOWN, timed_out=True)
    assert (await ward.ask()).reason is Cause.TIMEOUTS


async def test_a_rate_limit_is_a_pause_that_everybody_sees(ward: Ward) -> None:
    await ward.call(Outcome.RATE_LIMITED, retry_after=7)
    condition = (await ward.health.look([KEY]))[KEY]
    assert (condition.state, condition.reason) == (Standing.COOLING, Cause.RATE_LIMITED)
    assert condition.until == ward.now + timedelta(seconds=7)
    assert (await ward.ask()).until == ward.now + timedelta(seconds=7)
    await ward.advance(7)
    assert (await ward.ask()).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("outcome", "cause"), [(Outcome.BILLING, Cause.BILLING), (Outcome.AUTHENTICATION, Cause.AUTHENTICATION)]
)
async def test_a_key_that_is_refused_is_left_alone(ward: Ward, outcome: Outcome, cause: Cause) -> None:
    await ward.call(outcome)
    condition = (await ward.health.look([KEY]))[KEY]
    assert (condition.state, condition.until, condition.reason) == (
        Standing.OPEN,
        ward.now + timedelta(minutes=5),
        cause,
    )


async def test_keys_fail_apart(ward: Ward) -> None:
    await ward.open()
    assert (await ward.health.admit("main:api.example:small")).verdict is Verdict.ALLOW


async def test_speed_is_measured(ward: Ward) -> None:
    for number in range(1, 101):
        await ward.call(Outcome.OK, first_token=number / 100, duration=number / 100 + 2, output_tokens=101)
    condition = (await ward.health.look([KEY]))[KEY]
    assert condition.first_token is not None
    assert timedelta(seconds=0.94) < condition.first_token < timedelta(seconds=0.98)
    # Of the last 64, 0.37 to 1.00 s.
    assert condition.first_token_p95 == timedelta(seconds=0.97)
    assert condition.tokens_per_second == pytest.approx(50)


async def test_nothing_is_known_of_a_deployment_that_was_never_called(ward: Ward) -> None:
    condition = (await ward.health.look(["unheard:of:it"]))["unheard:of:it"]
    assert condition.state is Standing.CLOSED
    assert condition.first_token is None
    assert condition.first_token_p95 is None
    assert condition.in_flight == 0


async def test_calls_in_flight_are_counted(ward: Ward) -> None:
    for _ in range(3):
        await ward.ask()
    assert (await ward.health.look([KEY]))[KEY].in_flight == 3
    await ward.health.record(KEY, Outcome.CANCELLED, first_token=None, duration=None)
    assert (await ward.health.look([KEY]))[KEY].in_flight == 2
    for _ in range(5):
        await ward.health.record(KEY, Outcome.CANCELLED, first_token=None, duration=None)
    assert (await ward.health.look([KEY]))[KEY].in_flight == 0
