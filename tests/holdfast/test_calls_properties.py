"""Whatever providers, workers and reports do: calls stay within the attempt budget, and the books cover the bill.

The real loop, caller, gate, breaker and SQLite ledger are driven without the engine. Only the provider is a double: it
does as scripted and keeps a bill of its own.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from activities.failures import application_error
from activities.generate import failure
from holdfast import loop
from holdfast.calls import Meter, ModelCaller
from holdfast.contracts import (
    ContentRef,
    Escalation,
    Fallbacks,
    FinishReason,
    Generated,
    GenerateInput,
    Limits,
    SpendScopes,
    Step,
    Usage,
    Violation,
)
from holdfast.errors import LimitExceeded, Outcome, ProviderError, Throttled
from holdfast.gate import Gate, Guarded
from holdfast.health import MemoryHealth
from holdfast.ledger import AttemptState, Ledger
from holdfast.limits import MemoryLimiter, Scope
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.prices import Price, Prices
from holdfast.providers import Completed, ModelCall, ModelEvent, TextDelta
from holdfast.relay import MemoryRelay
from holdfast.telemetry import ModelSpan
from holdfast.tokens import count_message_tokens
from workflows.causes import tick_of
from workflows.steps import ATTEMPTS_BEFORE_FALLBACK, StepFailure

PRICE = Price(Decimal(2), Decimal(6))
NAMES = ("north", "south", "east", "west")
FAR = timedelta(days=1)
MOST_STEPS = 400
"""Of one run, waits included; far more than the caps admit."""

Kind = Literal["answers", "fails", "dies", "dies_later", "is_cancelled"]

FREE = {
    *(Outcome.NOT_SENT, Outcome.RATE_LIMITED, Outcome.BILLING, Outcome.OVERLOADED),
    *(Outcome.CONTEXT_LENGTH, Outcome.INVALID_REQUEST, Outcome.AUTHENTICATION),
}
"""What a provider turns away before it generates anything, and does not bill."""
FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.OK, Outcome.CANCELLED)]


@dataclass(frozen=True)
class Deed:
    """What one call of a provider comes to."""

    kind: Kind
    outcome: Outcome = Outcome.OK
    share: int = 100
    """Percent of the most a call can use that this one is billed for, where it is billed."""
    pieces: int = 1
    """Of text, before whatever happens happens."""
    counts: bool = True
    """Whether the reply says what it used."""
    report_lost: bool = False
    """The worker dies after it has settled the reply, before anybody heard of it."""
    valid: bool = True
    confidence: float = 1.0
    finish_reason: FinishReason = FinishReason.STOP
    retry_after: timedelta | None = None
    timed_out: bool = False


deeds = st.one_of(
    st.builds(
        Deed,
        st.just("answers"),
        # A provider may count more than we held: its tokenizer is its own.
        share=st.integers(1, 130),
        pieces=st.integers(0, 3),
        report_lost=st.booleans(),
        valid=st.booleans(),
        confidence=st.sampled_from([0.2, 1.0]),
        finish_reason=st.sampled_from([FinishReason.STOP, FinishReason.REFUSAL]),
    ),
    st.builds(Deed, st.just("answers"), share=st.integers(1, 100), counts=st.just(False), report_lost=st.booleans()),
    st.builds(
        Deed,
        st.just("fails"),
        st.sampled_from(FAILURES),
        share=st.integers(0, 100),
        pieces=st.integers(0, 3),
        retry_after=st.sampled_from([None, timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=3)]),
        timed_out=st.booleans(),
    ),
    st.builds(Deed, st.sampled_from(["dies", "dies_later", "is_cancelled"]), share=st.integers(0, 100)),
)


@dataclass
class World:
    """What an observer outside of Holdfast sees: calls, the bill, and the clock."""

    script: list[Deed]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    calls: list[str] = field(default_factory=list)
    """The attempt of each call that reached a provider."""
    bill: dict[str, Usage] = field(default_factory=dict)
    """By attempt."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """A call hangs at the provider: its worker can be killed."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Workers that were taken for dead go on."""
    current: Deed = field(default_factory=lambda: Deed("answers"))

    def charge(self, call: ModelCall, share: int) -> Usage:
        """Bill a share of the most that a call can use."""
        prompt = count_message_tokens([message.content for message in call.messages])
        read, written = prompt * share // 100, call.max_output_tokens * share // 100
        cost_usd = (2 * read + 6 * written) / Decimal(1_000_000)
        self.bill[call.attempt_id] = Usage(input_tokens=read, output_tokens=written, cost_usd=cost_usd)
        return Usage(input_tokens=read, output_tokens=written, cost_usd=None)


