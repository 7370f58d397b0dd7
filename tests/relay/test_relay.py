"""What every relay promises, in memory and through Redis."""

import asyncio
from contextlib import aclosing

import pytest

from holdfast.contracts import StreamEvent
from holdfast.errors import RelayGap
from holdfast.relay import Relay
from tests.relay.conftest import Plane, new_request_id
from tests.relay.following import SOON, Client, began, ended, failed, text, whole


async def _all_of(relay: Relay, request_id: str, *, attempt: int = 0, offset: int = 0) -> list[StreamEvent]:
    async with asyncio.timeout(SOON), aclosing(relay.follow(request_id, attempt=attempt, offset=offset)) as stream:
        return [event async for event in stream]


async def _finished(relay: Relay, events: list[StreamEvent]) -> None:
    for event in events:
        await relay.publish(event)
    await relay.close(events[0].request_id)


async def test_a_follower_that_came_first_sees_what_is_published(relay: Relay, request_id: str) -> None:
    client = Client(relay, request_id)
    client.start()
    await relay.publish(began(client.request_id, 1))
    await client.shows("", 1)
    await relay.publish(text(client.request_id, 1, 0, "live"))
    await client.shows("live", 1)
    await relay.publish(ended(client.request_id, 1, 4))
    await relay.close(client.request_id)
    await client.finish()
    assert client.ended == "ended"


async def test_a_follower_that_comes_late_sees_all_that_is_stored(relay: Relay, request_id: str) -> None:
    await _finished(relay, whole(request_id, 1, "said before"))
    events = await _all_of(relay, request_id)
    assert events[0] == began(request_id, 1)
    assert events[-1] == ended(request_id, 1, 11)
    assert "".join(event.text for event in events) == "said before"


@pytest.mark.parametrize("offset", range(7))
async def test_a_follower_goes_on_inside_an_event(relay: Relay, request_id: str, offset: int) -> None:
    await _finished(relay, whole(request_id, 1, "abcdef", size=3))
    *texts, end = await _all_of(relay, request_id, attempt=1, offset=offset)
    assert "".join(event.text for event in texts) == "abcdef"[offset:]
    assert [event.kind for event in texts] == ["text"] * len(texts)
    assert not texts or texts[0].offset == offset
    assert end == ended(request_id, 1, 6)


async def test_a_newer_attempt_voids_the_text_of_the_older(relay: Relay, request_id: str) -> None:
    client = Client(relay, request_id)
    client.start()
    for event in [*whole(client.request_id, 1, "first try")[:-1], failed(client.request_id, 1, 9)]:
        await relay.publish(event)
    await client.shows("first try", 1)
    await relay.publish(began(client.request_id, 2))
    await relay.publish(text(client.request_id, 1, 9, "a late word"))
    await relay.publish(text(client.request_id, 2, 0, "second"))
    await relay.publish(ended(client.request_id, 1, 20))
    await client.shows("second", 2)
    await relay.publish(ended(client.request_id, 2, 6))
    await relay.close(client.request_id)
    await client.finish()
    assert client.ended == "ended"


async def test_who_follows_an_old_attempt_is_told_that_a_new_one_began(relay: Relay, request_id: str) -> None:
    await _finished(relay, [*whole(request_id, 1, "first"), *whole(request_id, 3, "third", size=5)])
    assert await _all_of(relay, request_id, attempt=1, offset=4) == whole(request_id, 3, "third", size=5)


async def test_a_published_event_that_comes_twice_is_one(relay: Relay, request_id: str) -> None:
    events = whole(request_id, 1, "once")
    await _finished(relay, [events[0], events[0], events[1], events[1], events[0], *events[1:], events[-1]])
    assert "".join(event.text for event in await _all_of(relay, request_id)) == "once"


async def test_pieces_that_overlap_give_each_character_once(relay: Relay, request_id: str) -> None:
    await _finished(
        relay,
        [began(request_id, 1), text(request_id, 1, 0, "abcd"), text(request_id, 1, 2, "cdef"), ended(request_id, 1, 6)],
    )
    assert "".join(event.text for event in await _all_of(relay, request_id)) == "abcdef"


