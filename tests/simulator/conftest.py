"""One simulator for the session, reset before each test, and short ways to ask it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from simulator.server import Simulator

Ask = Callable[..., Awaitable[httpx.Response]]


async def hangs(simulator: Simulator, asked: Awaitable[object]) -> None:
    """Let a call arrive, see that nothing comes of it, and leave."""
    asking = asyncio.ensure_future(asked)
    async with asyncio.timeout(60):
        while not simulator.bill(entries=False)["requests"]:
            assert not asking.done()
            await asyncio.sleep(0.01)
    done, _ = await asyncio.wait([asking], timeout=0.2)
    assert not done
    asking.cancel()
    await asyncio.wait([asking])


@pytest.fixture(scope="session")
async def running_simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    running_simulator.reset()
    return running_simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def ask(client: httpx.AsyncClient) -> Ask:
    """Send one chat completion; `simulate` becomes the `X-Simulate` header, other keywords the body."""

    async def send(simulate: dict[str, Any] | None = None, **body: Any) -> httpx.Response:
        headers = {} if simulate is None else {"X-Simulate": json.dumps(simulate)}
        whole = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]} | body
        return await client.post("/v1/chat/completions", json=whole, headers=headers)

    return send


@pytest.fixture
def tell(client: httpx.AsyncClient) -> Ask:
    """Send one message in Anthropic's format; `simulate` becomes the `X-Simulate` header, other keywords the body."""

    async def send(simulate: dict[str, Any] | None = None, **body: Any) -> httpx.Response:
        headers = {"anthropic-version": "2023-06-01"}
        if simulate is not None:
            headers["X-Simulate"] = json.dumps(simulate)
        whole = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "Hello?"}]} | body
        return await client.post("/v1/messages", json=whole, headers=headers)

    return send
