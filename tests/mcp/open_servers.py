"""What the tests do with servers: find the tools and call them as a run would, pinned to what it was shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import JsonValue

from holdfast.mcp import McpResult, McpServers, McpServerSettings

HOSTILE = Path(__file__).with_name("hostile.py")
PATIENCE = timedelta(minutes=2)


@dataclass
class Open:
    """The servers of a test and the digests of their tools."""

    servers: McpServers
    digests: dict[tuple[str, str], str] = field(default_factory=dict)

    async def pin(self, server: str = "h", pattern: str = "*") -> list[str]:
        """Remember the tools as they are now; returns their names for models."""
        entries = await self.servers.entries(server, pattern)
        self.digests |= {(server, entry.tool): entry.digest for entry in entries}
        return [entry.offer.name for entry in entries]

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, JsonValue] | None = None,
        *,
        server: str = "h",
        timeout: timedelta = PATIENCE,
    ) -> McpResult:
        """Call a tool as it was when it was pinned, which is now if it never was."""
        if (server, tool) not in self.digests:
            await self.pin(server)
        return await self.servers.call(
            server,
            tool,
            arguments or {},
            digest=self.digests[server, tool],
            timeout=timeout,
            idempotency_key="key-1",
        )


def open_servers(servers: Mapping[str, McpServerSettings], environment: Mapping[str, str] | None = None) -> Open:
    """A client of the servers."""
    return Open(McpServers(servers, environment or {}))
