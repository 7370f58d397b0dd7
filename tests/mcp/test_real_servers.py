"""Servers that other people wrote, from PyPI and npm, over stdio and over streamable HTTP."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from holdfast.errors import OutcomeUnknown, ToolProblem, Unavailable
from holdfast.mcp import McpServerSettings
from holdfast.mcp.http import BoundedTransport
from tests.mcp.open_servers import Open, open_servers
from tests.mcp.thirdparty import everything_over_http

SHORT = timedelta(seconds=1)
pytestmark = pytest.mark.timeout(570)  # the first test downloads the servers, perhaps twice


@asynccontextmanager
async def serving(**table: object) -> AsyncIterator[Open]:
    opened = open_servers({"s": McpServerSettings.model_validate({"tools": ["*"], **table})})
    try:
        # A program's first start on a busy machine takes longer than a run would wait for it.
        await opened.servers.warm_up()
        await opened.pin("s")
        yield opened
    finally:
        await opened.servers.aclose()


async def test_a_server_from_pypi_tells_the_time_over_stdio(pypi_programs: Path) -> None:
    async with serving(command=str(pypi_programs / "mcp-server-time"), tools=["get_*"]) as opened:
        assert await opened.pin("s") == ["s__get_current_time"]
        told = await opened.call("get_current_time", {"timezone": "UTC"}, server="s")
        assert told.ok
        assert json.loads(told.text)["timezone"] == "UTC"
        wrong = await opened.call("get_current_time", {"timezone": "Nowhere/None"}, server="s")
        assert not wrong.ok


async def test_a_server_from_npm_reads_and_writes_files_over_stdio(npm_programs: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("kept\n")
    program = str(npm_programs / "mcp-server-filesystem")
    async with serving(command=program, args=[str(tmp_path)], read_only=["read_*", "list_*"]) as opened:
        read = await opened.call("read_text_file", {"path": str(tmp_path / "note.txt")}, server="s")
        assert (read.text, read.ok) == ("kept\n", True)
        new = tmp_path / "new.txt"
        assert (await opened.call("write_file", {"path": str(new), "content": "x"}, server="s")).ok
        assert new.read_text() == "x"
        outside = await opened.call("read_text_file", {"path": "/etc/hostname"}, server="s")
        assert not outside.ok
        effects = {entry.tool: entry.side_effects for entry in await opened.servers.entries("s", "*_file")}
        assert effects["write_file"]
        assert not effects["read_file"]


async def test_a_server_from_npm_is_given_nothing_of_ours(npm_programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    async with serving(command=str(npm_programs / "mcp-server-everything"), args=["stdio"]) as opened:
        seen = json.loads((await opened.call("get-env", server="s")).text)
        assert seen == {"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8"}
        image = await opened.call("get-tiny-image", server="s")
        assert "[image of type image/png" in image.text


async def test_calls_of_one_server_run_beside_each_other(npm_programs: Path) -> None:
    async with serving(command=str(npm_programs / "mcp-server-everything"), args=["stdio"]) as opened:
        long = asyncio.create_task(
            opened.call("trigger-long-running-operation", {"duration": 600, "steps": 2}, server="s")
        )
        assert (await opened.call("echo", {"message": "meanwhile"}, server="s")).text == "Echo: meanwhile"
        assert not long.done()
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)


async def test_a_server_over_http_is_called_and_outlives_a_call_that_takes_too_long(
    npm_programs: Path, free_port: int
) -> None:
    async with everything_over_http(npm_programs, free_port) as url, serving(url=url) as opened:
        assert (await opened.call("echo", {"message": "hello"}, server="s")).text == "Echo: hello"
        assert (await opened.call("get-sum", {"a": 2, "b": 3}, server="s")).text.endswith("is 5.")
        with pytest.raises(OutcomeUnknown, match="did not answer within 1 s"):
            await opened.call(
                "trigger-long-running-operation", {"duration": 600, "steps": 2}, server="s", timeout=SHORT
            )
        assert (await opened.call("echo", {"message": "again"}, server="s")).text == "Echo: again"


async def test_a_server_over_http_that_is_restarted_is_connected_to_again(npm_programs: Path, free_port: int) -> None:
    async with everything_over_http(npm_programs, free_port) as url:
        opened = open_servers({"s": McpServerSettings(url=url, tools=("*",))})
        assert (await opened.call("echo", {"message": "one"}, server="s")).ok
    with pytest.raises(Unavailable, match="no connection can be made"):
        await opened.call("echo", {"message": "two"}, server="s", timeout=SHORT)
    async with everything_over_http(npm_programs, free_port):
        assert (await opened.call("echo", {"message": "three"}, server="s")).text == "Echo: three"
    async with everything_over_http(npm_programs, free_port):
        # It does not know the session of the one before.
        assert (await opened.call("echo", {"message": "four"}, server="s")).text == "Echo: four"
        await opened.servers.aclose()


async def test_a_server_over_http_that_is_killed_in_a_call_leaves_it_unknown(
    npm_programs: Path, free_port: int, started: Callable[[], bool]
) -> None:
    async with everything_over_http(npm_programs, free_port) as url:
        opened = open_servers({"s": McpServerSettings(url=url, tools=("*",))})
        await opened.pin("s")
        call = asyncio.create_task(
            opened.call("trigger-long-running-operation", {"duration": 600, "steps": 2}, server="s")
        )
        async with asyncio.timeout(60):
            while not started():  # noqa: ASYNC110 - what goes over the network has no event
                await asyncio.sleep(0.01)
    with pytest.raises(OutcomeUnknown, match="gave no answer that can be read"):
        await call
    await opened.servers.aclose()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether the answer to a call has begun: its response headers have come."""
    seen: list[bytes] = []
    send = BoundedTransport.handle_async_request

    async def noted(self: BoundedTransport, request: httpx2.Request) -> httpx2.Response:
        response = await send(self, request)
        seen.append(request.content)
        return response

    monkeypatch.setattr(BoundedTransport, "handle_async_request", noted)
    return lambda: any(b"tools/call" in body for body in seen)


async def test_a_tool_that_the_server_never_had_is_not_called(npm_programs: Path) -> None:
    async with serving(command=str(npm_programs / "mcp-server-everything"), args=["stdio"]) as opened:
        opened.digests["s", "delete-everything"] = "0" * 16
        with pytest.raises(ToolProblem, match="no longer among the tools"):
            await opened.call("delete-everything", server="s")
