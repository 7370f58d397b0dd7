"""The tools of `holdfast mcp`, and how they are served."""

import asyncio
import hmac
import os
import socket
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, Tool, ToolAnnotations
from pydantic import Field, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.client import Document, GatewayClient
from cli.mcp_arguments import misnamed, told, unfit
from cli.output import Output, Problem
from holdfast import __version__

LOOPBACK = "127.0.0.1"
PATH = "/mcp"
MOST_WAIT_SECONDS = 300

_INSTRUCTIONS = (
    "Holdfast runs requests of its agents durably: they survive crashes, keep to budgets and may wait for people. "
    "Submit a request, then read it until its status is no longer running. Status waiting means that people have to "
    "decide; that cannot be done from here."
)

Agent = Annotated[str, Field(min_length=1, max_length=64, description="Name of the agent, such as docs.")]
Text = Annotated[str, Field(min_length=1, description="What to ask or have done.")]
Session = Annotated[str, Field(max_length=128, description="Conversation that the request belongs to.")]
Key = Annotated[
    str, Field(max_length=255, description="The same key and input are one request, however often it is submitted.")
]
Wait = Annotated[
    float,
    Field(ge=0, le=MOST_WAIT_SECONDS, description="Seconds to wait for the answer, or for a question to people."),
]
RequestId = Annotated[str, Field(min_length=1, max_length=128, description="The request's id, like req_...")]


def build_server(client: GatewayClient) -> MCPServer[None]:
    """The three tools, each a call of the gateway's API.

    Args:
        client: Says which gateway, and who acts.
    """
    server = ToolServer(
        "holdfast", title="Holdfast", instructions=_INSTRUCTIONS, version=__version__, log_level="CRITICAL"
    )
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
    def submit_request(
        agent: Agent, input: Text, session: Session = "", idempotency_key: Key = "", wait_seconds: Wait = 30
    ) -> Document:
        """Give a task to a Holdfast agent. Returns its answer, or its id and status when it takes longer."""
        return _told(lambda: client.submit(agent, input, key=idempotency_key, session=session, wait=wait_seconds))

    @server.tool(annotations=looks)
    def read_request(request_id: RequestId, wait_seconds: Wait = 0) -> Document:
        """Read a request: status, progress, and the answer once it has completed."""
        return _told(lambda: client.request(request_id, wait=wait_seconds, progress=True))

    @server.tool(annotations=looks)
    def list_approvals() -> Document:
        """List what waits for a decision of the user this server acts for. Decisions are for people to take."""
        return _told(lambda: {"approvals": client.approvals()})

    return server


class ToolServer(MCPServer[None]):
    """Answers arguments that do not fit in our words: the package would hand out what pydantic prints."""

    async def list_tools(self) -> list[Tool]:
        """The tools; no parameter but those that are listed is taken."""
        listed = await super().list_tools()
        return [
            tool.model_copy(update={"input_schema": {**tool.input_schema, "additionalProperties": False}})
            for tool in listed
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool.

        Raises:
            ToolError: There is no such tool, the arguments do not fit, or the gateway refused.
        """
        schemas = {tool.name: tool.input_schema for tool in await self.list_tools()}
        if name not in schemas:
            raise ToolError(f"There is no tool {name[:64]!r}; there are {', '.join(f'`{one}`' for one in schemas)}.")
        if flaws := misnamed(schemas[name], arguments):
            raise ToolError(told(name, flaws))
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = [str(flaw["loc"][0]) for flaw in error.__cause__.errors(include_input=False, include_url=False)]
            raise ToolError(told(name, unfit(schemas[name], wrong))) from None


def serve_stdio(client: GatewayClient) -> None:
    """Serve one client until it closes standard input."""
    build_server(client).run("stdio")


def serve_http(client: GatewayClient, port: int, output: Output) -> None:
    """Serve any number of clients on this machine until SIGINT or SIGTERM.

    With an API key, the key's powers would be lent to whoever reaches the port; so clients have to present it too.

    Raises:
        Problem: The port is taken.
    """
    api_key = os.environ.get("HOLDFAST_API_KEY", "")
    app: ASGIApp = build_server(client).streamable_http_app(streamable_http_path=PATH, host=LOOPBACK)
    if api_key:
        app = KeyRequired(app, api_key)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise Problem(
                f"Port {port} cannot be listened on: {error.strerror}.", remedy="Choose another with --port, or 0."
            ) from None
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}{PATH}"
        output.say(f"Serving MCP at {address}; the gateway is {client.url}.")
        if api_key:
            output.say("Clients have to present HOLDFAST_API_KEY as a bearer token.")
        output.next("stop with Ctrl-C")
        _run(app, [listening])


def _run(app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
    config = uvicorn.Config(app, log_level="critical", lifespan="on")
    asyncio.run(uvicorn.Server(config).serve(sockets=list(sockets)))


class KeyRequired:
    """Lets a request pass that presents the key, and answers any other with 401.

    Args:
        app: What is served.
        key: The one key that opens it.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or the lifespan."""
        presented = dict(scope.get("headers", [])).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(presented, self._expected):
            headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


def _told(ask: Callable[[], Document]) -> Document:
    """What the gateway says; its refusal is told to the agent in its words.

    Raises:
        ToolError: The gateway refused, or does not answer.
    """
    try:
        return ask()
    except Problem as problem:
        raise ToolError(" ".join(part for part in (str(problem), problem.remedy) if part)) from None
