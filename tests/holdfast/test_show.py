"""What is shown of a text while it is written is what is delivered: the text without the white space around it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from holdfast.calls import Show
from holdfast.relay import MemoryRelay

PIECES = st.lists(st.text(st.sampled_from(" \n\tab.")), max_size=8)


async def shown(pieces: list[str], *, streams: bool = True) -> str:
    """The text that a follower reads."""
    relay = MemoryRelay()
    show = Show(relay, "req_1", 1, streams=streams)
    await show.say("began")
    for piece in pieces:
        await show.text(piece)
    await show.say("ended")
    await relay.close("req_1")
    text = "".join([event.text async for event in relay.follow("req_1")])
    await relay.aclose()
    return text


@given(PIECES)
def test_a_follower_reads_the_text_without_the_white_space_around_it(pieces: list[str]) -> None:
    assert asyncio.run(shown(pieces)) == "".join(pieces).strip()


async def test_what_may_not_be_shown_is_not() -> None:
    assert await shown(["secret"], streams=False) == ""
