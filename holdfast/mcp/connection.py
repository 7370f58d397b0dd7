"""One connection to one server at a time, opened when it is needed, owned by one task, and opened again with backoff.

The task that opens a session is the one that closes it, as the protocol package demands; calls come from any task. A
call that fails says which of three things is known: it was never sent, the server answered, or nobody knows.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

from mcp import Client, MCPError
from mcp.client.session import ClientSession, IncomingMessage
from mcp_types import (
    CONNECTION_CLOSED,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    PaginatedRequestParams,
    ToolListChangedNotification,
)
from pydantic import JsonValue, ValidationError

from holdfast import __version__
from holdfast.errors import OutcomeUnknown, ToolProblem, Unavailable
from holdfast.mcp.http import BoundedTransport, Failure, http_transport, network
from holdfast.mcp.listing import ListedTool
from holdfast.mcp.results import McpResult, cut, read_result
from holdfast.mcp.settings import McpServerSettings
from holdfast.mcp.silence import silence_logs, untraced
from holdfast.mcp.stdio import Launch, Streams, stdio_transport
from holdfast.mcp.watch import Watch

log = logging.getLogger(__name__)

MAX_PAGES = 40
MAX_LISTED = 2_000
"""Most tools that are looked at. The allow-list chooses among them."""
LIST_SECONDS = 10.0
PING_SECONDS = 5.0
CLOSE_SECONDS = 15.0
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
IDEMPOTENCY_KEY = "holdfast.idempotency-key"
"""Where in a call's `_meta` its key stands, for servers that know it."""


_FAILURES = {
    Failure.NOT_SENT: "no connection can be made to it",
    Failure.REFUSED: "it refuses our credentials",
    Failure.EXPIRED: "it no longer knows the session",
    Failure.LOST: "the connection broke, or the answer was compressed or an error of its HTTP server",
}


class NotSent(Unavailable):
    """The server has not carried out the call, so it may be made again.

    Args:
        message: Why.
        forgotten: Whether it saw the call and said that it no longer knows the session.
    """

    def __init__(self, message: str, *, forgotten: bool = False) -> None:
        super().__init__(message)
        self.forgotten = forgotten


def backoff_seconds(failures: int) -> float:
    """How long a server is left alone after so many failures in a row."""
    if failures <= 0:
        return 0.0
    return float(min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16)))


