"""Prompt caching: what is read, what is written, and that every token of a prompt is one of three kinds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.model_request import ModelRequest, Segment
from simulator.prompt_cache import PromptCache
from simulator.server import Simulator
from tests.simulator.conftest import Ask

LONG = "word " * 1500
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def openai_messages(question: str, system: str = LONG) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


async def cached(ask: Ask, **body: Any) -> int:
    """Tokens that a chat completion reports as read from the cache."""
    return int((await ask(**body)).json()["usage"]["prompt_tokens_details"]["cached_tokens"])


async def test_a_prefix_that_was_seen_is_read_from_the_cache_next_time(ask: Ask, simulator: Simulator) -> None:
    assert await cached(ask, messages=openai_messages("A?")) == 0
    assert await cached(ask, messages=openai_messages("Another one?")) == 1500 + 1 + 4
    first, second = simulator.bill()["entries"]
    assert first["cache_read_tokens"] == 0
    assert second["cache_read_tokens"] == 1505
    assert second["input_tokens"] == second["prompt_tokens"] - 1505
    totals = simulator.bill(entries=False)
    assert totals["cache_read_tokens"] == 1505
    assert totals["prompt_tokens"] == totals["input_tokens"] + 1505


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"prompt_cache_key": "k"},
        {"messages": openai_messages("A?", "another " + LONG)},
        {"tools": [{"type": "function", "function": {"name": "lookup"}}]},
    ],
)
async def test_another_model_key_or_beginning_shares_nothing(ask: Ask, other: dict[str, Any]) -> None:
    await ask(messages=openai_messages("A?"))
    assert await cached(ask, **({"messages": openai_messages("A?")} | other)) == 0


async def test_short_prefixes_are_not_kept(ask: Ask) -> None:
    short = openai_messages("A?", "word " * 900)
    await ask(messages=short)
    assert await cached(ask, messages=short) == 0


async def test_the_behaviours_own_number_wins(ask: Ask, simulator: Simulator) -> None:
    await ask(messages=openai_messages("A?"))
    usage = (await ask({"cached_tokens": 7, "cache_write_tokens": 5}, messages=openai_messages("A?"))).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 7
    assert usage["prompt_tokens_details"]["cache_write_tokens"] == 5
    entry = simulator.bill()["entries"][1]
    assert (entry["cache_read_tokens"], entry["cache_write_tokens"]) == (7, 5)
    assert entry["input_tokens"] == entry["prompt_tokens"] - 12


async def test_a_reset_empties_the_cache(ask: Ask, simulator: Simulator) -> None:
    await ask(messages=openai_messages("A?"))
    simulator.reset()
    assert await cached(ask, messages=openai_messages("A?")) == 0


def split_of(response: Any) -> tuple[int, int, int]:
    """Input, read and written tokens as a message reports them."""
    usage = response.json()["usage"]
    return usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]


async def test_a_breakpoint_is_written_once_and_read_afterwards(tell: Ask, simulator: Simulator) -> None:
    system = [{"type": "text", "text": LONG, **EPHEMERAL}]
    fresh, read, written = split_of(await tell(system=system))
    assert (read, written) == (0, 1501)
    assert fresh < 20
    assert split_of(await tell(system=system)) == (fresh, 1501, 0)
    totals = simulator.bill(entries=False)
    assert (totals["cache_read_tokens"], totals["cache_write_tokens"]) == (1501, 1501)
    assert totals["input_tokens"] == 2 * fresh


async def test_nothing_is_cached_without_a_breakpoint(tell: Ask) -> None:
    await tell(system=LONG)
    assert split_of(await tell(system=LONG))[1:] == (0, 0)


async def test_a_conversation_reads_what_its_last_turn_wrote(tell: Ask) -> None:
    def turn(*texts: str) -> list[dict[str, Any]]:
        roles = ["user", "assistant"] * len(texts)
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in zip(roles, texts, strict=False)
        ]
        messages[-1]["content"][0] |= EPHEMERAL  # type: ignore[index, operator]  # a list of blocks
        return messages

    _, read, written = split_of(await tell(messages=turn(LONG)))
    assert read == 0
    fresh, read_next, written_next = split_of(await tell(messages=turn(LONG, "Yes.", "And then?")))
    assert read_next == written
    assert 0 < written_next < 30
    assert fresh < 10


async def test_tools_come_before_the_system_prompt_in_the_prefix(tell: Ask) -> None:
    tool = {"name": "lookup", "description": LONG, "input_schema": {"type": "object"}, **EPHEMERAL}
    await tell(tools=[tool], system="One.")
    assert split_of(await tell(tools=[tool], system="Another."))[1] > 1500


async def test_the_request_may_mark_its_last_block(tell: Ask) -> None:
    await tell(messages=[{"role": "user", "content": LONG}], **EPHEMERAL)
    assert split_of(await tell(messages=[{"role": "user", "content": LONG}], **EPHEMERAL))[1] > 1500


async def test_the_lifetime_asked_for_is_reported(tell: Ask) -> None:
    for ttl, name in (("1h", "ephemeral_1h_input_tokens"), ("5m", "ephemeral_5m_input_tokens")):
        block = {"type": "text", "text": f"{ttl} {LONG}", "cache_control": {"type": "ephemeral", "ttl": ttl}}
        usage = (await tell(system=[block])).json()["usage"]
        assert usage["cache_creation"][name] == usage["cache_creation_input_tokens"] > 1500
        assert sum(usage["cache_creation"].values()) == usage["cache_creation_input_tokens"]


async def test_more_than_four_breakpoints_are_refused(tell: Ask) -> None:
    response = await tell(system=[{"type": "text", "text": "x", **EPHEMERAL}] * 5)
    assert response.status_code == 400
    assert "maximum of 4" in response.json()["error"]["message"]


segments = st.lists(
    st.builds(Segment, st.sampled_from("abc"), st.integers(0, 40), st.booleans()), min_size=1, max_size=25
)


@given(st.lists(segments, min_size=1, max_size=8), st.booleans(), st.integers(0, 60))
def test_every_token_is_of_one_kind_and_what_is_read_was_there_before(
    prompts: list[list[Segment]], charges_writes: bool, minimum: int
) -> None:
    cache = PromptCache()
    seen: set[tuple[str, ...]] = set()
    for prompt in prompts:
        total = sum(segment.tokens for segment in prompt) + 4
        split = cache.split(ModelRequest("m", [], "", tuple(prompt), total), minimum, charges_writes=charges_writes)
        assert split.total == total
        assert min(split) >= 0
        assert charges_writes or split.cache_write_tokens == 0
        prefixes = [tuple(segment.content for segment in prompt[: end + 1]) for end in range(len(prompt))]
        sizes = [sum(segment.tokens for segment in prompt[: end + 1]) for end in range(len(prompt))]
        if split.cache_read_tokens:
            assert split.cache_read_tokens >= minimum
            assert any(
                size == split.cache_read_tokens and prefix in seen for prefix, size in zip(prefixes, sizes, strict=True)
            )
        seen.update(prefix for prefix, segment in zip(prefixes, prompt, strict=True) if segment.breakpoint)
