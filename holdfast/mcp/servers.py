"""All MCP servers of a process: what an agent may use of them, and the calls.

What a server lists is asked for once and believed for a while, until it says that it has changed, or until it is
connected to anew. A run is pinned to what it was shown: a call names the digest of its tool, and a tool that has
changed since is not called.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import timedelta

from pydantic import JsonValue

from holdfast.contracts.conversation import MAX_TOOLS
from holdfast.contracts.tools import CatalogEntry
from holdfast.errors import ToolProblem, Unavailable
from holdfast.mcp.listing import Listing, check_server_name, read_listing, shown_name
from holdfast.mcp.results import McpResult
from holdfast.mcp.settings import McpServerSettings

log = logging.getLogger(__name__)

WARM_UP_SECONDS = 10.0
"""How long a process that starts waits for its servers."""
MOST_FORGOTTEN = 3
"""Sessions that a server may forget during one call."""
PATIENCE_SECONDS = 5.0
"""How long a run that begins waits for a server; a start that takes longer goes on in the background."""


class McpServers:
    """The servers of one process, each connected to when it is first needed.

    Args:
        servers: By name, as `config/tools.toml` has them.
        environment: Where the variables that they are handed are looked up.

    Raises:
        ConfigurationError: A name does not fit, or a variable is not set.
    """

    def __init__(self, servers: Mapping[str, McpServerSettings], environment: Mapping[str, str] = os.environ) -> None:
        self._servers: dict[str, _Server] = {}
        for name, settings in servers.items():
            where = f"[mcp.{name}]"
            check_server_name(name, where)
            self._servers[name] = _Server(name, settings, settings.handed(environment, where))

    async def warm_up(self) -> None:
        """Connect to every server and read its list of tools; one that does not answer is only told of in the log."""
        await asyncio.gather(*(server.warm_up() for server in self._servers.values()))

    async def entries(self, server: str, pattern: str) -> tuple[CatalogEntry, ...]:
        """The tools of a server that an agent asks for and the server's allow-list allows.

        Args:
            server: Its name.
            pattern: Names of tools as the server has them; `*`, `?` and `[...]` as in file names.

        Returns:
            At least one and at most 128, in the server's order.

        Raises:
            Unavailable: It does not answer, or has none or too many such tools; the message says which.
        """
        listing = await self._of(server).listing(PATIENCE_SECONDS)
        found = listing.matching(pattern)
        if not found:
            refused = f" Left out: {'; '.join(listing.left_out[:5])}." if listing.left_out else ""
            raise Unavailable(
                f"The MCP server {server!r} has no tool {pattern!r} among the {len(listing.entries)} that `tools` of "
                f"[mcp.{server}] allows, of {listing.listed} that it lists.{refused}"
            )
        if len(found) > MAX_TOOLS:
            raise Unavailable(
                f"The MCP server {server!r} has {len(found)} tools that match {pattern!r}, and a model can be offered "
                f"{MAX_TOOLS}. Name fewer in the agent's file, or in `tools` of [mcp.{server}]."
            )
        return found

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        digest: str,
        timeout: timedelta,
        idempotency_key: str,
    ) -> McpResult:
        """Call a tool once, as it was when the run began.

        A connection that is found closed before anything was sent is opened again; what may have arrived is never
        sent a second time. Cancelling the task sends the server a cancellation.

        Args:
            server: Its name.
            tool: As the server names it.
            arguments: Validated against the parameters that the run was shown.
            digest: Of the tool when the run began.
            timeout: Longest that all of it may take.
            idempotency_key: Sent along, for servers that know `holdfast.idempotency-key`.

        Raises:
            Unavailable: Nothing was sent, because the server cannot be reached; it may be tried again.
            ToolProblem: The tool is gone, has changed or may not be used; nothing was sent. Or the server answered
                with what is no result.
            OutcomeUnknown: It may have taken effect, and nobody knows.
        """
        return await self._of(server).call(
            tool, arguments, digest=digest, seconds=timeout.total_seconds(), key=idempotency_key
        )

    async def aclose(self) -> None:
        """Close every connection and end every program."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    def _of(self, name: str) -> "_Server":
        try:
            return self._servers[name]
        except KeyError:
            raise Unavailable(
                f"There is no MCP server {name!r} in this process. Add [mcp.{name}] to config/tools.toml and restart."
            ) from None


