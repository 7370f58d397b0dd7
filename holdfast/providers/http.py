"""The wire: one request, an answer that is read as it comes. The only module of the library that knows httpx.

It never repeats a request and never follows a redirect: whoever pays decides about that. Proxies and certificate files
are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`), as companies need; cookies are not kept.
Every failure leaves as `TransportFailure`, which says what the bill depends on: whether the request was sent, and
whether an answer had begun.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal

import httpx

from holdfast.providers.classify import FailureKind
from holdfast.providers.protocol import Timeouts
from holdfast.providers.sse import EventDecoder, EventTooLarge

MAX_RESPONSE_BYTES = 32 * 1024 * 1024
"""Largest answer accepted."""

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read."""

_DRAIN_SECONDS = 0.1
"""The end of the body normally arrives together with the last event; a connection read to its end can be used again."""

_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (httpx.ConnectTimeout, "connect_timeout"),
    (httpx.PoolTimeout, "pool_timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.ProxyError, "proxy"),
    (httpx.UnsupportedProtocol, "invalid_url"),
    (httpx.InvalidURL, "invalid_url"),
    (httpx.ReadTimeout, "silence"),
    (httpx.WriteTimeout, "write"),
    (httpx.WriteError, "write"),
    (httpx.DecodingError, "protocol"),
    (httpx.ProtocolError, "protocol"),
)
_NEVER_SENT: frozenset[FailureKind] = frozenset({"connect", "connect_timeout", "pool_timeout", "proxy", "invalid_url"})