@dataclass
class Live:
    """A session that is open."""

    server: str
    session: ClientSession
    watch: Watch
    failure: Callable[[object], Failure | None] = lambda _: None
    """What the data of an error says, if the error is our transport's own."""
    proven: bool = False
    """Whether a call was answered."""
    _probes: set[asyncio.Task[None]] = field(default_factory=set)

    async def list_tools(self) -> list[ListedTool]:
        """Every tool the server lists, page by page.

        Raises:
            Unavailable: It does not answer, or not with a list of tools.
        """
        self.watch.sent()
        self.watch.changed = False
        found: list[ListedTool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(LIST_SECONDS):
                for _ in range(MAX_PAGES):
                    with untraced():
                        page = await self.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
                    found += [
                        ListedTool(
                            name=tool.name,
                            description=tool.description or "",
                            parameters=tool.input_schema,
                            read_only=bool(tool.annotations and tool.annotations.read_only_hint),
                        )
                        for tool in page.tools
                    ]
                    if page.next_cursor in (None, "", cursor) or len(found) >= MAX_LISTED:
                        break
                    cursor = page.next_cursor
        except TimeoutError:
            raise Unavailable(f"it did not list its tools within {LIST_SECONDS:g} s{self._junk()}") from None
        except MCPError as error:
            raise Unavailable(f"it did not list its tools: {self._explain(error)}") from None
        except (ValidationError, ValueError, RuntimeError):
            raise Unavailable("its list of tools is not one that the protocol knows") from None
        return found[:MAX_LISTED]

    async def call(self, tool: str, arguments: Mapping[str, JsonValue], *, seconds: float, key: str) -> McpResult:
        """Call a tool once.

        Cancelling the caller, or the end of the time, sends the server a cancellation.

        Raises:
            NotSent: The server has not seen the call.
            OutcomeUnknown: It may have been carried out.
            ToolProblem: The server answered with something that is no result.
        """
        params = CallToolRequestParams(name=tool, arguments=dict(arguments), _meta={IDEMPOTENCY_KEY: key})
        self.watch.sent()
        try:
            async with asyncio.timeout(seconds):
                with untraced():
                    # Not `call_tool`, which would run patterns of the server's own over what the server returned.
                    result = await self.session.send_request(CallToolRequest(params=params), CallToolResult)
        except TimeoutError:
            self._probe()
            raise OutcomeUnknown(
                f"{self._tool(tool)} did not answer within {seconds:.3g} s{self._junk()}. It was told to stop; whether "
                "it had taken effect is unknown."
            ) from None
        except MCPError as error:
            return self._answered(tool, error)
        except ValidationError:
            raise ToolProblem(
                f"{self._tool(tool)} answered with something that is no result of a tool, or asked for input that it "
                "cannot be given. It may have taken effect."
            ) from None
        self.proven = True
        blocks = [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in result.content]
        return read_result(blocks, result.structured_content, failed=result.is_error)

    def _answered(self, tool: str, error: MCPError) -> McpResult:
        failure = self.failure(error.data)
        if failure is Failure.REFUSED:
            raise ToolProblem(f"{self._tool(tool)} was not called: its server refuses our credentials.")
        if failure in (Failure.NOT_SENT, Failure.EXPIRED):
            raise NotSent(self._explain(error), forgotten=failure is Failure.EXPIRED)
        lost = failure is Failure.LOST or self.watch.ended.is_set()
        if lost or error.code in (CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT):
            raise OutcomeUnknown(
                f"{self._tool(tool)} gave no answer that can be read: {self._explain(error)}. Whether it had taken "
                "effect is unknown."
            )
        self.proven = True
        return McpResult(cut(error.message) or f"Error {error.code}", ok=False)

    def _explain(self, error: MCPError) -> str:
        """Why, in our own words: a server's might be anything."""
        if failure := self.failure(error.data):
            return _FAILURES[failure]
        if error.code == CONNECTION_CLOSED:
            return self.watch.reason or "the connection closed"
        return self.watch.reason or f"error {error.code} of the protocol"

    def _tool(self, tool: str) -> str:
        return f"Tool {tool[:60]!r} of the MCP server {self.server!r}"

    def _junk(self) -> str:
        return f" ({self.watch.junk} lines it sent were no messages)" if self.watch.junk else ""

    def _probe(self) -> None:
        """See whether a server that left a call unanswered still lives; one that does not is let go of."""
        probe = asyncio.create_task(self._ping())
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                with untraced(), suppress(MCPError, ValidationError):
                    await self.session.send_ping()
        except TimeoutError:
            self.watch.end("it hung: it answered neither a call nor a ping")


class Connection:
    """Holds at most one session with a server.

    Args:
        name: The server's name.
        settings: How it is reached.
        handed: The variables or headers it is given, with their values.
    """

    def __init__(self, name: str, settings: McpServerSettings, handed: Mapping[str, str]) -> None:
        silence_logs()
        self.name = name
        self._settings = settings
        self._handed = dict(handed)
        self._live: Live | None = None
        self._opening: asyncio.Future[Live] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._closed = False

    async def live(self, patience_seconds: float) -> Live:
        """The open session, opened if there is none.

        Args:
            patience_seconds: How long to wait; an opening that takes longer goes on without this caller.

        Raises:
            Unavailable: There is none, with the reason.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_seconds
        while True:
            if self._closed:
                raise Unavailable("this process is closing")
            if self._live is not None and not self._live.watch.ended.is_set():
                return self._live
            if self._opening is None:
                pause = self._not_before - loop.time()
                if pause > until - loop.time():
                    raise Unavailable(f"{self._why}; it is tried again in {pause:.0f} s")
                if pause > 0:
                    await asyncio.sleep(pause)
                    continue
                self._open()
            opening = self._opening
            if opening is None:
                continue
            try:
                async with asyncio.timeout_at(until):
                    return await asyncio.shield(opening)
            except TimeoutError:
                raise Unavailable("it is still starting; try again in a while") from None

    def drop(self, live: Live, reason: str) -> None:
        """End a session that is of no more use; the next caller opens another."""
        live.watch.end(reason)

    async def aclose(self) -> None:
        """Close the session and end the program, if there is one."""
        self._closed = True
        owner = self._owner
        if owner is None:
            return
        if self._watch is not None:
            self._watch.end("this process is closing")
        if self._live is None:
            owner.cancel()
        await asyncio.wait([owner], timeout=CLOSE_SECONDS)
        if not owner.done():
            owner.cancel()
            await asyncio.wait([owner], timeout=CLOSE_SECONDS)

    def _open(self) -> None:
        opening: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting any more when it fails.
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._opening = opening
        self._watch = Watch(self.name)
        before = self._owner
        self._owner = asyncio.create_task(self._own(opening, self._watch, before), name=f"mcp {self.name}")

    async def _own(self, opening: "asyncio.Future[Live]", watch: Watch, before: "asyncio.Task[None] | None") -> None:
        live: Live | None = None
        error: BaseException | None = None
        if before is not None:
            # Two programs at a time could stand in each other's way.
            await asyncio.wait([before], timeout=CLOSE_SECONDS)
        try:
            async with self._session(watch) as live:
                self._live, self._opening = live, None
                opening.set_result(live)
                await watch.ended.wait()
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        except Exception as failure:
            error = failure
        finally:
            self._ended(opening, watch, live, error)

    def _ended(
        self, opening: "asyncio.Future[Live]", watch: Watch, live: Live | None, error: BaseException | None
    ) -> None:
        if self._live is live:
            self._live = None
        if self._opening is opening:
            self._opening = None
        self._why = watch.reason or _reason(error, self._settings)
        watch.end(self._why)
        self._failures = 1 if live is not None and live.proven else self._failures + 1
        self._not_before = asyncio.get_running_loop().time() + backoff_seconds(self._failures)
        if not opening.done():
            opening.set_exception(Unavailable(self._why))
        if not self._closed:
            log.warning("The connection to the MCP server %r ended: %s.", self.name, self._why)

    @asynccontextmanager
    async def _session(self, watch: Watch) -> AsyncIterator[Live]:
        async def noticed(message: IncomingMessage) -> None:
            if isinstance(message, ToolListChangedNotification):
                watch.changed = True

        bounded = BoundedTransport(network(self._settings.url), watch) if self._settings.url else None
        client = Client(
            self._transport(watch, bounded),
            cache=None,
            client_info=Implementation(name="holdfast", version=__version__),
            message_handler=noticed,
        )
        failure = bounded.failure if bounded else _no_failure
        try:
            with untraced():
                async with asyncio.timeout(self._settings.connect_timeout.total_seconds()) as starting, client:
                    starting.reschedule(None)
                    yield Live(self.name, client.session, watch, failure)
        except Exception as error:
            cause = _cause(error)
            if isinstance(cause, MCPError) and (known := failure(cause.data)):
                raise Unavailable(_FAILURES[known]) from None
            raise

    def _transport(self, watch: Watch, bounded: BoundedTransport | None) -> AbstractAsyncContextManager[Streams]:
        settings = self._settings
        if bounded is not None:
            silence = max(settings.timeout.total_seconds() + PING_SECONDS, LIST_SECONDS)
            return http_transport(settings.url, self._handed, silence, watch, bounded)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_CTYPE": "C.UTF-8"} | self._handed
        launch = Launch(settings.command, settings.args, environment, settings.directory, settings.stderr)
        return stdio_transport(launch, watch)


def _no_failure(_: object) -> Failure | None:
    return None


def _cause(error: BaseException) -> BaseException:
    """What failed first, without the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException | None, settings: McpServerSettings) -> str:
    """Why a connection failed, without any text of the server's."""
    match error if error is None else _cause(error):
        case Unavailable() as known:
            return str(known)
        case TimeoutError():
            return f"it did not finish its start within {settings.connect_timeout.total_seconds():g} s"
        case MCPError(code=code):
            return f"it refused the handshake with error {code} of the protocol"
        case OSError(strerror=words):
            return f"it cannot be reached: {words or type(error).__name__}"
        case None:
            return "it closed the connection"
        case other:
            return f"it does not speak the protocol as expected ({type(other).__name__})"
