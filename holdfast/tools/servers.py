"""What the steps around a call see of the MCP servers: their tools as catalog entries, and a call."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from pydantic import JsonValue

from holdfast.contracts import CatalogEntry


class ServerResult(Protocol):
    """What a server's tool returned."""

    @property
    def text(self) -> str:
        """The result, or what went wrong."""
        ...

    @property
    def ok(self) -> bool:
        """Whether the server calls it a success."""
        ...


class Servers(Protocol):
    """`holdfast.mcp.McpServers`, or one of a test's own."""

    async def entries(self, server: str, pattern: str) -> tuple[CatalogEntry, ...]:
        """The tools of a server that match a pattern and may be used.

        Raises:
            Unavailable: The server does not answer.
        """
        ...

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        digest: str,
        timeout: timedelta,
        idempotency_key: str,
    ) -> ServerResult:
        """Call a tool as it was when `digest` was made of it.

        Raises:
            ToolProblem: It cannot be called, or is another one now.
            OutcomeUnknown: It may have been called.
            Unavailable: The server does not answer, and nothing was sent.
        """
        ...
