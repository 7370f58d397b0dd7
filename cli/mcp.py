"""`mcp`: Holdfast as a server of the Model Context Protocol, so that other agents can hand work to it.

Like the other verbs it is an HTTP client of the gateway and acts as one user. It can ask and look, and it cannot
decide: an approval is a person's word, and an agent that could give it to itself would need none.
"""

from typing import Annotated

import typer

from cli.client import GatewayClient
from cli.options import Url, User
from cli.output import Output


def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP on loopback instead of stdio.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port for --http; 0 takes a free one.")] = 8092,
    url: Url = "",
    user: User = "",
) -> None:
    """Serve Holdfast to other agents as MCP tools: submit_request, read_request, list_approvals. Until Ctrl-C."""
    # The protocol's package takes half a second to load, which no other verb should pay.
    from cli import mcp_server

    output = Output(as_json=False)
    with GatewayClient(url, user) as client:
        if http:
            mcp_server.serve_http(client, port, output)
        else:
            # Standard output belongs to the protocol; what a person may read goes to standard error.
            output.note(f"Serving MCP on standard input and output; the gateway is {client.url}.")
            mcp_server.serve_stdio(client)
