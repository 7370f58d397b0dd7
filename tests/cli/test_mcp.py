"""`holdfast mcp`: other agents hand work to Holdfast over the Model Context Protocol."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cli.client import GatewayClient
from cli.mcp_server import build_server
from holdfast.errors import Unavailable
from holdfast.mcp import McpServers, McpServerSettings
from tests.cli.scripted import REQUEST_ID, ScriptedGateway

PROGRAM = "from cli.main import run; run()"
PATIENCE = timedelta(seconds=60)
MANUAL = Path(__file__).parents[2] / "docs" / "mcp.md"


class Agent:
    """Another agent, which knows Holdfast as a server."""

    def __init__(self, settings: McpServerSettings) -> None:
        self.servers = McpServers({"holdfast": settings}, os.environ)

    async def tools(self) -> dict[str, str]:
        """The digests of the tools by name."""
        return {entry.tool: entry.digest for entry in await self.servers.entries("holdfast", "*")}

    async def call(self, tool: str, **arguments: str | float | None) -> tuple[object, bool]:
        """What a tool says, read as JSON where it is."""
        digest = (await self.tools())[tool]
        result = await self.servers.call(
            "holdfast", tool, arguments, digest=digest, timeout=PATIENCE, idempotency_key="k"
        )
        return (json.loads(result.text) if result.ok else result.text), result.ok


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the start of a program as long as a busy machine may take for it."""
    monkeypatch.setattr("holdfast.mcp.servers.PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr("holdfast.mcp.servers.WARM_UP_SECONDS", 60.0)


@pytest.fixture
async def agent(gateway: ScriptedGateway) -> AsyncIterator[Agent]:
    """Speaks to `holdfast mcp` over its standard streams."""
    settings = McpServerSettings(
        command=sys.executable, args=("-c", PROGRAM, "mcp"), env=("HOLDFAST_URL", "HOLDFAST_USER"), tools=("*",)
    )
    agent = Agent(settings)
    await agent.servers.warm_up()
    yield agent
    await agent.servers.aclose()


async def test_another_agent_submits_reads_and_lists(gateway: ScriptedGateway, agent: Agent) -> None:
    running = {"id": REQUEST_ID, "status": "running", "agent": "docs"}
    gateway.on("POST /v1/requests", (202, running))
    gateway.on(f"GET /v1/requests/{REQUEST_ID}", (200, {**running, "status": "completed"}))
    gateway.on("GET /v1/approvals", (200, {"approvals": [{"request_id": REQUEST_ID}]}))

    assert sorted(await agent.tools()) == ["list_approvals", "read_request", "submit_request"]
    submitted = await agent.call("submit_request", agent="docs", input="What is kept?", wait_seconds=0)
    assert submitted == (running, True)
    read, ok = await agent.call("read_request", request_id=REQUEST_ID)
    assert ok
    assert isinstance(read, dict)
    assert read["status"] == "completed"
    assert await agent.call("list_approvals") == ({"approvals": [{"request_id": REQUEST_ID}]}, True)

    posted = gateway.calls[0]
    assert posted.body == {"agent": "docs", "input": "What is kept?"}
    assert posted.headers["x-holdfast-user"] == "ann"
    assert posted.headers["idempotency-key"]


async def test_what_the_gateway_refuses_is_told_with_its_remedy(gateway: ScriptedGateway, agent: Agent) -> None:
    refusal = {"title": "Unknown", "detail": "There is no agent 'dox'.", "remedy": "Did you mean 'docs'?"}
    gateway.on("POST /v1/requests", (422, refusal))
    told = await agent.call("submit_request", agent="dox", input="What is kept?")
    assert told == ("Error executing tool submit_request: There is no agent 'dox'. Did you mean 'docs'?", False)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("submit_request", {"agent": "docs"}, ["`input` is missing; give text", "What to ask or have done."]),
        ("submit_request", {"agent": "docs", "input": "Why?", "wait_second": 3}, ["did you mean `wait_seconds`?"]),
        ("submit_request", {"agent": "docs", "prompt": "Why?"}, ["`input` is missing", "'prompt'; there are `agent`,"]),
        (
            "submit_request",
            {"agent": "", "input": "Why?", "wait_seconds": 4711, "session": None},
            [
                "`agent` must be text of 1 to 64 characters.",
                "`session` must be text of at most 128 characters, or left out.",
                "`wait_seconds` must be a number from 0 to 300, or left out.",
            ],
        ),
        ("read_request", {}, ["`request_id` is missing; give text of 1 to 128 characters", "req_..."]),
        ("list_approvals", {"user": "ann"}, ["There is no parameter 'user'; it takes none."]),
    ],
)
async def test_arguments_that_do_not_fit_are_told_by_name_with_what_is_taken(
    gateway: ScriptedGateway, agent: Agent, tool: str, arguments: dict[str, str | float | None], words: list[str]
) -> None:
    told, ok = await agent.call(tool, **arguments)
    assert not ok
    assert isinstance(told, str)
    assert told.startswith(f"{tool} was not called. ")
    assert all(word in told for word in words), told
    assert not [foreign for foreign in ("pydantic", "http", "validation error", "4711") if foreign in told], told
    assert not gateway.calls


async def test_the_manual_lists_the_parameters_that_the_tools_take(gateway: ScriptedGateway) -> None:
    section = MANUAL.read_text(encoding="utf-8").partition("## Holdfast as an MCP server")[2]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w[\w ]*) \|", section, re.MULTILINE)
    with GatewayClient(gateway.url, "ann") as client:
        tools = await build_server(client).list_tools()
    taken = {
        (tool.name, name, name in tool.input_schema.get("required", ()))
        for tool in tools
        for name in tool.input_schema["properties"]
    }
    assert {(tool, parameter, default == "required") for tool, parameter, default in rows} == taken


async def test_an_agent_can_not_decide(agent: Agent) -> None:
    assert not [name for name in await agent.tools() if "decide" in name or "approve" in name]


@asynccontextmanager
async def over_http(gateway: ScriptedGateway, **variables: str) -> AsyncIterator[str]:
    """Run `holdfast mcp --http` on a free port and yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "mcp", "--http", "--port", "0"),
        env={**os.environ, "HOLDFAST_URL": gateway.url, **variables},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(120):
            line = (await process.stdout.readline()).decode()
        yield line.split()[3].rstrip(";")
    finally:
        process.terminate()
        await process.wait()


async def test_it_is_served_over_http_on_loopback(gateway: ScriptedGateway) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    async with over_http(gateway) as address:
        assert address.startswith("http://127.0.0.1:")
        agent = Agent(McpServerSettings(url=address, tools=("*",)))
        assert await agent.call("list_approvals") == ({"approvals": []}, True)
        await agent.servers.aclose()


async def test_over_http_a_key_is_lent_to_nobody_who_does_not_have_it(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    async with over_http(gateway, HOLDFAST_API_KEY="hf-secret") as address:
        stranger = Agent(McpServerSettings(url=address, tools=("*",)))
        with pytest.raises(Unavailable, match="refuses our credentials"):
            await stranger.tools()
        await stranger.servers.aclose()
        monkeypatch.setenv("AUTHORIZATION", "Bearer hf-secret")
        known = Agent(McpServerSettings(url=address, headers={"Authorization": "AUTHORIZATION"}, tools=("*",)))
        assert await known.call("list_approvals") == ({"approvals": []}, True)
        await known.servers.aclose()
    assert [call.headers["authorization"] for call in gateway.calls] == ["Bearer hf-secret"]
