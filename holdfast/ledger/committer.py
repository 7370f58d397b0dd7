"""Group commit: what many callers want to write shares one transaction, and each returns only when it is durable.

The first to come is served at once. Those that come while its transaction runs form the next batch, so a batch is as
large as the load makes it and nobody waits on purpose. Each unit of work is atomic by itself: one that raises is undone
to its own savepoint and leaves its neighbours alone. Where a savepoint is a round trip, a batch is first run without
any; if a unit raises after all, the batch is undone and run again with them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from holdfast.errors import Unavailable
from holdfast.ledger.store import Conflicted, Store

Result = TypeVar("Result")

LARGEST_BATCH = 64
"""Units in one transaction; it bounds how long the writers of other processes wait for it."""
MOST_TRIES = 5
"""How often a unit is run that lost against another process's transaction."""


@dataclass(frozen=True)
class _Job:
    """One unit of work and whoever waits for it."""

    unit: Callable[[Connection], Any]
    locks: tuple[str, ...]
    done: "asyncio.Future[Any]"


class Committer:
    """Runs units of work in as few transactions as the load allows.

    Args:
        store: Where the transactions run.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self.transactions = 0
        """Transactions committed so far."""

    async def submit(self, unit: Callable[[Connection], Result], locks: Iterable[str]) -> Result:
        """Run a unit of work; on return it is durable.

        A caller that is cancelled leaves the unit undone if it had not begun, and done as a whole otherwise.

        Args:
            unit: Reads and writes through the connection it is given. It may be run again after its effects were
                undone, so it must not change anything else.
            locks: Names that no other transaction holds while it runs.

        Raises:
            Unavailable: The database does not answer.
        """
        job = _Job(unit, tuple(locks), asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        result: Result = await job.done
        return result

    async def aclose(self) -> None:
        """Wait until everything that was submitted is committed."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while batch := self._next_batch():
                await self._commit(batch)
        finally:
            self._task = None
            while self._waiting:  # only when the event loop is being torn down
                _fail(self._waiting.popleft(), Unavailable("The ledger is closing; nothing was written."))

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < LARGEST_BATCH:
            job = self._waiting.popleft()
            if not job.done.cancelled():
                batch.append(job)
        return batch

    async def _commit(self, batch: list[_Job]) -> None:
        if len(batch) == 1:
            await self._commit_alone(batch[0])
            return
        try:
            outcomes = await self._outcomes(batch)
        except Conflicted:
            outcomes = [_AGAIN] * len(batch)
        except Exception as error:
            for job in batch:
                _fail(job, _copy(error))
            return
        self.transactions += 1
        for job, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Raised):
                _fail(job, outcome.error)
            elif outcome is not _AGAIN:
                _succeed(job, outcome)
        for job, outcome in zip(batch, outcomes, strict=True):
            if outcome is _AGAIN:
                await self._commit_alone(job)

    async def _outcomes(self, batch: list[_Job]) -> list[Any]:
        """Run a batch in one transaction: what each unit came to."""
        locks = {name for job in batch for name in job.locks}
        if not self._store.savepoints_are_cheap:
            with suppress(_Spoilt):
                return await self._store.transact(lambda writing: [self._hope(writing, job) for job in batch], locks)
        return await self._store.transact(lambda writing: [self._attempt(writing, job) for job in batch], locks)

    def _hope(self, connection: Connection, job: _Job) -> Any:
        """Run a unit inside a batch without a savepoint."""
        try:
            return job.unit(connection)
        except Exception as error:
            if self._store.translated(error) is not error:
                raise
            raise _Spoilt from error

    def _attempt(self, connection: Connection, job: _Job) -> Any:
        """Run a unit inside a batch: its result, what it raised, or that it must be run again."""
        try:
            with self._store.savepoint(connection):
                return job.unit(connection)
        except Exception as error:
            translated = self._store.translated(error)
            return _AGAIN if isinstance(translated, Conflicted) else _Raised(translated)

    async def _commit_alone(self, job: _Job) -> None:
        for tries_left in reversed(range(MOST_TRIES)):
            try:
                result = await self._store.transact(job.unit, job.locks)
            except Conflicted as error:
                if tries_left == 0:
                    _fail(job, Unavailable(f"{error} It lost {MOST_TRIES} times against other processes; try again."))
            except Exception as error:
                _fail(job, error)
                return
            else:
                self.transactions += 1
                _succeed(job, result)
                return


@dataclass(frozen=True)
class _Raised:
    error: Exception


class _Spoilt(Exception):
    """A unit of a batch that runs without savepoints has raised."""


_AGAIN = object()


def _succeed(job: _Job, result: Any) -> None:
    if not job.done.done():
        job.done.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _copy(error: Exception) -> Exception:
    """The same error for another caller: one instance raised in many tasks would collect all their tracebacks."""
    if not isinstance(error, Unavailable):
        return error
    copy = Unavailable(str(error))
    copy.__cause__ = error.__cause__
    return copy
