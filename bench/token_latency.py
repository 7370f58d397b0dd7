"""What Holdfast adds to each streamed token, at the client, with a hundred streams open.

The model writes the moment of sending into every token; the client, another process, looks at its clock when it has
read it. The same client reads the model directly before, which is what client and kernel cost by themselves. Requests
that begin and end cost far more than tokens, so the tokens that were sent while all streams were open are told apart.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, NamedTuple

from bench.clockwork import TOKEN
from bench.figures import spread_ms
from bench.stack import PROMPT, client, cpu_seconds, running, start
from bench.wrapper import ask

RATES = (10, 25, 50)
"""Tokens a second of each stream. Large models write 20 to 100."""

_MODELS = """
[deployments.clock]
provider = "openai"
model = "clock"
base_url = "%s/v1"
price = { input = "0", output = "0" }
"""


class Token(NamedTuple):
    """One token as its reader saw it."""

    sent_ns: int
    """When the model sent it, since 1970."""
    seconds: float
    """How long it was on its way."""


async def token_latency(*, streams: int = 100, seconds: float = 10) -> dict[str, Any]:
    """Streams of `seconds` each, all open at the same time, at several rates."""
    return {
        "streams": streams,
        "seconds": seconds,
        "runs": [await _at_rate(rate, streams, seconds) for rate in RATES],
        "target_added_p95_ms": 5,
    }


async def _at_rate(rate: float, streams: int, seconds: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        # Starting a hundred requests takes a few seconds; the first token waits until all are there.
        silence = 2 + streams / 15
        model, url = await start(
            stack,
            "bench.clockwork",
            f"--first-token-s={silence}",
            f"--token-s={1 / rate}",
            f"--tokens={round(rate * seconds)}",
            environment={},
        )
        agent = 'deployments = ["clock"]\nprompt = "plain.md"\nrecall = false\n'
        holdfast = await stack.enter_async_context(running(models=_MODELS % url, agents={"clock": agent}))
        http = await stack.enter_async_context(client())
        pids = holdfast.pids | {"model": model.pid}
        direct = await _read_all(lambda n: ask(http, f"{url}/v1", "clock", f"{n}", system=PROMPT), streams, pids)
        through = await _read_all(lambda n: ask(http, f"{holdfast.gateway}/v1", "clock", f"{n}"), streams, pids)
    return {
        "tokens_per_second_and_stream": rate,
        "tokens_per_second": rate * streams,
        "direct": direct,
        "holdfast": through,
        "added_p95_ms": _added(direct["while_all_are_open_ms"], through["while_all_are_open_ms"]),
        "added_p95_ms_with_starts_and_ends": _added(direct["on_the_way_ms"], through["on_the_way_ms"]),
    }


def _added(direct: Mapping[str, float], through: Mapping[str, float]) -> float | None:
    """`None` when nothing was read while all streams were open."""
    return round(through["p95"] - direct["p95"], 1) if direct and through else None


async def _read_all(
    how: Callable[[int], AsyncGenerator[str, None]], streams: int, pids: Mapping[str, int]
) -> dict[str, Any]:
    before, own = {role: cpu_seconds(pid) for role, pid in pids.items()}, time.process_time()
    started = time.perf_counter()
    read = await asyncio.gather(*(_tokens(how(number), number / streams) for number in range(streams)))
    elapsed = time.perf_counter() - started
    used = {role: cpu_seconds(pid) - before[role] for role, pid in pids.items()} | {"client": time.process_time() - own}
    return {
        "while_all_are_open_ms": spread_ms(while_all_are_open(read)),
        "on_the_way_ms": spread_ms([token.seconds for one in read for token in one]),
        "tokens": sum(len(one) for one in read),
        "processors_used": {role: round(seconds / elapsed, 2) for role, seconds in used.items()},
    }


def while_all_are_open(read: Sequence[Sequence[Token]]) -> list[float]:
    """Delays of the tokens that were sent while no stream had still to begin and none had ended."""
    if not all(read):
        return []
    begun = max(one[0].sent_ns for one in read)
    ended = min(one[-1].sent_ns for one in read)
    return [token.seconds for one in read for token in one if begun <= token.sent_ns <= ended]


async def _tokens(answer: AsyncGenerator[str, None], start: float) -> list[Token]:
    """The tokens of a stream that begins after `start` seconds.

    Streams that begin together would write all their tokens at the same moments, which many readers never do.
    """
    await asyncio.sleep(start)
    tokens: list[Token] = []
    rest = ""
    async with aclosing(answer) as pieces:
        async for piece in pieces:
            now = time.time_ns()
            rest += piece
            while len(rest) >= TOKEN:
                sent, rest = int(rest[1:TOKEN]), rest[TOKEN:]
                tokens.append(Token(sent, (now - sent) / 1e9))
    return tokens
