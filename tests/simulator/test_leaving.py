"""A client that leaves: generation stops, and what was generated so far is billed, under asyncio and under uvloop."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import uvloop

from simulator.server import Simulator
from tests.simulator.conftest import hangs

TOKENS = 4_000
SLOW = {"token_ms": 3, "completion_tokens": TOKENS}
MESSAGES = [{"role": "user", "content": "Hello?"}]


async def ended(simulator: Simulator) -> dict[str, Any]:
    """The only call, once its answer has come to an end."""
    async with asyncio.timeout(60):
        while not (simulator.calls() and simulator.calls()[0]["ended"]):  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0.01)
    return simulator.calls()[0]


async def leave_mid_stream(path: str, *, stream: bool) -> None:
    """Read a few tokens of an answer that goes on for twelve seconds, leave, and look at the bill."""
    async with Simulator() as simulator, httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client:
        headers = {"X-Simulate": json.dumps(SLOW), "anthropic-version": "2023-06-01"}
        body = {"model": "m", "max_tokens": TOKENS, "stream": stream, "messages": MESSAGES}
        received = ""
        if stream:
            async with client.stream("POST", path, json=body, headers=headers) as response:
                async for text in response.aiter_text():
                    received += text
                    if received.count("data: ") > 20:
                        break
        else:
            asking = asyncio.create_task(client.post(path, json=body, headers=headers))
            async with asyncio.timeout(60):
                while not simulator.bill(entries=False)["output_tokens"]:  # noqa: ASYNC110 - the bill has no event
                    await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        call = await ended(simulator)
        assert call["ended"] == "client_left"
        assert call["status"] == (200 if stream else None)
        [entry] = simulator.bill()["entries"]
        assert entry["completed"] is False
        assert (15 if stream else 1) <= entry["output_tokens"] < TOKENS
        assert entry["input_tokens"] > 0


async def leave_before_the_first_token(path: str) -> None:
    """Leave a call that hangs before its first token."""
    async with Simulator() as simulator, httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client:
        headers = {"X-Simulate": '{"kind": "hang"}', "anthropic-version": "2023-06-01"}
        body = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
        await hangs(simulator, client.post(path, json=body, headers=headers, timeout=60))
        assert (await ended(simulator))["ended"] == "client_left"
        [entry] = simulator.bill()["entries"]
        assert (entry["output_tokens"], entry["completed"]) == (0, False)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("way", ["stream", "body", "hang"])
def test_a_client_that_leaves_stops_generation_and_is_billed_for_what_there_was(
    loop: Callable[[], asyncio.AbstractEventLoop], path: str, way: str
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        if way == "hang":
            runner.run(leave_before_the_first_token(path))
        else:
            runner.run(leave_mid_stream(path, stream=way == "stream"))