class Scripted:
    """A provider that does as the script says."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call."""
        world = self._world
        deed = world.current = world.script.pop(0) if world.script else Deed("answers", share=50)
        world.calls.append(call.attempt_id)
        usage = None if deed.outcome in FREE else world.charge(call, deed.share)
        for _ in range(deed.pieces):
            yield TextDelta("word ")
        match deed.kind:
            case "fails":
                raise ProviderError(
                    "As scripted.", outcome=deed.outcome, retry_after=deed.retry_after, timed_out=deed.timed_out
                )
            case "dies" | "dies_later" | "is_cancelled":
                world.reached.set()
                await (world.released if deed.kind == "dies_later" else asyncio.Event()).wait()
        yield Completed(
            deed.finish_reason,
            call.model,
            usage=usage if deed.counts else None,
            confidence=deed.confidence,
        )

    async def aclose(self) -> None:
        """Nothing to release."""


@dataclass
class Rig:
    """One request on its way, as the workflow and the engine would take it there."""

    ledger: Ledger
    world: World
    limits: Limits
    request_id: str
    caller: ModelCaller
    another: ModelCaller
    """In a worker that knows nothing of the providers' health, so that nothing but the ledger holds it back."""
    question: ContentRef
    ghosts: list[asyncio.Task[Generated]] = field(default_factory=list)
    """Workers that were taken for dead."""

    async def walk(self, state: loop.LoopState) -> loop.Finish:
        """Feed the loop until it ends."""
        tick: loop.LoopTick = loop.Began()
        for _ in range(MOST_STEPS):
            state, (command,) = loop.step(state, tick)
            match command:
                case loop.Finish():
                    return command
                case loop.ChooseDeployment(candidates=names, excluded=excluded):
                    left = [name for name in names if name not in excluded]
                    tick = loop.DeploymentChosen(left[0] if left else None, "the next of the list")
                case loop.CallModel():
                    tick = await self.call(command)
                case loop.Wait(duration=duration):
                    self.world.now += duration
                    tick = loop.Waited()
                case loop.Check(output=output):
                    deed = self.world.current
                    violations = () if deed.valid else (Violation(path="", message="wrong"),)
                    tick = loop.Checked(output if deed.valid else None, violations, deed.confidence)
                case _:
                    raise AssertionError(f"Nobody asked for {command}.")
        raise AssertionError("The run does not end.")

    async def call(self, command: loop.CallModel) -> loop.LoopTick:
        """Dispatch a call as often as the engine would."""
        given = GenerateInput(
            request_id=self.request_id,
            tenant="acme",
            deployment=command.deployment,
            turn=command.turn,
            question=self.question,
            instructions=self.question,
            limits=self.limits,
            previous=command.previous,
            violations=command.violations,
            last_resort=command.last_resort,
            scopes=SpendScopes(tenant="acme", user="ada"),
            tries=self.limits.attempts if command.last_resort else ATTEMPTS_BEFORE_FALLBACK,
            streams=True,
        )
        for _ in range(MOST_STEPS):
            meter = Meter()
            try:
                reply = await self.dispatch(given, meter)
            except ProviderError as error:
                failed = failure(error, given, meter.tries)
            except Throttled as error:
                self.world.now += error.wait
                if command.last_resort:
                    continue
                failed = ApplicationError(str(error), error.wait.total_seconds(), type="Throttled", non_retryable=True)
            except LimitExceeded as error:
                failed = application_error(error)
            else:
                if reply is None:
                    continue
                await self.assert_paid_once(given, reply)
                return loop.ModelReplied(reply.output, reply.finish_reason)
            if failed.non_retryable:
                return tick_of(command.deployment, StepFailure(Step.GENERATE, failed), self.world.now, FAR)
            self.world.now += failed.next_retry_delay or timedelta(seconds=1)
        raise AssertionError("The engine dispatches for ever.")

    async def dispatch(self, given: GenerateInput, meter: Meter) -> Generated | None:
        """One worker makes one attempt. `None`: it died, or its report was lost, and the engine dispatches again."""
        self.world.reached.clear()
        worker = asyncio.ensure_future(self.caller.call(given, meter))
        killing = asyncio.ensure_future(self.world.reached.wait())
        before = len(self.world.calls)
        await asyncio.wait((worker, killing), return_when=asyncio.FIRST_COMPLETED)
        killing.cancel()
        if not worker.done():
            if self.world.current.kind == "is_cancelled":
                worker.cancel()
                await asyncio.wait((worker,))
            else:
                self.ghosts.append(worker)
            return None
        reply = worker.result()
        lost = len(self.world.calls) > before and self.world.current.report_lost
        return None if lost else reply

    async def assert_paid_once(self, given: GenerateInput, reply: Generated) -> None:
        """Whoever asks for a recorded reply again gets the same one, and nobody is called for it."""
        calls, attempts = len(self.world.calls), await self.ledger.attempts.list(self.request_id)
        again = await self.another.call(given, Meter())
        assert (again.output, again.usage) == (reply.output, reply.usage)
        assert len(self.world.calls) == calls
        assert await self.ledger.attempts.list(self.request_id) == attempts


