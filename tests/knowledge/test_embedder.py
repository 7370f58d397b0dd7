import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import numpy as np
import pytest

from holdfast.errors import Unavailable
from holdfast.knowledge import DIMENSIONS, MiniLM, Vectors

AN_HOUR = timedelta(hours=1)
"""A window that never ends within a test: a pass starts because it is full, or not at all."""


class Passes:
    """A model that records its forward passes and can be held in the middle of one."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: list[str]) -> Vectors:
        self.batches.append(texts)
        self.threads.add(threading.current_thread().name)
        self.started.release()
        self.gate.wait()
        if "poison" in texts:
            raise RuntimeError("poisoned pass")
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        vectors[:, 0] = [float(text.split("-")[-1]) if "-" in text else 0.0 for text in texts]
        return vectors

    async def hold(self, embedder: MiniLM) -> "asyncio.Task[Vectors]":
        """Start a pass and return once it is inside the model."""
        self.gate.clear()
        task = asyncio.create_task(embedder.embed(["held-0"]))
        await asyncio.to_thread(self.started.acquire)
        return task


@pytest.fixture
def passes() -> Passes:
    return Passes()


@pytest.fixture
async def batcher(passes: Passes) -> AsyncIterator[MiniLM]:
    embedder = MiniLM(passes, window=timedelta(0))
    yield embedder
    passes.gate.set()
    await embedder.aclose()


async def submit(embedder: MiniLM, *names: str, bulk: bool = False) -> list["asyncio.Task[Vectors]"]:
    """Start one call for each text and let each reach the queue."""
    tasks = [asyncio.create_task(embedder.embed([name], bulk=bulk)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_thirty_two_concurrent_queries_share_one_forward_pass(passes: Passes) -> None:
    embedder = MiniLM(passes, window=AN_HOUR)
    early = await submit(embedder, *(f"query-{n}" for n in range(31)))
    assert not await asyncio.to_thread(passes.started.acquire, timeout=0.1), "a pass started before it was full"
    last = await submit(embedder, "query-31")
    vectors = await asyncio.gather(*early, *last)
    assert [len(batch) for batch in passes.batches] == [32]
    assert [vector[0, 0] for vector in vectors] == list(range(32))
    await embedder.aclose()


async def test_a_lone_query_waits_no_longer_than_the_window(passes: Passes) -> None:
    embedder = MiniLM(passes, window=timedelta(milliseconds=1))
    assert (await embedder.embed(["query-7"]))[0, 0] == 7
    await embedder.aclose()


async def test_queries_that_arrive_during_a_pass_share_the_next_ones(passes: Passes, batcher: MiniLM) -> None:
    held = await passes.hold(batcher)
    tasks = await submit(batcher, *(f"query-{n}" for n in range(40)))
    passes.gate.set()
    vectors = await asyncio.gather(*tasks)
    await held
    assert [len(batch) for batch in passes.batches] == [1, 32, 8]
    assert [vector[0, 0] for vector in vectors] == list(range(40))


async def test_a_call_of_many_texts_is_split_and_put_together_in_order(passes: Passes, batcher: MiniLM) -> None:
    vectors = await batcher.embed([f"text-{n}" for n in range(70)])
    assert [len(batch) for batch in passes.batches] == [32, 32, 6]
    assert vectors[:, 0].tolist() == list(range(70))


async def test_a_query_overtakes_a_long_ingestion(passes: Passes, batcher: MiniLM) -> None:
    held = await passes.hold(batcher)
    bulk = asyncio.create_task(batcher.embed([f"bulk-{n}" for n in range(20)], bulk=True))
    await asyncio.sleep(0)
    (query,) = await submit(batcher, "query-1")
    passes.gate.set()
    await asyncio.gather(held, bulk, query)
    assert passes.batches[1] == ["query-1"]
    assert [len(batch) for batch in passes.batches[2:]] == [8, 8, 4]
    assert bulk.result()[:, 0].tolist() == list(range(20))


async def test_an_ingestion_gets_its_turn_under_a_stream_of_queries(passes: Passes) -> None:
    embedder = MiniLM(passes, window=timedelta(0), batch_size=1, queries_per_bulk=3)
    held = await passes.hold(embedder)
    bulk = await submit(embedder, "bulk-0", bulk=True)
    queries = await submit(embedder, *(f"query-{n}" for n in range(6)))
    passes.gate.set()
    await asyncio.gather(held, *bulk, *queries)
    assert passes.batches[1:5] == [["query-0"], ["query-1"], ["query-2"], ["bulk-0"]]
    await embedder.aclose()


async def test_a_cancelled_caller_does_not_break_the_pass(passes: Passes, batcher: MiniLM) -> None:
    held = await passes.hold(batcher)
    before, cancelled, after = await submit(batcher, "query-1", "query-2", "query-3")
    held.cancel()
    cancelled.cancel()
    await asyncio.gather(held, cancelled, return_exceptions=True)
    passes.gate.set()
    assert (await before)[0, 0] == 1
    assert (await after)[0, 0] == 3
    assert held.cancelled()
    assert passes.batches[1:] == [["query-1", "query-3"]]


async def test_an_exception_reaches_the_callers_of_its_pass_and_no_other(passes: Passes, batcher: MiniLM) -> None:
    held = await passes.hold(batcher)
    first = await submit(batcher, *(f"query-{n}" for n in range(31)), "poison")
    second = await submit(batcher, "query-50")
    passes.gate.set()
    results = await asyncio.gather(held, *first, *second, return_exceptions=True)
    assert [type(result) for result in results] == [np.ndarray] + [RuntimeError] * 32 + [np.ndarray]
    assert (await batcher.embed(["query-9"]))[0, 0] == 9


async def test_a_failed_call_takes_no_further_passes(passes: Passes, batcher: MiniLM) -> None:
    with pytest.raises(RuntimeError, match="poisoned"):
        await batcher.embed(["poison", *(f"text-{n}" for n in range(90))])
    await batcher.embed(["query-1"])
    assert [len(batch) for batch in passes.batches] == [32, 1]


async def test_a_model_of_another_shape_is_an_error_and_not_a_hang() -> None:
    embedder = MiniLM(lambda texts: np.zeros((len(texts), 3), np.float32), window=timedelta(0))
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        await embedder.embed(["query"])
    await embedder.aclose()


async def test_one_thread_runs_the_model_and_it_is_not_the_loops(passes: Passes, batcher: MiniLM) -> None:
    await asyncio.gather(*(batcher.embed([f"query-{n}"], bulk=n % 2 == 0) for n in range(9)))
    assert passes.threads == {"embedder"}


async def test_no_text_needs_no_pass(passes: Passes, batcher: MiniLM) -> None:
    assert (await batcher.embed([])).shape == (0, DIMENSIONS)
    assert passes.batches == []


async def test_closing_finishes_the_running_pass_and_refuses_the_waiting_callers(
    passes: Passes, batcher: MiniLM
) -> None:
    held = await passes.hold(batcher)
    waiting = await submit(batcher, "query-1")
    closing = asyncio.create_task(batcher.aclose())
    with pytest.raises(Unavailable, match="closed"):
        await waiting[0]
    passes.gate.set()
    await closing
    assert (await held).shape == (1, DIMENSIONS)
    with pytest.raises(Unavailable, match="closed"):
        await batcher.embed(["query-2"])


def test_importing_the_package_loads_neither_torch_nor_the_qdrant_client() -> None:
    heavy = "{'torch', 'sentence_transformers', 'transformers', 'qdrant_client'}"
    program = f"import sys, holdfast.knowledge; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_packaged_model_gives_unit_vectors_in_which_paraphrases_are_near() -> None:
    embedder = MiniLM()
    await embedder.warm_up()
    alone = await embedder.embed(["How do I reset my password?"])
    together = await embedder.embed(
        ["How do I reset my password?", "I forgot my login credentials.", "The recipe needs two eggs."]
    )
    await embedder.aclose()
    assert together.dtype == np.float32
    assert together.shape == (3, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)
    assert together[0] @ together[1] > 0.4 > 0.2 > together[0] @ together[2]