class _Server:
    """One server: its connection and what it lists."""

    def __init__(self, name: str, settings: McpServerSettings, handed: Mapping[str, str]) -> None:
        # The protocol's package takes half a second to load, which a process without servers need not pay.
        from holdfast.mcp import connection

        self._not_sent = connection.NotSent
        self._name = name
        self._settings = settings
        self._connection = connection.Connection(name, settings, handed)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._reading = asyncio.Lock()
        self._listing: Listing | None = None
        self._read_on: object = None
        """The session that the listing was read on."""
        self._read_at = 0.0

    async def warm_up(self) -> None:
        try:
            await self.listing(WARM_UP_SECONDS)
        except Unavailable as error:
            log.warning("%s Runs that need it begin without its tools until it answers.", error)

    async def listing(self, patience_seconds: float) -> Listing:
        """What it lists, asked for again when that is old, was changed, or came over another connection.

        Raises:
            Unavailable: With the server's name and the reason.
        """
        try:
            async with self._reading:
                live = await self._connection.live(patience_seconds)
                loop = asyncio.get_running_loop()
                old = loop.time() - self._read_at > self._settings.discover_every.total_seconds()
                if self._listing is None or self._read_on is not live or live.watch.changed or old:
                    listing = read_listing(self._name, self._settings, await live.list_tools())
                    if listing.left_out and (self._listing is None or self._listing.left_out != listing.left_out):
                        log.warning(
                            "%d tools of the MCP server %r are left out: %s.",
                            len(listing.left_out),
                            self._name,
                            "; ".join(listing.left_out[:10]),
                        )
                    self._listing, self._read_on, self._read_at = listing, live, loop.time()
                return self._listing
        except Unavailable as error:
            raise Unavailable(f"The MCP server {self._name!r} cannot be used: {error}.") from None

    async def call(
        self, tool: str, arguments: Mapping[str, JsonValue], *, digest: str, seconds: float, key: str
    ) -> McpResult:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout_at(until):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(
                f"The MCP server {self._name!r} had {self._settings.concurrency} calls under way for the whole "
                f"{seconds:g} s; raise `concurrency` of [mcp.{self._name}], or ask for less at once."
            ) from None
        forgotten = 0
        try:
            while True:
                listing = await self.listing(max(0.0, until - loop.time()))
                self._check(listing, tool, digest)
                live = await self._connection.live(0)
                try:
                    return await live.call(tool, arguments, seconds=max(0.001, until - loop.time()), key=key)
                except self._not_sent as error:
                    self._connection.drop(live, str(error))
                    forgotten += error.forgotten
                    if forgotten >= MOST_FORGOTTEN:
                        raise ToolProblem(
                            f"Tool {shown_name(tool)} of the MCP server {self._name!r} was not called: the server "
                            f"forgot {forgotten} sessions one after another."
                        ) from None
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        await self._connection.aclose()

    def _check(self, listing: Listing, tool: str, digest: str) -> None:
        entry = listing.entries.get(tool)
        if entry is None:
            raise ToolProblem(
                f"Tool {shown_name(tool)} of the MCP server {self._name!r} was not called: it is no longer among the "
                "tools that the server has and its allow-list allows."
            )
        if entry.digest != digest:
            raise ToolProblem(
                f"Tool {shown_name(tool)} of the MCP server {self._name!r} was not called: it has changed since this "
                "request began. A new request will see it as it is now."
            )
