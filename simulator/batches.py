"""Batches: many requests handed in at once, answered in any order some time later.

A batch passes through its stages in the time it was given. Lines are answered one by one meanwhile, so that one that is
cancelled has some results.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from simulator.behaviour import Behaviour
from simulator.errors import ApiError
from simulator.model_request import ModelRequest

MOST_BATCHES = 10_000
"""Batches kept, and files of them."""
_VALIDATING_SHARE = 0.1
_FINALIZING_SHARE = 0.1
_LEAST_PAUSE = 0.005
_LINES_A_TURN = 20
"""Lines answered before other calls get their turn."""

Outcome = Literal["succeeded", "errored", "canceled", "expired"]


class Stage(StrEnum):
    """How far a batch is."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    ENDED = "ended"


@dataclass(frozen=True)
class Line:
    """One request of a batch."""

    custom_id: str
    request: ModelRequest | None
    behaviour: Behaviour
    error: ApiError | None = None
    """Why the request could not be read."""


@dataclass(frozen=True)
class LineResult:
    """What became of a line."""

    custom_id: str
    outcome: Outcome
    body: dict[str, Any] | None = None
    """The reply, of one that succeeded."""
    error: ApiError | None = None
    """Of one that errored."""
    malformed: bool = False
    """Whether its line of the results is to be cut in half."""


class Batch:
    """One batch.

    Args:
        lines: Its requests.
        seconds: How long it takes.
        answer: Answers one line and bills it.
        draw: Decides the order of the results.
    """

    def __init__(
        self, lines: Sequence[Line], seconds: float, answer: Callable[[Line], LineResult], draw: random.Random
    ) -> None:
        self.id = uuid.uuid4().hex
        self.results: list[LineResult] = []
        self.stage = Stage.VALIDATING
        self.times: dict[Stage, float] = {Stage.VALIDATING: time.time()}
        """When each stage began, in seconds since 1970."""
        self.cancelled: float | None = None
        """When its end was asked for."""
        self._lines = draw.sample(lines, len(lines))
        self._seconds = seconds
        self._answer = answer
        self._cancel = asyncio.Event()

    @property
    def total(self) -> int:
        """Number of lines."""
        return len(self._lines)

    def counts(self) -> Counter[str]:
        """Lines by outcome; those without one count under `processing`."""
        counts: Counter[str] = Counter(result.outcome for result in self.results)
        counts["processing"] = self.total - len(self.results)
        return counts

    def cancel(self) -> None:
        """Answer no further line; does nothing to a batch that has answered all."""
        if self.stage in (Stage.VALIDATING, Stage.IN_PROGRESS) and self.cancelled is None:
            self.cancelled = time.time()
            self._cancel.set()

    async def run(self) -> None:
        """Pass through the stages."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        answering = self._seconds * (1 - _VALIDATING_SHARE - _FINALIZING_SHARE)
        await self._until(started + self._seconds * _VALIDATING_SHARE)
        self._enter(Stage.IN_PROGRESS)
        first = started + self._seconds * _VALIDATING_SHARE
        for number, line in enumerate(self._lines, start=1):
            await self._until(first + answering * number / self.total)
            if self.cancelled is not None:
                self.results.append(LineResult(line.custom_id, "canceled"))
                continue
            self.results.append(self._answer(line))
            if number % _LINES_A_TURN == 0:
                await asyncio.sleep(0)
        self._enter(Stage.FINALIZING)
        await self._until(started + self._seconds)
        self._enter(Stage.ENDED)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self.times[stage] = time.time()

    async def _until(self, moment: float) -> None:
        """Wait for a moment of the loop's clock, no longer than until the batch is cancelled."""
        if self.cancelled is None and moment - asyncio.get_running_loop().time() > _LEAST_PAUSE:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(moment):
                    await self._cancel.wait()


class Batches:
    """The running batches of one server; each format's endpoints keep its own list of those that it shows.

    Args:
        seed: Seeds the order of results.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._started = 0
        self._running: set[asyncio.Task[None]] = set()

    def start(self, lines: Sequence[Line], answer: Callable[[Line], LineResult]) -> Batch:
        """Start a batch; it takes as long as the slowest of its lines asks for."""
        self._started += 1
        draw = random.Random(f"{self._seed}\0{self._started}")  # noqa: S311  an order, not a secret
        seconds = max((line.behaviour.batch_ms for line in lines), default=0.0) / 1000
        batch = Batch(lines, seconds, answer, draw)
        task = asyncio.create_task(batch.run(), name=f"batch {batch.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return batch

    def reset(self) -> None:
        """Stop what runs, and begin to count anew."""
        for task in self._running:
            task.cancel()
        self._started = 0

    async def aclose(self) -> None:
        """Stop what runs, and wait for it."""
        running = list(self._running)
        self.reset()
        await asyncio.gather(*running, return_exceptions=True)
