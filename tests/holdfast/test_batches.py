"""Batches against the simulated APIs and a real ledger: each call settled once, told, and never below the bill."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.batch_results import custom_id, fate_of_missing
from holdfast.batches import MOST_SENDS, Batches
from holdfast.contracts import Answer, BatchNews, FinishReason, GenerateInput, Limits, Status, Usage
from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.ledger import AttemptKey, AttemptState, FinishedRequest, Ledger, Opened
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.prices import Price, Prices
from holdfast.providers import (
    AnthropicBatches,
    BatchLine,
    BatchPhase,
    BatchProvider,
    BatchReply,
    BatchResult,
    BatchSearch,
    BatchState,
    Completed,
    Extractive,
    HttpStream,
    OpenAIBatches,
)
from holdfast.settings import BatchSettings
from simulator.program import Profile
from simulator.server import Simulator

PRICED = Profile.read({"models": {"m": {"price": {"input": 2, "output": 6}}}})
PRICE = Price(Decimal(2), Decimal(6))
AT_ONCE = timedelta(microseconds=1)
LATER = timedelta(hours=1)


@dataclass
class Office:
    """Batches of one deployment, and the requests that hear of them."""

    ledger: Ledger
    provider: BatchProvider
    lost_after: timedelta = LATER
    lines: int = 100
    told: list[BatchNews] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)
    """Requests that cannot be told, as if the engine were away."""

    @property
    def batches(self) -> Batches:
        connected = ConnectedDeployment("bulk", Extractive(), "openai", "m", price=PRICE, batches=self.provider)
        settings = BatchSettings(lost_after=self.lost_after, lines=self.lines)
        return Batches(self.ledger, {"bulk": connected}, Preparation(self.ledger, Prices()), settings)

    async def tell(self, request_id: str, news: BatchNews) -> None:
        if request_id in self.deaf:
            raise ConnectionError(request_id)
        self.told.append(news)

    def ends(self) -> dict[str, BatchNews]:
        """How each call ended; each was told once."""
        ends = [news for news in self.told if news.sent_at is None]
        assert len({news.attempt_id for news in ends}) == len(ends)
        return {news.attempt_id: news for news in ends}

    async def enqueue(self, *request_ids: str, **changes: Any) -> None:
        for request_id in request_ids:
            question = await self.ledger.contents.put("acme", f"What is {request_id}?")
            call = GenerateInput(
                request_id=request_id,
                tenant="acme",
                deployment="bulk",
                turn=1,
                question=question,
                instructions=await self.ledger.contents.put("acme", "Answer."),
                limits=Limits(output_tokens=64),
            )
            await self.batches.enqueue(call.model_copy(update=changes))

    async def finish(self) -> None:
        """Look until no call is under way."""
        async with asyncio.timeout(60):
            while (await self.batches.collect("bulk", self.tell)).under_way:  # noqa: ASYNC110 - a poll has no event
                await asyncio.sleep(0.02)

    async def attempts(self, *request_ids: str) -> dict[str, tuple[AttemptState, Outcome | None]]:
        rows = [row for request_id in request_ids for row in await self.ledger.attempts.list(request_id)]
        return {row.attempt_id: (row.state, row.outcome) for row in rows}

    async def cost(self, *request_ids: str) -> Decimal:
        totals = [await self.ledger.attempts.totals(request_id) for request_id in request_ids]
        costs = [total.usage.cost_usd for total in totals]
        return sum((cost for cost in costs if cost is not None), Decimal(0))


@pytest.fixture(scope="module")
async def running_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7, profile=PRICED) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    running_simulator.script({"batch_ms": 30, "times": 1_000})
    return running_simulator


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


class LosesTheAnswer:
    """A provider that accepts a batch, but whose answer to that gets lost, once."""

    lost = False

    async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:
        batch_id: str = await super().submit(lines, name)  # type: ignore[misc]  # of the class it is mixed into
        if not self.lost:
            self.lost = True
            raise ProviderError("The answer got lost.", outcome=Outcome.UNKNOWN)
        return batch_id


class LosingOpenAI(LosesTheAnswer, OpenAIBatches):
    """Chat completions."""


class LosingAnthropic(LosesTheAnswer, AnthropicBatches):
    """Messages."""


Connect = Callable[[str, HttpStream], BatchProvider]
BOTH = pytest.mark.parametrize(
    "connect",
    [
        lambda url, client: OpenAIBatches(f"{url}/v1", None, client),
        lambda url, client: AnthropicBatches(url, None, client),
    ],
    ids=["openai", "anthropic"],
)
BOTH_LOSING = pytest.mark.parametrize(
    "connect",
    [
        lambda url, client: LosingOpenAI(f"{url}/v1", None, client),
        lambda url, client: LosingAnthropic(url, None, client),
    ],
    ids=["openai", "anthropic"],
)


@pytest.fixture
async def office(connect: Connect, simulator: Simulator, ledger: Ledger) -> AsyncIterator[Office]:
    client = HttpStream()
    yield Office(ledger, connect(simulator.url, client))
    await client.aclose()


def billed(simulator: Simulator) -> Decimal:
    return Decimal(str(simulator.bill()["cost_usd"]))


REQUESTS = tuple(f"req_{name:0>8}" for name in "abcdef")
ATTEMPTS = tuple(f"{request_id}.1" for request_id in REQUESTS)


@BOTH
async def test_calls_go_out_as_one_batch_and_each_is_settled_to_the_cent(office: Office, simulator: Simulator) -> None:
    await office.enqueue(*REQUESTS)
    held = await office.cost(*REQUESTS)
    stand = await office.batches.submit("bulk", office.tell)
    assert (stand.queued, stand.under_way) == (0, 6)
    assert {news.attempt_id for news in office.told if news.sent_at} == set(ATTEMPTS)
    await office.finish()
    assert set(office.ends()) == set(ATTEMPTS)
    assert set((await office.attempts(*REQUESTS)).values()) == {(AttemptState.SETTLED, Outcome.OK)}
    assert await office.cost(*REQUESTS) == billed(simulator) > 0
    assert held > billed(simulator)
    for news in office.ends().values():
        assert news.reply is not None
        assert await office.ledger.contents.get("acme", news.reply.output)
    bill = simulator.bill()["entries"]
    assert {entry["client_request_id"] for entry in bill} == {custom_id(attempt_id) for attempt_id in ATTEMPTS}


@BOTH
async def test_no_batch_is_larger_than_admitted(office: Office, simulator: Simulator) -> None:
    office.lines = 4
    await office.enqueue(*REQUESTS)
    stand = await office.batches.submit("bulk", office.tell)
    assert (stand.queued, stand.under_way) == (2, 4)
    await office.batches.submit("bulk", office.tell)
    await office.finish()
    assert len(office.ends()) == len(simulator.bill()["entries"]) == 6


@BOTH
async def test_the_hold_is_the_worst_case_at_the_batch_price(office: Office) -> None:
    await office.enqueue("req_alone000")
    (attempt,) = await office.ledger.attempts.list("req_alone000")
    full = PRICE.cost(attempt.usage)
    assert attempt.usage.cost_usd == full / 2


@BOTH
async def test_a_call_whose_request_cannot_be_told_is_told_later_and_settled_once(office: Office) -> None:
    await office.enqueue(*REQUESTS)
    await office.batches.submit("bulk", office.tell)
    office.deaf = {REQUESTS[2]}
    with pytest.raises(ConnectionError):
        await office.finish()
    spent = await office.cost(*REQUESTS)
    office.deaf, office.told = set(), []
    await office.finish()
    assert set(office.ends()) == set(ATTEMPTS), "nobody knows who has heard, so all are told again"
    assert await office.cost(*REQUESTS) == spent


@BOTH_LOSING
async def test_a_batch_whose_acceptance_got_lost_is_found_and_not_sent_again(
    office: Office, simulator: Simulator
) -> None:
    simulator.clear_script()
    simulator.script({"batch_ms": 300, "times": 6})
    await office.enqueue(*REQUESTS)
    stand = await office.batches.submit("bulk", office.tell)
    assert (stand.queued, stand.under_way) == (0, 6)
    office.lost_after = AT_ONCE
    await office.finish()
    assert len(simulator.bill()["entries"]) == 6
    assert set((await office.attempts(*REQUESTS)).values()) == {(AttemptState.SETTLED, Outcome.OK)}
    assert await office.cost(*REQUESTS) == billed(simulator)


@BOTH
async def test_a_batch_that_never_was_is_looked_for_and_then_counts_as_lost(
    office: Office, simulator: Simulator
) -> None:
    await office.enqueue(*REQUESTS)
    # The worker dies before a byte is sent. Others' batches of the same size are none of ours.
    await office.ledger.batch_lines.begin(ATTEMPTS, "sub_1", datetime.now(UTC))
    held = await office.cost(*REQUESTS)
    other = Office(office.ledger, office.provider)
    foreign = [(f"foreign-{number}", await _any_call(other)) for number in range(6)]
    batch_id = await office.provider.submit(foreign, "sub_2")
    while (await office.provider.poll(batch_id)).phase is BatchPhase.RUNNING:  # noqa: ASYNC110 - a poll has no event
        await asyncio.sleep(0.02)
    assert (await office.batches.collect("bulk", office.tell)).under_way == 6, "it may still be on its way"
    office.lost_after = AT_ONCE
    await office.finish()
    assert {news.outcome for news in office.ends().values()} == {"unknown"}
    assert all(news.again for news in office.ends().values())
    assert set((await office.attempts(*REQUESTS)).values()) == {(AttemptState.UNKNOWN, Outcome.UNKNOWN)}
    assert await office.cost(*REQUESTS) == held
    await office.enqueue(REQUESTS[0])
    assert list(await office.attempts(REQUESTS[0])) == ["req_0000000a.1", "req_0000000a.2"]


async def _any_call(office: Office) -> Any:
    prepare = Preparation(office.ledger, Prices()).prepare
    question = await office.ledger.contents.put("acme", "What?")
    given = GenerateInput(
        request_id="req_foreign0",
        tenant="acme",
        deployment="bulk",
        turn=1,
        question=question,
        instructions=question,
        limits=Limits(output_tokens=8),
    )
    return await prepare(given, ConnectedDeployment("bulk", Extractive(), "openai", "m", price=PRICE))


@BOTH
async def test_a_batch_that_the_provider_forgot_is_lost(office: Office, simulator: Simulator) -> None:
    await office.enqueue(*REQUESTS)
    await office.batches.submit("bulk", office.tell)
    simulator.reset()
    assert (await office.batches.collect("bulk", office.tell)).under_way == 6, "a provider may not know it yet"
    office.lost_after = AT_ONCE
    await office.finish()
    assert {news.outcome for news in office.ends().values()} == {"unknown"}


@BOTH
async def test_what_expired_costs_nothing_and_a_result_that_was_cut_keeps_its_worst_case(
    office: Office, simulator: Simulator
) -> None:
    simulator.clear_script()
    simulator.script({"batch_ms": 30}, {"kind": "hang"}, {"kind": "malformed_json"}, {"kind": "context_length"})
    await office.enqueue(*REQUESTS[:4])
    held = await office.cost(REQUESTS[2])
    await office.batches.submit("bulk", office.tell)
    await office.finish()
    ends = [office.ends()[attempt_id] for attempt_id in ATTEMPTS[:4]]
    assert ends[0].reply is not None
    assert [(end.outcome, end.again) for end in ends[1:3]] == [("not_sent", True), ("unknown", True)]
    assert not ends[3].again
    assert await office.cost(REQUESTS[1], REQUESTS[3]) == 0
    assert await office.cost(REQUESTS[2]) == held
    assert await office.cost(*REQUESTS[:4]) > billed(simulator)


@BOTH
async def test_a_request_that_ended_before_its_call_was_sent_is_not_sent(office: Office, simulator: Simulator) -> None:
    await office.enqueue(*REQUESTS[:2])
    await _end(office.ledger, REQUESTS[0], Status.CANCELLED)
    await office.batches.submit("bulk", office.tell)
    await office.finish()
    assert len(simulator.bill()["entries"]) == 1
    assert await office.attempts(*REQUESTS[:2]) == {
        ATTEMPTS[0]: (AttemptState.RELEASED, Outcome.NOT_SENT),
        ATTEMPTS[1]: (AttemptState.SETTLED, Outcome.OK),
    }


@BOTH
async def test_a_request_that_ended_while_its_call_was_in_a_batch_pays_for_it(
    office: Office, simulator: Simulator
) -> None:
    await office.enqueue(REQUESTS[0])
    await office.batches.submit("bulk", office.tell)
    await _end(office.ledger, REQUESTS[0], Status.EXPIRED)
    await office.finish()
    finished = await office.ledger.requests.get("acme", REQUESTS[0])
    assert finished is not None
    assert finished.answer.usage.cost_usd == billed(simulator) > 0


async def _end(ledger: Ledger, request_id: str, status: Status) -> None:
    now = datetime.now(UTC)
    await ledger.finish(
        FinishedRequest(
            tenant="acme",
            user="ada",
            agent="docs",
            plan_version="v1",
            session=None,
            tier="standard",
            answer=Answer(request_id=request_id, status=status, usage=Usage(), attempts=0),
            submitted_at=now,
            finished_at=now,
        )
    )


async def test_a_deployment_without_a_batch_api_is_named(ledger: Ledger) -> None:
    office = Office(ledger, Scripted())
    with pytest.raises(ConfigurationError, match="'other'"):
        await office.batches.submit("other", office.tell)


# --- a provider that does as told -------------------------------------------------------------------------------------


@dataclass
class Scripted(BatchProvider):
    """Takes a batch, or fails as told, and gives the results it was told."""

    refusals: list[ProviderError] = field(default_factory=list)
    refuses_all: bool = False
    results_of: dict[str, BatchResult] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    breaks_at: list[int] = field(default_factory=list)
    """After how many lines each reading of the results breaks off."""
    succeeded: int = 0
    sent: list[list[str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:
        self.sent.append([line for line, _ in lines])
        if self.refusals:
            raise self.refusals.pop(0)
        return f"batch_{len(self.sent)}"

    async def poll(self, batch_id: str) -> BatchState:
        phase = BatchPhase.REFUSED if self.refuses_all else BatchPhase.ENDED
        return BatchState(batch_id, phase, len(self.sent[-1]), self.succeeded, 0)

    async def find(self, name: str, custom_ids: Collection[str], since: datetime) -> BatchSearch:
        return BatchSearch()

    async def results(self, batch_id: str) -> AsyncGenerator[tuple[str, BatchResult], None]:
        end = self.breaks_at.pop(0) if self.breaks_at else None
        for name in self.order[:end]:
            yield name, self.results_of[name]
        if end is not None:
            raise ProviderError("The results broke off.", outcome=Outcome.UNKNOWN)

    async def cancel(self, batch_id: str) -> None:
        self.cancelled.append(batch_id)

    async def aclose(self) -> None:
        """Nothing to release."""


def reply(tokens: int) -> BatchReply:
    usage = Usage(input_tokens=10, output_tokens=tokens)
    return BatchReply("Yes." * tokens, Completed(FinishReason.STOP, "m", "resp", usage))


async def test_a_provider_that_is_busy_is_asked_again_and_then_the_requests_hear_of_it(ledger: Ledger) -> None:
    busy = ProviderError("Busy.", outcome=Outcome.RATE_LIMITED, retry_after=timedelta(minutes=2))
    office = Office(ledger, provider := Scripted(refusals=[busy] * MOST_SENDS))
    await office.enqueue(REQUESTS[0])
    for sends in range(1, MOST_SENDS):
        stand = await office.batches.submit("bulk", office.tell)
        assert (stand.queued, stand.under_way, stand.wait) == (1, 0, timedelta(minutes=2))
        assert (len(provider.sent), office.told) == (sends, [])
    stand = await office.batches.submit("bulk", office.tell)
    assert (stand.queued, stand.under_way) == (0, 0)
    assert office.ends()[ATTEMPTS[0]].outcome == "rate_limited"
    assert await office.attempts(REQUESTS[0]) == {ATTEMPTS[0]: (AttemptState.RELEASED, Outcome.RATE_LIMITED)}


@pytest.mark.parametrize("outcome", [Outcome.BILLING, Outcome.AUTHENTICATION, Outcome.INVALID_REQUEST])
async def test_what_no_repetition_mends_is_told_at_once(ledger: Ledger, outcome: Outcome) -> None:
    office = Office(ledger, provider := Scripted(refusals=[ProviderError("No.", outcome=outcome)]))
    await office.enqueue(*REQUESTS)
    await office.batches.submit("bulk", office.tell)
    assert {(news.outcome, news.again) for news in office.ends().values()} == {(outcome.value, False)}
    assert len(provider.sent) == 1
    assert await office.cost(*REQUESTS) == 0


async def test_a_batch_refused_as_malformed_costs_nothing_and_is_told(ledger: Ledger) -> None:
    office = Office(ledger, Scripted(refuses_all=True))
    await office.enqueue(*REQUESTS)
    await office.batches.submit("bulk", office.tell)
    await office.finish()
    assert {news.outcome for news in office.ends().values()} == {"invalid_request"}
    assert await office.cost(*REQUESTS) == 0


async def test_a_batch_that_was_given_up_while_it_was_sent_is_cancelled(ledger: Ledger) -> None:
    class Slow(Scripted):
        async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:
            await other.batches.collect("bulk", other.tell)
            return await super().submit(lines, name)

    office = Office(ledger, provider := Slow())
    other = Office(ledger, provider, lost_after=AT_ONCE)
    await office.enqueue(*REQUESTS)
    held = await office.cost(*REQUESTS)
    stand = await office.batches.submit("bulk", office.tell)
    assert (stand.under_way, provider.cancelled) == (0, ["batch_1"])
    assert {news.outcome for news in other.ends().values()} == {"unknown"}
    assert await office.cost(*REQUESTS) == held


async def test_a_line_that_another_process_settled_otherwise_keeps_the_first_settlement(ledger: Ledger) -> None:
    names = [custom_id(attempt_id) for attempt_id in ATTEMPTS[:2]]
    provider = Scripted(results_of=dict.fromkeys(names, reply(5)), order=names, succeeded=2)
    office = Office(ledger, provider)
    await office.enqueue(*REQUESTS[:2])
    await office.batches.submit("bulk", office.tell)
    usage = Usage(input_tokens=1, output_tokens=2, cost_usd=Decimal(1))
    await ledger.attempts.settle(
        ATTEMPTS[0], Outcome.OK, usage=usage, output="No.", finish_reason=FinishReason.STOP, model="m"
    )
    await ledger.attempts.settle(ATTEMPTS[1], Outcome.OVERLOADED)
    await office.finish()
    first, second = (office.ends()[attempt_id] for attempt_id in ATTEMPTS[:2])
    assert first.reply is not None
    assert (first.reply.usage, await ledger.contents.get("acme", first.reply.output)) == (usage, "No.")
    assert (second.outcome, second.again) == ("overloaded", True)


def test_an_attempt_id_becomes_an_id_that_providers_admit_and_stays_its_own() -> None:
    assert custom_id("req_0123456789.12") == "req_0123456789-12"
    longest = [custom_id(f"req_{'x' * 60}.{number}") for number in (1, 2)]
    assert len(set(longest)) == 2
    assert {len(name) for name in longest} == {64}


@given(total=st.integers(0, 9), succeeded=st.integers(0, 9), replies=st.integers(0, 9))
def test_a_missing_result_is_free_only_if_every_reply_is_accounted_for(
    total: int, succeeded: int, replies: int
) -> None:
    fate = fate_of_missing(BatchState("b", BatchPhase.ENDED, total, succeeded, 0), replies)
    assert (fate.outcome.billed is False) == (replies >= succeeded)
    assert fate.retryable


FATES = {
    "replied": reply(7),
    "cut": None,
    "unprocessed": None,
    "expired": ProviderError("Expired.", outcome=Outcome.NOT_SENT),
    "errored": ProviderError("Filtered.", outcome=Outcome.INVALID_REQUEST),
    "broken": ProviderError("Half.", outcome=Outcome.UNKNOWN),
}
COSTS = {"replied", "cut", "broken"}
"""Fates for which the provider may charge a whole reply."""


@settings(max_examples=60)
@given(data=st.data())
async def test_results_in_any_order_twice_broken_off_or_missing_settle_each_call_once(data: st.DataObject) -> None:
    fates = data.draw(st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=6))
    names = {custom_id(attempt_id): fate for attempt_id, fate in zip(ATTEMPTS, fates, strict=False)}
    shown: dict[str, BatchResult] = {name: found for name, fate in names.items() if (found := FATES[fate]) is not None}
    written = [*shown, *data.draw(st.lists(st.sampled_from([*shown, "foreign"]), max_size=4))]
    order = data.draw(st.permutations(written))
    provider = Scripted(
        results_of={**shown, "foreign": reply(9)},
        order=list(order),
        breaks_at=data.draw(st.lists(st.integers(0, len(order)), max_size=3)),
        # A reply that was cut counts as succeeded at the provider, and one of unknown outcome may.
        succeeded=sum(fate in ("replied", "cut") for fate in fates) + ("broken" in fates),
    )
    with TemporaryDirectory() as directory:
        ledger = await Ledger.open(f"sqlite+aiosqlite:///{directory}/holdfast.db")
        office = Office(ledger, provider)
        requests = REQUESTS[: len(fates)]
        await office.enqueue(*requests)
        await office.batches.submit("bulk", office.tell)
        for deaf in data.draw(st.lists(st.sets(st.sampled_from(requests)), max_size=3)):
            office.deaf = set(deaf)
            with contextlib.suppress(ConnectionError):
                await office.batches.collect("bulk", office.tell)
        office.deaf = set()
        await office.finish()
        heard = [news for news in office.told if news.sent_at is None]
        assert {news.attempt_id for news in heard} == set(ATTEMPTS[: len(fates)])
        for attempt_id, request_id, fate in zip(ATTEMPTS, requests, fates, strict=False):
            said = {news.model_dump_json() for news in heard if news.attempt_id == attempt_id}
            assert len(said) == 1, "whoever hears it twice hears the same"
            (attempt,) = await ledger.attempts.list(request_id)
            assert attempt.settled_at is not None
            if fate == "replied":
                assert attempt.usage == Usage(input_tokens=10, output_tokens=7, cost_usd=Decimal("0.000031"))
            elif fate in COSTS:
                assert (attempt.state, attempt.usage.total_tokens) == (AttemptState.UNKNOWN, attempt.hold_tokens)
            elif fate != "unprocessed":
                assert attempt.state is AttemptState.RELEASED
        assert await ledger.batch_lines.count("bulk") == (0, 0)
        await ledger.aclose()


async def test_an_opened_attempt_of_a_batch_is_not_taken_for_dead_by_the_same_question(ledger: Ledger) -> None:
    office = Office(ledger, Scripted())
    await office.enqueue(REQUESTS[0])
    await office.enqueue(REQUESTS[0])
    assert await office.attempts(REQUESTS[0]) == {ATTEMPTS[0]: (AttemptState.HELD, None)}
    again = await ledger.attempts.open(
        AttemptKey("acme", REQUESTS[0], 2), deployment="bulk", model="m", hold=Usage(), limits=Limits()
    )
    assert isinstance(again, Opened)
