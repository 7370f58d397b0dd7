"""Whatever is published, superseded, cut and resumed: each character of the last attempt is seen once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.conftest import Plane, new_plane, new_request_id
from tests.relay.following import Client, failed, whole

_TEXTS = ["", "The first attempt says this.", "And the second that, at length: " + "so " * 9, "3rd"]
_STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 3), st.integers(1, 6)),
    st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 5)),
    st.tuples(st.just("pause"), st.integers(1, 3), st.just(0)),
)


@pytest.mark.parametrize(("kind", "examples"), [("memory", 400), ("redis", 150)])
def test_each_character_of_the_last_attempt_is_seen_once(kind: str, examples: int) -> None:
    with asyncio.Runner() as runner:
        planes = new_plane(kind)
        plane = runner.run(planes.__aenter__())
        try:

            @given(st.lists(_STEPS, max_size=40), st.booleans())
            @settings(max_examples=examples)
            def explore(steps: list[tuple[str, int, int]], fails: bool) -> None:
                runner.run(_example(plane, steps, fails))

            explore()
        finally:
            runner.run(planes.__aexit__(None, None, None))


async def _example(plane: Plane, steps: list[tuple[str, int, int]], fails: bool) -> None:
    request_id = new_request_id()
    clients = [Client(relay, request_id) for relay in plane.relays]
    # Each attempt has a publisher of its own, as if it were another worker.
    waiting = {attempt: whole(request_id, attempt, _TEXTS[attempt], size=attempt + 1) for attempt in (1, 2, 3)}
    if fails:
        for attempt, events in waiting.items():
            events[-1] = failed(request_id, attempt, len(_TEXTS[attempt]))
    highest = 0
    for client in clients:
        client.start()
    for what, which, amount in steps:
        if what == "publish":
            for event in waiting[which][:amount]:
                highest = max(highest, which)
                await plane.relays[which - 1].publish(event)
            del waiting[which][:amount]
        elif what == "cut":
            await clients[which].cut(forget=amount)
            clients[which].start()
        else:
            for _ in range(which):
                await asyncio.sleep(0)
    for event in waiting.get(highest, ()):
        await plane.relays[highest - 1].publish(event)
    await plane.relays[highest - 1].close(request_id)
    await asyncio.gather(*(client.finish() for client in clients))
    for client in clients:
        assert (client.attempt, client.shown) == (highest, _TEXTS[highest])
        assert client.ended == (None if not highest else "failed" if fails else "ended")
