"""A batch whose acceptance got lost is found again, and another one is never taken for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from holdfast.errors import ProviderError
from holdfast.providers import (
    AnthropicBatches,
    BatchPhase,
    BatchProvider,
    BatchSearch,
    HttpStream,
    OpenAIBatches,
)
from holdfast.providers.batch_api import CLOCKS_APART
from simulator.server import Simulator
from tests.providers.wire import KEY, model_call

Connect = Callable[[str, HttpStream], BatchProvider]


def openai(url: str, client: HttpStream) -> BatchProvider:
    return OpenAIBatches(f"{url}/v1", KEY, client)


def anthropic(url: str, client: HttpStream) -> BatchProvider:
    return AnthropicBatches(url, KEY, client)


BOTH = pytest.mark.parametrize("connect", [openai, anthropic])
SINCE = datetime(2026, 11, 21, 12, tzinfo=UTC)
LINES = [("att_1", model_call()), ("att_2", model_call())]
IDS = {"att_1", "att_2"}


@pytest.fixture(scope="module")
async def running_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    return running_simulator


async def ended(provider: BatchProvider, batch_id: str) -> str:
    async with asyncio.timeout(60):
        while (await provider.poll(batch_id)).phase is BatchPhase.RUNNING:  # noqa: ASYNC110 - a poll has no event
            await asyncio.sleep(0.02)
    return batch_id


@BOTH
async def test_a_batch_is_found_among_others_of_its_size(simulator: Simulator, connect: Connect) -> None:
    simulator.script({"batch_ms": 10, "times": 9})
    client = HttpStream()
    provider = connect(simulator.url, client)
    others = [("att_3", model_call()), ("att_4", model_call())]
    await ended(provider, await provider.submit(others, "other"))
    ours = await ended(provider, await provider.submit(LINES, "ours"))
    await ended(provider, await provider.submit(others, "later"))
    assert await provider.find("ours", IDS, datetime.now(UTC)) == BatchSearch(ours)
    assert await provider.find("never", {"att_5", "att_6"}, datetime.now(UTC)) == BatchSearch()
    await client.aclose()


async def test_a_running_batch_is_known_by_its_metadata_and_otherwise_undecided(simulator: Simulator) -> None:
    simulator.script({"batch_ms": 60_000, "times": 9})
    client = HttpStream()
    named, nameless = openai(simulator.url, client), anthropic(simulator.url, client)
    batch_id = await named.submit(LINES, "ours")
    assert await named.find("ours", IDS, datetime.now(UTC)) == BatchSearch(batch_id)
    await nameless.submit(LINES, "ours")
    assert await nameless.find("ours", IDS, datetime.now(UTC)) == BatchSearch(undecided=True)
    assert await nameless.find("ours", {"att_1"}, datetime.now(UTC)) == BatchSearch(), "of another size"
    await client.aclose()


def pages(made: Callable[[int], dict[str, object]], cursor: str) -> tuple[list[str], HttpStream]:
    """A server that lists endless batches, three to a page, each an hour older than the one before."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get(cursor, "b_-1")
        asked.append(after)
        first = int(after.removeprefix("b_")) + 1
        data = [{"id": f"b_{number}", **made(number)} for number in range(first, first + 3)]
        return httpx.Response(200, json={"data": data, "has_more": True})

    return asked, HttpStream(transport=httpx.MockTransport(handler))


def openai_batch(number: int) -> dict[str, object]:
    created = int((SINCE - timedelta(hours=number)).timestamp())
    return {"status": "completed", "created_at": created, "metadata": {"holdfast_submission": f"sub_{number}"}}


def anthropic_batch(number: int) -> dict[str, object]:
    created = (SINCE - timedelta(hours=number)).isoformat().replace("+00:00", "Z")
    return {"processing_status": "in_progress", "created_at": created, "request_counts": {"processing": number}}


async def test_older_pages_are_read_back_to_the_moment_of_sending() -> None:
    asked, client = pages(openai_batch, "after")
    provider = openai("http://h", client)
    assert await provider.find("sub_4", IDS, SINCE - timedelta(hours=9)) == BatchSearch("b_4")
    assert asked == ["b_-1", "b_2"]
    asked.clear()
    assert await provider.find("sub_20", IDS, SINCE - timedelta(hours=9)) == BatchSearch()
    assert asked == ["b_-1", "b_2", "b_5", "b_8"]
    await client.aclose()


async def test_a_batch_made_before_ours_was_sent_is_not_ours() -> None:
    for number, found in ((2, BatchSearch(undecided=True)), (3, BatchSearch())):
        _, client = pages(anthropic_batch, "after_id")
        ids = {f"att_{position}" for position in range(number)}
        since = SINCE - timedelta(hours=3) + CLOCKS_APART + timedelta(seconds=1)
        assert await anthropic("http://h", client).find("ours", ids, since) == found
        await client.aclose()


@BOTH
async def test_a_list_that_cannot_be_read_is_no_answer(connect: Connect) -> None:
    client = HttpStream(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    with pytest.raises(ProviderError):
        await connect("http://h", client).find("ours", IDS, SINCE)
    await client.aclose()
    client = HttpStream(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"data": 3, "has_more": 1})))
    assert await connect("http://h", client).find("ours", IDS, SINCE) == BatchSearch()
    await client.aclose()