def rig_of(ledger: Ledger, question: ContentRef, script: Sequence[Deed], limits: Limits, request_id: str) -> Rig:
    """A caller of its own for one request."""
    world = World(list(script))
    deployments = {
        name: ConnectedDeployment(
            name,
            Scripted(world),
            "openai",
            f"model-{name}",
            price=PRICE,
            guarded=Guarded(name, name, (Scope(name, requests_per_minute=1_000),)),
        )
        for name in NAMES
    }

    def caller() -> ModelCaller:
        gate = Gate(MemoryLimiter(lambda: world.now.timestamp()), MemoryHealth(clock=lambda: world.now))
        return ModelCaller(ledger, deployments, Preparation(ledger, Prices()), ModelSpan(), gate, MemoryRelay())

    return Rig(ledger, world, limits, request_id, caller(), caller(), question)


@st.composite
def states(draw: st.DrawFn, limits: Limits) -> loop.LoopState:
    """Any agent: some list of deployments, with or without fallbacks and escalation."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    spare = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
    return loop.LoopState(
        tuple(names),
        limits.repairs,
        limits.attempts,
        asks=False,
        fallbacks=Fallbacks(outage=draw(spare), context_window=draw(spare), content_policy=draw(spare)),
        escalation=draw(st.none() | st.just(Escalation(below=0.5, to=("west", "east")))),
    )


def test_no_outcomes_lead_past_the_attempt_budget_or_to_a_bill_that_is_not_on_record(tmp_path: Path) -> None:
    numbers = itertools.count(1)
    with asyncio.Runner() as runner:
        ledger = runner.run(Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"))
        question = runner.run(ledger.contents.put("acme", "What holds?"))

        @settings(max_examples=300)
        @given(st.data(), st.lists(deeds, max_size=12), st.integers(1, 8), st.sampled_from([2_000, 50_000]))
        def hold(data: st.DataObject, script: list[Deed], attempts: int, tokens: int) -> None:
            limits = Limits(attempts=attempts, repairs=2, tokens=tokens, output_tokens=500)
            state = data.draw(states(limits))
            runner.run(_walk(ledger, question, script, limits, state, f"req_{next(numbers):08}"))

        hold()
        runner.run(ledger.aclose())


async def _walk(
    ledger: Ledger,
    question: ContentRef,
    script: Sequence[Deed],
    limits: Limits,
    state: loop.LoopState,
    request_id: str,
) -> None:
    rig = rig_of(ledger, question, script, limits, request_id)
    await rig.walk(state)
    await assert_the_books_cover_the_bill(rig)
    rig.world.released.set()
    _, dead = await asyncio.wait(rig.ghosts, timeout=0.05) if rig.ghosts else ((), ())
    for ghost in dead:
        ghost.cancel()
    await asyncio.gather(*rig.ghosts, return_exceptions=True)
    # Those who came back from the dead have booked what they know.
    await assert_the_books_cover_the_bill(rig)


async def assert_the_books_cover_the_bill(rig: Rig) -> None:
    """Call by call, in tokens and in money, and no call without its attempt."""
    calls, bill = rig.world.calls, rig.world.bill
    recorded = {attempt.attempt_id: attempt for attempt in await rig.ledger.attempts.list(rig.request_id)}
    assert len(recorded) <= rig.limits.attempts
    assert sorted(calls) == sorted(set(calls) & set(recorded)), "each call has an attempt of its own"
    for attempt_id, billed in bill.items():
        booked = recorded[attempt_id].usage
        assert booked.total_tokens >= billed.total_tokens
        assert booked.cost_usd is not None
        assert billed.cost_usd is not None
        assert booked.cost_usd >= billed.cost_usd
        if recorded[attempt_id].state is AttemptState.SETTLED and recorded[attempt_id].output and booked != billed:
            assert booked.total_tokens == recorded[attempt_id].hold_tokens, "what nobody counted counts as the most"