class TransportFailure(Exception):
    """No complete answer came.

    Args:
        kind: What failed.
        sent: Whether any of the request may have reached the server.
        after_first_byte: Whether the body of a successful answer had begun.
    """

    def __init__(self, kind: FailureKind, *, sent: bool, after_first_byte: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.sent = sent
        self.after_first_byte = after_first_byte


@dataclass(frozen=True)
class Upload:
    """A file to send in a form, beside the form's other fields."""

    filename: str
    content: bytes
    fields: Mapping[str, str]


class EventResponse:
    """An answer whose body is still under way. Made by `HttpStream`."""

    def __init__(
        self, response: httpx.Response, timeouts: Timeouts, *, dispatched_at: float, deadline: float, max_bytes: int
    ) -> None:
        self.status = response.status_code
        """HTTP status."""
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.multi_items()}
        """Header values by lower-case name."""
        self._chunks = response.aiter_bytes()
        self._between = timeouts.between_tokens.total_seconds()
        self._first_token_by: float | None = dispatched_at + timeouts.first_token.total_seconds()
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._received = 0

    def tokens_begun(self) -> None:
        """Tell that the first token has come: from now on silence is bounded by `between_tokens`."""
        self._first_token_by = None

    async def events(self) -> AsyncGenerator[str, None]:
        """The data of each server-sent event.

        Raises:
            TransportFailure: The stream broke, fell silent, or passed a size bound.
        """
        decoder = EventDecoder()
        while True:
            silent_from = asyncio.get_running_loop().time()
            events: list[str] = []
            while not events:
                chunk = await self._next_chunk(self._first_token_by or silent_from + self._between)
                try:
                    events = decoder.finish() if chunk is None else decoder.feed(chunk)
                except EventTooLarge:
                    raise self._failure("too_large") from None
                if chunk is None:
                    break
            for data in events:
                yield data
            if chunk is None:
                return

    async def read(self, limit: int = MAX_RESPONSE_BYTES) -> bytes:
        """The body, cut off after `limit` bytes.

        Raises:
            TransportFailure: The body broke off, fell silent, or is larger than any answer may be.
        """
        body = bytearray()
        while len(body) < limit:
            silent_from = asyncio.get_running_loop().time()
            if (chunk := await self._next_chunk(silent_from + self._between)) is None:
                break
            body += chunk
        return bytes(body[:limit])

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines that are not empty, as with JSONL.

        Raises:
            TransportFailure: The body broke off, fell silent, or passed a size bound.
        """
        partial = b""
        chunk: bytes | None = b""
        while chunk is not None:
            silent_from = asyncio.get_running_loop().time()
            chunk = await self._next_chunk(silent_from + self._between)
            *lines, partial = (partial + (b"\n" if chunk is None else chunk)).split(b"\n")
            if len(partial) > MAX_RESPONSE_BYTES:
                raise self._failure("too_large")
            for line in lines:
                if line.strip():
                    yield line

    async def drain(self) -> None:
        """Read what little should be left, so that the connection can serve another call."""
        try:
            loop = asyncio.get_running_loop()
            while await self._next_chunk(loop.time() + _DRAIN_SECONDS) is not None:
                pass
        except TransportFailure:
            return  # the reply is complete; only the connection is lost

    async def aclose(self) -> None:
        """Stop reading."""
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()

    async def _next_chunk(self, silent_until: float) -> bytes | None:
        try:
            async with asyncio.timeout_at(min(silent_until, self._deadline)):
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            raise self._failure("total" if silent_until >= self._deadline else "silence") from None
        except (httpx.HTTPError, OSError) as error:
            raise self._failure(_kind_of(error)) from None
        if chunk is not None:
            self._received += len(chunk)
            if self._received > self._max_bytes:
                raise self._failure("too_large")
        return chunk

    def _failure(self, kind: FailureKind) -> TransportFailure:
        begun = self._received > 0 and self.status < 300
        return TransportFailure(kind, sent=True, after_first_byte=begun)


class HttpStream:
    """A pool of connections that sends requests and streams the answers. One serves every provider of a process.

    Args:
        max_connections: Calls in flight at once; further ones wait for `Timeouts.connect`, then fail unsent.
        keepalive: How long an idle connection is kept. Below the 5 s after which common servers close theirs, because
            a request that meets a closing connection may or may not have been billed.
        transport: Replaces the network, in tests. It disables proxies.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1_000,
        keepalive: timedelta = timedelta(seconds=4),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=keepalive.total_seconds(),
        )
        # httpx's own transports connect once (`retries=0` is their default). One passed explicitly, even with the same
        # options, would switch off the proxies of the environment.
        self._client = httpx.AsyncClient(
            transport=transport,
            limits=limits,
            trust_env=True,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._reports_dispatch = transport is None

    @asynccontextmanager
    async def stream_events(
        self, url: str, *, headers: Mapping[str, str], body: Mapping[str, Any], timeouts: Timeouts
    ) -> AsyncIterator[EventResponse]:
        """Post `body` as JSON and read events; see `request`."""
        accepted = {"Accept": "text/event-stream, application/json", **headers}
        async with self.request("POST", url, headers=accepted, body=body, timeouts=timeouts) as response:
            yield response

    @asynccontextmanager
    async def request(
        self,
        method: Literal["GET", "POST"],
        url: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        upload: Upload | None = None,
        timeouts: Timeouts,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> AsyncIterator[EventResponse]:
        """Send one request; leaving the context closes the connection unless the answer was read to its end.

        Args:
            method: `GET` sends no body.
            url: Whole address.
            headers: Beside those that the body demands.
            body: Sent as JSON.
            upload: Sent as a form instead.
            timeouts: `first_token` bounds the wait for the answer's head.
            max_bytes: Largest answer accepted.

        Raises:
            TransportFailure: No answer came. Reading the answer raises it too.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeouts.total.total_seconds()
        connect = timeouts.connect.total_seconds()
        dispatched_at = None if self._reports_dispatch else loop.time()
        bound = asyncio.timeout_at(deadline)

        async def on_trace(event: str, details: Mapping[str, Any]) -> None:
            nonlocal dispatched_at
            if not event.endswith("send_request_headers.started"):
                return
            if details["request"].method == b"CONNECT":  # to a proxy; the provider does not see that one
                bound.reschedule(min(deadline, loop.time() + connect))
            else:
                dispatched_at = loop.time()
                bound.reschedule(min(deadline, dispatched_at + timeouts.first_token.total_seconds()))

        try:
            request = self._client.build_request(
                method,
                url,
                headers={
                    **({} if body is None else {"Content-Type": "application/json"}),
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    **headers,
                },
                # A lone surrogate has no UTF-8 form; it becomes "?" rather than an exception that quotes the prompt.
                content=None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
                data=None if upload is None else dict(upload.fields),
                files=None if upload is None else {"file": (upload.filename, upload.content)},
                timeout=httpx.Timeout(None, connect=connect, pool=connect),
                extensions={"trace": on_trace},
            )
            async with bound:
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            waited_for: FailureKind = "connect_timeout" if dispatched_at is None else "silence"
            kind = "total" if loop.time() >= deadline else waited_for
            raise TransportFailure(kind, sent=dispatched_at is not None) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            kind = _kind_of(error)
            sent = dispatched_at is not None and kind not in _NEVER_SENT
            raise TransportFailure(kind, sent=sent) from None
        events = EventResponse(
            response,
            timeouts,
            dispatched_at=loop.time() if dispatched_at is None else dispatched_at,
            deadline=deadline,
            max_bytes=max_bytes,
        )
        try:
            yield events
        finally:
            await events.aclose()
            await response.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _kind_of(error: Exception) -> FailureKind:
    return next((kind for exception, kind in _KINDS if isinstance(error, exception)), "read")
