"""The wrapper that Holdfast is compared with does what people's wrappers do, and no less."""

import httpx
import pytest

from bench.arrivals import read
from bench.wrapper import NaiveRetrieval, ask
from simulator.server import Simulator


async def test_it_retries_what_openais_client_retries_and_reads_the_answer() -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as http:
        simulator.script({"kind": "rate_limited", "retry_after": 0}, {"kind": "error_500"}, {"content": "It holds."})
        reading = await read(ask(http, f"{simulator.url}/v1", "sim", "What holds?"))
        assert reading.completed
        assert "".join(reading.text) == "It holds."
        assert reading.first_token is not None
        assert len(simulator.calls()) == 3


@pytest.mark.parametrize("kind", ["disconnect_mid_stream", "error_mid_stream"])
async def test_an_answer_that_breaks_off_is_a_failure_and_not_asked_for_again(kind: str) -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as http:
        simulator.script({"kind": kind})
        reading = await read(ask(http, f"{simulator.url}/v1", "sim", "What holds?"))
        assert not reading.completed
        assert reading.text
        assert len(simulator.calls()) == 1


async def test_a_refusal_is_a_failure_at_once() -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as http:
        simulator.script({"kind": "unauthorized"})
        reading = await read(ask(http, f"{simulator.url}/v1", "sim", "What holds?"))
        assert reading.failure == "status 401"
        assert len(simulator.calls()) == 1


async def test_it_gives_up_after_two_repetitions() -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as http:
        simulator.script({"kind": "rate_limited", "retry_after": 0, "times": 9})
        reading = await read(ask(http, f"{simulator.url}/v1", "sim", "What holds?"))
        assert reading.failure == "status 429"
        assert len(simulator.calls()) == 3


def test_naive_retrieval_finds_the_passage_that_shares_the_words() -> None:
    retrieval = NaiveRetrieval(["The ledger records spending.", "The relay carries streamed text."])
    assert "relay" in retrieval.context("Who carries text?", passages=1)
    assert "ledger" not in retrieval.context("Who carries text?", passages=1)
