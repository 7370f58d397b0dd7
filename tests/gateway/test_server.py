"""Serving over real sockets."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from cli.temporal_server import TemporalServer
from gateway.server import base_url, serve, serving
from holdfast.configuration import Configuration
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.ledger import Ledger
from holdfast.relay import RedisRelay
from holdfast.settings import EngineSettings, GatewaySettings, LedgerSettings, Settings, SharedSettings
from tests.gateway.recorded import opened
from tests.gateway.streams import event, events_of
from tests.services import redis_url

GOOD = {"agent": "writer", "input": "Why?"}


async def test_a_free_port_is_found_served_and_given_back(configuration: Configuration, ledger: Ledger) -> None:
    app = opened(configuration, ledger).app
    async with serving(app, "127.0.0.1", 0) as port, httpx.AsyncClient(base_url=base_url("127.0.0.1", port)) as http:
        response = await http.post("/v1/requests", json=GOOD)
        assert response.status_code == 202
        assert "server" not in response.headers
        assert response.headers["location"].startswith("/v1/requests/req_")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


async def test_a_taken_port_is_named(configuration: Configuration, ledger: Ledger) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}.*HOLDFAST_GATEWAY__PORT"):
            async with serving(opened(configuration, ledger).app, "127.0.0.1", port):
                pass


async def test_a_stopping_server_answers_whoever_waits(configuration: Configuration, ledger: Ledger) -> None:
    gateway = opened(configuration, ledger)
    waiting = asyncio.Event()
    gateway.edge.engine.holds = waiting
    async with httpx.AsyncClient() as http:
        async with serving(gateway.app, "127.0.0.1", 0) as port:
            url = f"{base_url('127.0.0.1', port)}/v1/requests?wait=60"
            asked = asyncio.ensure_future(http.post(url, json=GOOD))
            await waiting.wait()
        assert (await asked).status_code == 202


async def test_an_oversize_body_is_answered_while_it_is_still_being_sent(
    configuration: Configuration, ledger: Ledger
) -> None:
    async with serving(opened(configuration, ledger).app, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"4e20\r\n" + b"x" * 20_000 + b"\r\n" + b"1\r\nx\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()


@asynccontextmanager
async def serving_alone(settings: Settings) -> AsyncIterator[str]:
    """A gateway of its own, told to stop at the end as its process would be."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, on_ready=url.set_result))
    either: list[asyncio.Future[Any]] = [url, task]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield await url
    finally:
        # Whoever serves no longer has given the signal back, and it would end the tests.
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await task


async def test_a_gateway_of_its_own_serves_until_it_is_told_to_stop(
    temporal_server: TemporalServer, tmp_path: Path, configuration: Configuration
) -> None:
    settings = Settings(
        config_dir=tmp_path,
        engine=EngineSettings(address=temporal_server.address, task_queue="no-worker-here"),
        gateway=GatewaySettings(port=0),
        ledger=LedgerSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"),
    )
    async with serving_alone(settings) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/healthz")).status_code == 200
        missing = (await http.get("/readyz")).json()["missing"]
        accepted = (await http.post("/v1/requests", json=GOOD)).json()
        shown = (await http.get(accepted["links"]["self"])).json()
    assert [line.split(":")[0] for line in missing] == ["worker"]
    assert (shown["status"], shown["agent"], shown["user"]) == ("running", "writer", "local")


async def test_text_written_by_another_process_is_streamed_through_redis(
    temporal_server: TemporalServer, tmp_path: Path, configuration: Configuration
) -> None:
    shared = SharedSettings(url=redis_url(), prefix=f"gateway-test-{secrets.token_hex(8)}")
    settings = Settings(
        config_dir=tmp_path,
        engine=EngineSettings(address=temporal_server.address, task_queue="no-worker-here"),
        gateway=GatewaySettings(port=0),
        ledger=LedgerSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"),
        shared=shared,
    )
    relay = RedisRelay(shared.url, f"{shared.prefix}:stream:")
    try:
        async with serving_alone(settings) as url, httpx.AsyncClient(base_url=url) as http:
            request_id = (await http.post("/v1/requests", json=GOOD)).json()["id"]
            await relay.publish(event(request_id, 1, 0, "began"))
            await relay.publish(event(request_id, 1, 0, "text", "Because"))
            async with asyncio.timeout(60), http.stream("GET", f"/v1/requests/{request_id}/events") as reply:
                first = await anext(events_of(reply))
    finally:
        await relay.aclose()
        async with Redis.from_url(shared.url) as redis:
            async for key in redis.scan_iter(f"{shared.prefix}*"):
                await redis.delete(key)
    assert (first.kind, first.data) == ("text", {"attempt": 1, "text": "Because"})


async def test_a_gateway_without_an_engine_says_where_it_looked(
    tmp_path: Path, configuration: Configuration, free_port: int
) -> None:
    settings = Settings(
        config_dir=tmp_path,
        engine=EngineSettings(address=f"127.0.0.1:{free_port}"),
        ledger=LedgerSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"),
    )
    with pytest.raises(Unavailable, match=f"127.0.0.1:{free_port}.*HOLDFAST_ENGINE__ADDRESS"):
        await serve(settings)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("0.0.0.0", "http://127.0.0.1:80")],
)
def test_the_address_is_one_that_can_be_called(host: str, url: str) -> None:
    assert base_url(host, 80) == url
