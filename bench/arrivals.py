"""Sends many questions at once or at a pace, and times each answer as its reader sees it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from bench.wrapper import Broken

QuestionT = TypeVar("QuestionT")


@dataclass
class Reading:
    """One answer as its reader saw it; seconds from the moment the question was sent."""

    sent_at: float = 0.0
    """On the performance counter."""
    first_token: float | None = None
    ended: float | None = None
    text: list[str] = field(default_factory=list)
    failure: str | None = None

    @property
    def completed(self) -> bool:
        """Whether the whole answer came."""
        return self.failure is None and self.ended is not None


async def read(answer: AsyncGenerator[str, None]) -> Reading:
    """Read one answer to its end, or to whatever keeps it from having one."""
    reading = Reading(time.perf_counter())
    try:
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                if reading.first_token is None:
                    reading.first_token = time.perf_counter() - reading.sent_at
                reading.text.append(piece)
    except httpx.HTTPStatusError as error:
        reading.failure = f"status {error.response.status_code}"
    except (httpx.HTTPError, Broken) as error:
        reading.failure = f"{type(error).__name__}: {error}" if isinstance(error, Broken) else type(error).__name__
    reading.ended = time.perf_counter() - reading.sent_at
    return reading


async def arrive(
    questions: Sequence[QuestionT],
    ask: Callable[[QuestionT], AsyncGenerator[str, None]],
    *,
    per_second: float | None,
) -> tuple[list[Reading], "Flow"]:
    """Ask every question, all at once or at a steady pace whatever becomes of those before.

    Args:
        questions: In the order of their arrival.
        ask: Asks one.
        per_second: Pace; `None` asks all at once.

    Returns:
        What was read, in the same order, and how the whole went.
    """
    in_flight = peak = 0

    async def one(number: int, question: QuestionT) -> Reading:
        nonlocal in_flight, peak
        if per_second is not None:
            await asyncio.sleep(started + number / per_second - time.perf_counter())
        in_flight += 1
        peak = max(peak, in_flight)
        try:
            return await read(ask(question))
        finally:
            in_flight -= 1

    started = time.perf_counter()
    readings = await asyncio.gather(*(one(number, question) for number, question in enumerate(questions)))
    return readings, Flow(time.perf_counter() - started, peak)


@dataclass(frozen=True)
class Flow:
    """How a run of questions went."""

    elapsed: float
    """Seconds from the first question to the last answer."""
    peak_in_flight: int
