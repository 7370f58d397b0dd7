"""A server behind an address: streamable HTTP whose answers are bounded, and whose failures say if a call went out.

The protocol package ends a whole connection when one answer cannot be read, and reads an answer of any size. This
transport stands between it and the network: it counts every byte, refuses compressed answers, and turns each failure
into an error answer for the one request it belongs to, signed with a word that the server does not know.
"""

import ipaddress
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest

from holdfast.mcp.stdio import Streams
from holdfast.mcp.watch import LEAST_CHARGE, MAX_MESSAGE, MAX_UNASKED, REQUEST_CHARGE, Watch

_CONNECT_SECONDS = 10.0
_GET_CHARGE = 1024 * 1024
"""What a stream opened again counts: a server that closes each at once may not have us reconnect for ever."""
_CODE: Final = -32_097
_SESSION: Final = "mcp-session-id"


class Failure(StrEnum):
    """What became of one request that got no answer of the protocol."""

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    """401 or 403."""
    EXPIRED = "expired"
    """The server no longer knows the session, so it has not carried the request out."""
    LOST = "lost"
    """Sent, and no answer that can be read: whether it was carried out is unknown."""


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Sends requests through another transport and bounds what comes back.

    Args:
        inner: The network.
        watch: Counts what is received.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch
        self._word = secrets.token_hex(16)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; whatever goes wrong comes back as an error answer."""
        if request.method == "GET":
            if not self._watch.received(_GET_CHARGE):
                return self._instead(Failure.LOST)
            # The stream of what a server says unasked may be silent for as long as the connection lives.
            request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "read": None}
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            return self._instead(Failure.NOT_SENT)
        except httpx2.TransportError:
            return self._instead(Failure.LOST)
        if failure := _failure(request, response):
            await response.aclose()
            return self._instead(failure)
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            raise TypeError("an asynchronous transport returned a synchronous stream")
        if response.status_code == 400 and _SESSION in request.headers:
            return await self._bad_request(response, response.stream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream, self._watch, most=_most(response)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the network."""
        await self._inner.aclose()

    def failure(self, data: object) -> Failure | None:
        """What an error's `data` says if it is one of this transport's own; a server cannot write such a one."""
        if isinstance(data, dict) and data.get("word") == self._word:
            return Failure(str(data["failure"]))
        return None

    async def _bad_request(self, response: httpx2.Response, stream: httpx2.AsyncByteStream) -> httpx2.Response:
        """What a 400 means: that the session is gone, which some servers say so and not by 404, or an answer."""
        said = b""
        bounded = _Bounded(stream, self._watch, most=MAX_MESSAGE)
        try:
            async for piece in bounded:
                said += piece
        except httpx2.StreamError:
            return self._instead(Failure.LOST)
        finally:
            await bounded.aclose()
        if b"session" in said.lower():
            return self._instead(Failure.EXPIRED)
        kept = {name: value for name, value in response.headers.items() if name == "content-type"}
        return httpx2.Response(response.status_code, headers=kept, content=said)

    def _instead(self, failure: Failure) -> httpx2.Response:
        data = {"word": self._word, "failure": failure.value}
        error = {"code": _CODE, "message": failure.value, "data": data}
        return httpx2.Response(503, json={"jsonrpc": "2.0", "id": None, "error": error})


@asynccontextmanager
async def http_transport(
    url: str, headers: Mapping[str, str], read_seconds: float, watch: Watch, bounded: BoundedTransport
) -> AsyncIterator[Streams]:
    """Yield the streams of a server's messages.

    Args:
        url: Its endpoint.
        headers: Sent with each request, credentials among them.
        read_seconds: Longest silence within an answer.
        watch: Counts its messages.
        bounded: The network.
    """
    timeout = httpx2.Timeout(30.0, connect=_CONNECT_SECONDS, read=read_seconds, pool=_CONNECT_SECONDS)
    into, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    # An answer that unpacks to gigabytes is not worth reading.
    sent = {**headers, "Accept-Encoding": "identity"}
    async with (
        into,
        incoming,
        httpx2.AsyncClient(transport=bounded, headers=sent, timeout=timeout) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE) as (messages, outgoing),
        anyio.create_task_group() as group,
    ):
        group.start_soon(_pass_on, messages, into, watch)
        try:
            yield incoming, outgoing
        finally:
            group.cancel_scope.cancel()


def network(url: str) -> httpx2.AsyncHTTPTransport:
    """The way to an address."""
    return httpx2.AsyncHTTPTransport(trust_env=not _is_loopback(httpx2.URL(url).host))


async def _pass_on(
    messages: AsyncIterable[SessionMessage | Exception],
    into: MemoryObjectSendStream[SessionMessage | Exception],
    watch: Watch,
) -> None:
    with into:
        async for item in messages:
            message = item.message if isinstance(item, SessionMessage) else None
            charge = REQUEST_CHARGE if isinstance(message, JSONRPCRequest) else LEAST_CHARGE
            if not watch.received(0, least=charge):
                return
            if message is None:
                watch.junk += 1
                continue
            if isinstance(message, JSONRPCNotification) and message.method != "notifications/tools/list_changed":
                continue
            try:
                await into.send(item)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return


def _failure(request: httpx2.Request, response: httpx2.Response) -> Failure | None:
    status = response.status_code
    if status in (401, 403):
        return Failure.REFUSED
    if status == 404 and _SESSION in request.headers:
        return Failure.EXPIRED
    if status >= 500 or response.headers.get("content-encoding", "identity") != "identity":
        return Failure.LOST
    return None


def _most(response: httpx2.Response) -> int:
    """A body that is one message has a message's size; in a stream of events the reader bounds each event."""
    return MAX_UNASKED if response.headers.get("content-type", "").startswith("text/event-stream") else MAX_MESSAGE


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, watch: Watch, *, most: int) -> None:
        self._inner = inner
        self._watch = watch
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        try:
            async for piece in self._inner:
                left -= len(piece)
                if left < 0:
                    raise httpx2.StreamError(f"more than {self._most} bytes")
                if not self._watch.received(len(piece), least=0):
                    raise httpx2.StreamError(self._watch.reason)
                yield piece
        except httpx2.TransportError as error:
            raise httpx2.StreamError(type(error).__name__) from None

    async def aclose(self) -> None:
        await self._inner.aclose()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
