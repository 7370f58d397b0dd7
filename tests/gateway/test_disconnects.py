"""What becomes of a request when the client that waits for its answer goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from holdfast.configuration import Configuration, load_configuration
from holdfast.contracts import EventKind
from holdfast.ledger import Ledger
from tests.gateway.conftest import MODELS
from tests.gateway.streams import Line, on_the_line

Leave = Callable[[Line, str], Awaitable[None]]


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """Two agents that differ in what they do about a client that left."""
    for name in ("agents", "prompts"):
        (tmp_path / name).mkdir()
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "prompts" / "prompt.md").write_text("Answer briefly.")
    for policy in ("cancel", "finish"):
        agent = f'deployments = ["extractive"]\nprompt = "prompt.md"\non_disconnect = "{policy}"\n'
        (tmp_path / "agents" / f"{policy}.toml").write_text(agent)
    return load_configuration(tmp_path)


@pytest.fixture
async def line(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Line]:
    async with on_the_line(configuration, ledger) as line:
        line.edge.engine.holds = asyncio.Event()
        yield line


async def _call(line: Line, path: str, body: object, *, key: str = "", reads: bool = False) -> None:
    """Send a request on a connection of its own, and hang up once the gateway waits for the answer."""
    payload = json.dumps(body).encode()
    headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    headers += f"Idempotency-Key: {key}\r\n" if key else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(line.url.rpartition(":")[2]))
    before = len(line.edge.engine.waits)
    writer.write(f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode() + payload)
    await _until(lambda: len(line.edge.engine.waits) > before)
    if reads:
        request_id = line.edge.engine.submitted[-1].id
        await line.publish(request_id, "Because")
        await reader.readuntil(b"Because")
    writer.close()
    await writer.wait_closed()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the other side of a socket has no event
            await asyncio.sleep(0.005)


async def _natively(line: Line, agent: str) -> None:
    await _call(line, "/v1/requests?wait=30", {"agent": agent, "input": "Why?"})


async def _in_chat(line: Line, agent: str) -> None:
    await _call(line, "/v1/chat/completions", {"model": agent, "messages": [{"role": "user", "content": "Why?"}]})


async def _in_a_silent_stream(line: Line, agent: str) -> None:
    body = {"model": agent, "messages": [{"role": "user", "content": "Why?"}], "stream": True}
    await _call(line, "/v1/chat/completions", body)


async def _in_the_middle_of_a_stream(line: Line, agent: str) -> None:
    body = {"model": agent, "messages": [{"role": "user", "content": "Why?"}], "stream": True}
    await _call(line, "/v1/chat/completions", body, reads=True)


WAYS = [_natively, _in_chat, _in_a_silent_stream, _in_the_middle_of_a_stream]


@pytest.mark.parametrize("leave", WAYS)
async def test_a_client_that_leaves_cancels_its_request_if_the_agent_says_so(line: Line, leave: Leave) -> None:
    await leave(line, "cancel")
    [request] = line.edge.engine.submitted
    await _until(lambda: line.edge.engine.cancelled == [request.id])


@pytest.mark.parametrize("leave", WAYS)
async def test_a_client_that_leaves_changes_nothing_otherwise(line: Line, leave: Leave) -> None:
    await leave(line, "finish")
    # A second client that leaves is cancelled: by then the first one's leaving was dealt with, too.
    await leave(line, "cancel")
    await _until(lambda: bool(line.edge.engine.cancelled))
    first, second = line.edge.engine.submitted
    assert line.edge.engine.cancelled == [second.id]
    assert first.plan.on_disconnect == "finish"


async def test_who_only_reads_or_repeats_a_request_does_not_cancel_it(line: Line) -> None:
    body = {"agent": "cancel", "input": "Why?"}
    submitted = await line.http.post("/v1/requests", json=body, headers={"Idempotency-Key": "k-1"})
    request_id = submitted.json()["id"]
    await _call(line, "/v1/requests?wait=30", body, key="k-1")
    async with line.following(request_id) as events:
        line.edge.engine.run(request_id).tell(EventKind.STEP_STARTED, "generate")
        await anext(events)
    await _natively(line, "cancel")
    await _until(lambda: bool(line.edge.engine.cancelled))
    assert request_id not in line.edge.engine.cancelled


async def test_who_asks_without_waiting_has_nothing_to_leave(line: Line) -> None:
    request_id = await line.submitted("cancel")
    await _natively(line, "cancel")
    await _until(lambda: bool(line.edge.engine.cancelled))
    assert request_id not in line.edge.engine.cancelled
