"""What the relay through Redis adds: processes, bounds in Redis, and a Redis that goes away."""

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.contracts import StreamEvent
from holdfast.errors import RelayGap
from holdfast.relay import RedisRelay
from tests.relay.conftest import RedisPlace
from tests.relay.following import SOON, Client, began, ended, text, whole
from tests.relay.redis_server import RedisServer, until

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def _relay(url: str, prefix: str = "relay:", **options: Any) -> AsyncIterator[RedisRelay]:
    relay = RedisRelay(url, prefix, **options)
    try:
        yield relay
    finally:
        await relay.aclose()


@asynccontextmanager
async def _server(directory: Path, *, durable: bool) -> AsyncIterator[RedisServer]:
    server = RedisServer(directory, durable=durable)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def _publish(relay: RedisRelay, events: Iterable[StreamEvent]) -> None:
    for event in events:
        await relay.publish(event)


async def _in_redis(relay: RedisRelay, request_id: str, said: str, attempt: int = 1) -> None:
    """Wait until Redis has the text, as a client sees it."""
    client = Client(relay, request_id)
    client.start()
    await client.shows(said, attempt)
    await client.cut()


class Worker:
    """The process of `worker.py`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, place: RedisPlace, request_id: str, attempt: int, said: str) -> "Worker":
        arguments = (place.url, place.prefix, request_id, str(attempt), said)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.relay.worker", *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE
        )
        return cls(process)

    async def do(self, *commands: str) -> None:
        """Have it publish, and wait until Redis has it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for command in commands:
            self.process.stdin.write(f"{command}\n".encode())
            assert await asyncio.wait_for(self.process.stdout.readline(), SOON) == b"ok\n"

    async def kill(self) -> None:
        """End it without a last word."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


async def test_a_late_worker_cannot_add_to_a_stream_that_another_has_taken_over(
    place: RedisPlace, request_id: str
) -> None:
    old = await Worker.start(place, request_id, 1, "what the old worker says")
    new = await Worker.start(place, request_id, 2, "what the new one says")
    try:
        async with _relay(place.url, place.prefix) as relay:
            client = Client(relay, request_id)
            client.start()
            await old.do("begin", "8")
            await client.shows("what the", 1)
            await new.do("begin", "5")
            await old.do("6", "end")
            await client.cut(forget=2)
            client.start()
            await new.do("3")
            await client.shows("what the", 2)
            await old.do("begin", "5", "end")
            await new.do("13", "end", "close")
            await client.finish()
            assert client.shown == "what the new one says"
            late = Client(relay, request_id)
            late.start()
            await late.finish()
            assert (late.attempt, late.shown) == (2, "what the new one says")
    finally:
        await old.kill()
        await new.kill()


async def test_a_worker_killed_in_the_middle_leaves_no_text_behind(place: RedisPlace, request_id: str) -> None:
    first = await Worker.start(place, request_id, 1, "half of a")
    await first.do("begin", "7")
    await first.kill()
    second = await Worker.start(place, request_id, 2, "whole")
    try:
        async with _relay(place.url, place.prefix) as relay:
            client = Client(relay, request_id)
            client.start()
            await client.shows("half of", 1)
            await second.do("begin", "5", "end", "close")
            await client.finish()
            assert (client.attempt, client.shown, client.ended) == (2, "whole", "ended")
    finally:
        await second.kill()


async def test_redis_keeps_a_stream_for_a_time(place: RedisPlace, request_id: str) -> None:
    keep, open_for = timedelta(minutes=3), timedelta(hours=5)
    async with _relay(place.url, place.prefix, keep=keep, open_for=open_for) as relay:
        await _publish(relay, whole(request_id, 1, "abc"))
        await _in_redis(relay, request_id, "abc")
        assert 4 * 3_600_000 < await place.client.pttl(place.prefix + request_id) <= 5 * 3_600_000
        await relay.close(request_id)
        assert 2 * 60_000 < await place.client.pttl(place.prefix + request_id) <= 3 * 60_000


async def test_a_long_text_loses_its_start_for_who_comes_late_and_nothing_for_who_keeps_up(
    place: RedisPlace, request_id: str
) -> None:
    said = "".join(f"{number:04}" for number in range(500))
    async with _relay(place.url, place.prefix, max_characters_per_request=300) as relay:
        early = Client(relay, request_id)
        early.start()
        *events, end = whole(request_id, 1, said, size=20)
        for event in events:
            await relay.publish(event)
            await early.shows(said[: event.end], 1)
        assert 100 <= 20 * await place.client.xlen(place.prefix + request_id) <= 300
        late = Client(relay, request_id)
        late.start()
        with pytest.raises(RelayGap, match="Characters 0 to"):
            await late.finish()
        await relay.publish(end)
        await relay.close(request_id)
        await early.finish()
        assert early.shown == said


async def test_what_is_published_at_once_is_stored_as_one(place: RedisPlace, request_id: str) -> None:
    async with _relay(place.url, place.prefix) as relay:
        await _publish(relay, whole(request_id, 1, "x" * 3_000, size=1))
        await relay.close(request_id)
        assert await place.client.xlen(place.prefix + request_id) == 4


async def test_who_comes_late_reads_a_stream_of_many_entries(place: RedisPlace, request_id: str) -> None:
    said = "".join(f"{number:03}" for number in range(450))
    async with _relay(place.url, place.prefix) as relay:
        early = Client(relay, request_id)
        early.start()
        for event in whole(request_id, 1, said):
            await relay.publish(event)
            await early.shows(said[: event.end], 1)
        await relay.close(request_id)
        late = Client(relay, request_id)
        late.start()
        await late.finish()
        assert (late.shown, late.ended) == (said, "ended")


async def test_a_follower_much_slower_than_the_stream_loses_nothing(place: RedisPlace, request_id: str) -> None:
    async with _relay(place.url, place.prefix) as writer, _relay(place.url, place.prefix) as reader:
        await writer.publish(began(request_id, 1))
        async with asyncio.timeout(SOON), aclosing(reader.follow(request_id)) as stream:
            assert await anext(stream) == began(request_id, 1)
            # Much more than an inbox holds, all of it heard here, while the follower takes none.
            said = "".join(f"{number:05}" for number in range(80_000))
            quick = Client(reader, request_id)
            quick.start()
            for event in whole(request_id, 1, said, size=5_000)[1:]:
                await writer.publish(event)
                await quick.shows(said[: event.end], 1)
            await writer.close(request_id)
            shown = ""
            async for event in stream:
                assert event.offset == len(shown)
                shown += event.text
            assert shown == said


async def test_a_thousand_followers_take_ten_connections(tmp_path: Path) -> None:
    async with _server(tmp_path, durable=False) as server, _relay(server.url) as relay:
        clients = [Client(relay, f"r{number}") for number in range(1_000)]
        for client in clients:
            client.start()
            await _publish(relay, whole(client.request_id, 1, "said")[:-1])
        await asyncio.gather(*(client.shows("said", 1) for client in clients))
        async with _relay(server.url) as other:
            assert (await other._reader.info("clients"))["connected_clients"] <= 10 + 1
            for client in clients[1:]:
                await client.cut()

            async def one_is_left() -> bool:
                return len(await other._reader.pubsub_channels("relay:*")) == 1

            await until(one_is_left)
        await relay.publish(ended("r0", 1, 4))
        await relay.close("r0")
        await clients[0].finish()


async def test_a_redis_that_is_killed_and_comes_back_with_its_data_costs_no_character(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.relay")
    async with _server(tmp_path, durable=True) as server, _relay(server.url) as writer, _relay(server.url) as reader:
        client = Client(reader, "r")
        client.start()
        *events, end = whole("r", 1, "before, while it is away, after", size=1)
        await _publish(writer, events[:8])
        await client.shows("before,", 1)
        await server.kill()
        await _publish(writer, events[8:25])

        async def noticed() -> bool:
            return bool(caplog.records)

        await until(noticed)
        await server.start()
        await client.shows("before, while it is away", 1)
        await _publish(writer, [*events[25:], end])
        await writer.close("r")
        await client.finish()
        assert client.shown == "before, while it is away, after"
        late = Client(reader, "r")
        late.start()
        await late.finish()
        assert late.shown == client.shown
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_redis_that_comes_back_empty_is_a_gap_only_to_who_needs_what_it_lost(tmp_path: Path) -> None:
    async with _server(tmp_path, durable=False) as server, _relay(server.url) as relay:
        client = Client(relay, "r")
        client.start()
        *events, end = whole("r", 1, "lost and kept", size=4)
        await _publish(relay, events[:2])
        await client.shows("lost", 1)
        await server.kill()
        await server.start()
        await _publish(relay, [*events[2:], end])
        await client.shows("lost and kept", 1)
        late = Client(relay, "r")
        late.start()
        with pytest.raises(RelayGap, match="Characters 0 to 4"):
            await late.finish()
        await relay.close("r")
        await client.finish()


async def test_what_does_not_fit_while_redis_is_away_is_dropped_and_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _server(tmp_path, durable=True) as server, _relay(server.url, max_pending_bytes=20_000) as relay:
        client = Client(relay, "r")
        client.start()
        *events, end = whole("r", 1, "x" * 5_000, size=5)
        await _publish(relay, events[:2])
        await client.shows("x" * 5, 1)
        await server.kill()
        await _publish(relay, events[2:])
        assert relay._writer._bytes <= 20_000
        await server.start()
        await relay.publish(end)
        with pytest.raises(RelayGap, match="Characters 5 to"):
            await client.finish()
        await _publish(relay, whole("r", 2, "a new attempt is whole"))
        await relay.close("r")
        again = Client(relay, "r")
        again.start()
        await again.finish()
        assert again.shown == "a new attempt is whole"
    dropped = [record for record in caplog.records if "dropped" in record.message]
    assert [record.levelname for record in dropped] == ["WARNING"]
    assert "xxx" not in caplog.text


async def test_a_follower_of_a_redis_that_stays_away_is_told(tmp_path: Path) -> None:
    patience = timedelta(seconds=3)
    async with _server(tmp_path, durable=False) as server, _relay(server.url, patience=patience) as relay:
        live, late = Client(relay, "r"), Client(relay, "r")
        live.start()
        await _publish(relay, whole("r", 1, "abc"))
        await live.shows("abc", 1)
        await server.kill()
        late.start()
        for client in (live, late):
            with pytest.raises(RelayGap, match="Redis has not answered"):
                await client.finish()


async def test_without_redis_nothing_fails_but_the_followers(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, durable=False)
    relay = RedisRelay(server.url, patience=timedelta(milliseconds=50))
    await _publish(relay, whole("r", 1, "nobody hears this"))
    client = Client(relay, "r")
    client.start()
    with pytest.raises(RelayGap):
        await client.finish()
    await relay.close("r")
    await relay.aclose()


async def test_a_script_that_redis_forgot_is_given_to_it_again(tmp_path: Path) -> None:
    async with _server(tmp_path, durable=False) as server, _relay(server.url) as relay:
        *events, end = whole("r", 1, "abc")
        await _publish(relay, events)
        await _in_redis(relay, "r", "abc")
        await relay._reader.script_flush()
        await relay.publish(end)
        await relay.close("r")
        client = Client(relay, "r")
        client.start()
        await client.finish()
        assert (client.shown, client.ended) == ("abc", "ended")


async def test_a_full_redis_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _server(tmp_path, durable=False) as server, _relay(server.url) as relay:
        await relay._reader.config_set("maxmemory", "1")
        await _publish(relay, whole("r", 1, "abc"))
        client = Client(relay, "r")
        client.start()

        async def refused() -> bool:
            return "OutOfMemoryError" in caplog.text

        await until(refused)
        await relay._reader.config_set("maxmemory", "0")
        await relay.close("r")
        await client.finish()
        assert client.shown == "abc"


async def test_a_key_that_is_no_stream_stops_only_its_own_request(
    place: RedisPlace, request_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    await place.client.set(place.prefix + request_id, "taken")
    async with _relay(place.url, place.prefix) as relay:
        await _publish(relay, [began(request_id, 1), text(request_id, 1, 0, "secret")])
        await _publish(relay, whole(f"{request_id}b", 1, "fine"))
        await _in_redis(relay, f"{request_id}b", "fine")
    assert "WRONGTYPE" in caplog.text
    assert "secret" not in caplog.text
