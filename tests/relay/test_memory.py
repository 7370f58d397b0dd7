"""The memory relay forgets what is over its bounds, and says so to who needs it."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.contracts import StreamEvent
from holdfast.errors import RelayGap
from holdfast.relay import MemoryRelay
from tests.relay.following import SOON, Client, began, ended, text, whole


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _publish(relay: MemoryRelay, events: Iterable[StreamEvent]) -> None:
    for event in events:
        await relay.publish(event)


async def _text_of(relay: MemoryRelay, request_id: str) -> str:
    async with asyncio.timeout(SOON), aclosing(relay.follow(request_id)) as stream:
        return "".join([event.text async for event in stream])


async def test_a_long_text_loses_its_start_for_who_comes_late_and_nothing_for_who_keeps_up() -> None:
    relay = MemoryRelay(max_bytes_per_request=10_000)
    early = Client(relay, "r")
    early.start()
    said = "".join(f"{number:04}" for number in range(1_000))
    *events, end = whole("r", 1, said, size=4)
    for event in events:
        await relay.publish(event)
        await asyncio.sleep(0)
        assert relay.stored_bytes <= 10_000
    late = Client(relay, "r")
    late.start()
    with pytest.raises(RelayGap, match="Characters 0 to"):
        await late.finish()
    await relay.publish(end)
    await relay.close("r")
    await early.finish()
    assert early.shown == said
    behind = Client(relay, "r")
    behind.attempt, behind.shown = 1, said[:-20]
    behind.start()
    await behind.finish()
    assert behind.shown == said


async def test_closed_requests_are_forgotten_before_running_ones_and_the_oldest_first() -> None:
    relay = MemoryRelay(max_bytes=14_000)
    await _publish(relay, whole("running", 1, "r" * 2_000, size=2_000)[:-1])
    for name in ("closed first", "closed second", "new"):
        await _publish(relay, whole(name, 1, "c" * 2_000, size=2_000))
        if name != "new":
            await relay.close(name)
    assert relay.stored_bytes <= 14_000
    await _publish(relay, [ended("running", 1, 2_000)])
    for name in ("running", "new"):
        await relay.close(name)
    assert len(await _text_of(relay, "closed second")) == 2_000
    assert len(await _text_of(relay, "running")) == 2_000
    forgotten = asyncio.create_task(_text_of(relay, "closed first"))
    await asyncio.sleep(0)
    assert not forgotten.done()
    forgotten.cancel()


async def test_of_running_requests_the_one_that_was_silent_the_longest_loses_its_text() -> None:
    relay = MemoryRelay(max_bytes=10_000)
    followed = Client(relay, "followed")
    followed.start()
    for name in ("followed", "silent", "busy"):
        await _publish(relay, whole(name, 1, "x" * 2_000, size=2_000)[:-1])
        await followed.shows("x" * 2_000, 1)
    await _publish(relay, [text("busy", 1, 2_000, "y" * 1_000)])
    assert relay.stored_bytes <= 10_000
    # Who had everything goes on, though the text is gone.
    await _publish(relay, [text("followed", 1, 2_000, "z"), ended("followed", 1, 2_001), ended("busy", 1, 3_000)])
    await relay.close("followed")
    await followed.finish()
    assert followed.shown == "x" * 2_000 + "z"
    with pytest.raises(RelayGap):
        await _text_of(relay, "followed")
    await relay.close("busy")
    assert len(await _text_of(relay, "busy")) == 3_000


async def test_a_closed_request_is_kept_for_a_while_and_then_forgotten() -> None:
    clock = Clock()
    relay = MemoryRelay(keep=timedelta(minutes=10), clock=clock)
    await _publish(relay, whole("r", 1, "kept"))
    await relay.close("r")
    clock.now = 599
    assert await _text_of(relay, "r") == "kept"
    clock.now = 600
    await relay.close("another")
    clock.now = 1_200
    await _publish(relay, [began("third", 1)])
    empty = MemoryRelay()
    await _publish(empty, [began("third", 1)])
    assert relay.stored_bytes == empty.stored_bytes


async def test_a_request_that_nobody_ends_is_forgotten_unless_somebody_follows_it() -> None:
    clock = Clock()
    relay = MemoryRelay(open_for=timedelta(days=1), clock=clock)
    followed = Client(relay, "followed")
    followed.start()
    await _publish(relay, [*whole("followed", 1, "abc")[:-1], *whole("left", 1, "abc")[:-1]])
    await followed.shows("abc", 1)
    clock.now = 86_400
    await relay.close("another")
    clock.now = 86_401
    await _publish(relay, [ended("followed", 1, 3), ended("left", 1, 3)])
    for name in ("followed", "left"):
        await relay.close(name)
    await followed.finish()
    assert await _text_of(relay, "followed") == "abc"
    with pytest.raises(RelayGap):
        await _text_of(relay, "left")


async def test_followers_of_requests_without_a_word_leave_nothing_behind() -> None:
    relay = MemoryRelay()
    clients = [Client(relay, f"r{number}") for number in range(10)]
    for client in clients:
        client.start()
    await asyncio.sleep(0)
    assert relay.stored_bytes > 0
    for client in clients:
        await client.cut()
    assert relay.stored_bytes == 0


async def test_who_comes_late_gets_large_pieces() -> None:
    relay = MemoryRelay()
    await _publish(relay, whole("r", 1, "x" * 9_000, size=3))
    await relay.close("r")
    client = Client(relay, "r")
    client.start()
    await client.finish()
    assert client.shown == "x" * 9_000
    assert client.events == 3


async def test_the_end_of_the_relay_ends_its_followers() -> None:
    relay = MemoryRelay()
    client = Client(relay, "r")
    client.start()
    await _publish(relay, whole("r", 1, "abc"))
    await client.shows("abc", 1)
    await relay.aclose()
    await client.finish()


_PUBLICATIONS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 400), st.sampled_from(["go on", "skip", "close"])),
    max_size=60,
)


@given(_PUBLICATIONS)
@settings(max_examples=300)
@example([(0, 1, 1, "go on"), (0, 1, 0, "skip")])
async def test_the_count_of_bytes_is_never_over_the_bound_and_ends_at_nothing(
    publications: list[tuple[int, int, int, str]],
) -> None:
    clock = Clock()
    relay = MemoryRelay(max_bytes_per_request=3_500, max_bytes=8_000, clock=clock)
    lengths: dict[tuple[int, int], int] = {}
    for number, attempt, length, what in publications:
        if what == "close":
            await relay.close(f"r{number}")
        else:
            offset = lengths.get((number, attempt), 0) + (7 if what == "skip" else 0)
            lengths[number, attempt] = offset + length
            await relay.publish(text(f"r{number}", attempt, offset, "x" * length))
        assert 0 <= relay.stored_bytes <= 8_000
    await relay.aclose()
    clock.now = 601
    await relay.close("another")
    clock.now = 1_300
    client = Client(relay, "last")
    client.start()
    await asyncio.sleep(0)
    await client.cut()
    assert relay.stored_bytes == 0