async def test_nothing_is_added_to_an_attempt_that_ended(relay: Relay, request_id: str) -> None:
    await _finished(relay, [*whole(request_id, 1, "done"), text(request_id, 1, 4, " and more")])
    assert "".join(event.text for event in await _all_of(relay, request_id)) == "done"


async def test_nothing_is_added_to_a_closed_request(relay: Relay, request_id: str) -> None:
    await _finished(relay, whole(request_id, 1, "done"))
    await _finished(relay, whole(request_id, 2, "a zombie's"))
    assert "".join(event.text for event in await _all_of(relay, request_id)) == "done"


async def test_text_that_was_never_published_is_a_gap(relay: Relay, request_id: str) -> None:
    live = asyncio.create_task(_all_of(relay, request_id))
    await _finished(
        relay,
        [began(request_id, 1), text(request_id, 1, 0, "ab"), text(request_id, 1, 5, "fg"), ended(request_id, 1, 7)],
    )
    for followed in (live, _all_of(relay, request_id), _all_of(relay, request_id, attempt=1, offset=2)):
        with pytest.raises(RelayGap, match=r"Characters [02] to 5 of attempt 1"):
            await followed
    assert "".join(event.text for event in await _all_of(relay, request_id, attempt=1, offset=5)) == "fg"


async def test_an_end_beyond_the_text_is_a_gap(relay: Relay, request_id: str) -> None:
    await _finished(relay, [began(request_id, 1), text(request_id, 1, 0, "ab"), ended(request_id, 1, 7)])
    with pytest.raises(RelayGap):
        await _all_of(relay, request_id)


async def test_a_close_in_the_middle_of_an_attempt_is_a_gap(relay: Relay, request_id: str) -> None:
    await _finished(relay, [began(request_id, 1), text(request_id, 1, 0, "half a")])
    with pytest.raises(RelayGap, match="closed in the middle of attempt 1"):
        await _all_of(relay, request_id)


async def test_a_request_that_is_closed_without_a_word_ends_its_followers(relay: Relay, request_id: str) -> None:
    early = asyncio.create_task(_all_of(relay, request_id))
    await asyncio.sleep(0)
    await relay.close(request_id)
    assert await early == []
    assert await _all_of(relay, request_id) == []


@pytest.mark.parametrize(("attempt", "offset"), [(1, 3), (9, 0), (10**30, 0), (1, 10**30)])
async def test_a_position_that_does_not_exist_waits_and_is_a_gap_at_the_close(
    relay: Relay, request_id: str, attempt: int, offset: int
) -> None:
    await _finished(relay, whole(request_id, 1, "ab"))
    with pytest.raises(RelayGap):
        await _all_of(relay, request_id, attempt=attempt, offset=offset)


async def test_any_characters_travel_whole(relay: Relay, request_id: str) -> None:
    said = "a:b\r\n\0 é 𝄞 \ud83d\ude00 \ud800 0:1:t"
    await _finished(relay, whole(request_id, 1, said, size=1))
    assert "".join(event.text for event in await _all_of(relay, request_id)) == said


async def test_a_thousand_followers_each_see_everything(plane: Plane) -> None:
    publisher, follower, _ = plane.relays
    clients = [Client(follower, request_id) for request_id in [new_request_id() for _ in range(500)] for _ in range(2)]
    for client in clients:
        client.start()
    for step in range(6):
        for client in clients[::2]:
            await publisher.publish(whole(client.request_id, 1, "all of it", size=2)[step])
        await asyncio.sleep(0)
    for client in clients[::2]:
        await publisher.publish(ended(client.request_id, 1, 9))
    await asyncio.gather(*(publisher.close(client.request_id) for client in clients[::2]))
    await asyncio.gather(*(client.finish() for client in clients))
    assert {(client.shown, client.ended) for client in clients} == {("all of it", "ended")}
