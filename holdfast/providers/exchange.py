"""One streamed exchange with a model server, whatever shape its replies have."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Protocol

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.classify import classify, classify_transport
from holdfast.providers.http import MAX_ERROR_BYTES, EventResponse, HttpStream, TransportFailure
from holdfast.providers.pieces import MalformedChunk
from holdfast.providers.protocol import Completed, ModelEvent, TextDelta, Timeouts, ToolCallDelta

_DONE = "[DONE]"
"""OpenAI's last event, which is not JSON."""


class Reply(Protocol):
    """A reply under construction. Knows one API's shape and does no I/O."""

    requested: str
    """The model asked for."""
    chunks: int
    """Chunks folded in."""
    tokens_begun: bool
    """Whether anything was generated yet, shown or not."""
    failed: bool
    """Whether the server ended the reply with a reason that means failure."""
    ended: bool
    """Whether nothing follows."""

    @property
    def finished(self) -> bool:
        """Whether the server said why it stopped, so that the text is whole."""
        ...

    def error_in(self, chunk: Any) -> Any | None:
        """The error that a chunk is or carries."""
        ...

    def add(self, chunk: Any) -> list[TextDelta | ToolCallDelta]:
        """Fold a chunk in, or raise `MalformedChunk`."""
        ...

    def completed(self) -> Completed:
        """The end of the reply."""
        ...


async def converse(
    client: HttpStream,
    url: str,
    *,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    timeouts: Timeouts,
    reply: Reply,
) -> AsyncGenerator[ModelEvent, None]:
    """Post `body` once, and yield what comes of it as `reply` understands it.

    Raises:
        ProviderError: Classified; see `Provider.complete`.
    """
    status: int | None = None
    try:
        async with client.stream_events(url, headers=headers, body=body, timeouts=timeouts) as response:
            status = response.status
            if status != 200:
                raise await refusal(response, reply.requested)
            async with aclosing(_pieces(response, reply)) as pieces:
                async for piece in pieces:
                    yield piece
    except TransportFailure as failure:
        if not reply.finished:
            raise classify_transport(
                failure.kind,
                sent=failure.sent,
                after_first_byte=failure.after_first_byte,
                model=reply.requested,
                status=status,
            ) from None
    if reply.failed:
        raise _broken(reply.requested, "the server ended it with a reason that means failure")
    yield reply.completed()


async def refusal(response: EventResponse, model: str) -> ProviderError:
    """The error that an answer other than 200 stands for."""
    try:
        body = await response.read(MAX_ERROR_BYTES)
    except TransportFailure:
        body = b""  # the status alone says enough
    return classify(response.status, response.headers, body, now=datetime.now(UTC), model=model)


async def _pieces(response: EventResponse, reply: Reply) -> AsyncGenerator[TextDelta | ToolCallDelta, None]:
    """Fold the answer's body into `reply` and yield its pieces as they come.

    Raises:
        ProviderError: The body is not a whole reply.
        TransportFailure: It broke off.
    """
    if "json" in response.headers.get("content-type", ""):
        for piece in _fold(await response.read(), response, reply):
            yield piece
        return
    if "html" in response.headers.get("content-type", ""):
        raise _unreadable(reply.requested, "an HTML page")
    done = False
    async with aclosing(response.events()) as events:
        async for data in events:
            if data.strip() == _DONE:
                done = True
                await response.drain()
                break
            try:
                pieces = _fold(data, response, reply)
            except ProviderError:
                if reply.finished:  # the text is whole; only the count is lost
                    return
                raise
            if reply.tokens_begun:
                response.tokens_begun()
            for piece in pieces:
                yield piece
            if reply.ended:
                done = True
                await response.drain()
                break
    if reply.chunks == 0:
        raise _unreadable(reply.requested, "no chunk of a reply")
    if not (done or reply.finished):
        raise _broken(reply.requested, "it ended without a finish reason")


def _fold(data: str | bytes, response: EventResponse, reply: Reply) -> list[TextDelta | ToolCallDelta]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        raise _misshapen(reply, "something that is not JSON") from None
    if (error := reply.error_in(chunk)) is not None:
        raise classify(
            response.status,
            response.headers,
            error,
            now=datetime.now(UTC),
            model=reply.requested,
            begun=reply.tokens_begun,
        )
    try:
        return reply.add(chunk)
    except MalformedChunk:
        raise _misshapen(reply, "JSON that is no part of a reply") from None


def _misshapen(reply: Reply, what: str) -> ProviderError:
    return _unreadable(reply.requested, what) if reply.chunks == 0 else _broken(reply.requested, f"it held {what}")


def _unreadable(model: str, what: str) -> ProviderError:
    return ProviderError(
        f"Model {model!r} answered HTTP 200 with {what}; the call may have been billed. "
        "Check that the deployment's `base_url` is the base of the API that its `provider` names.",
        outcome=Outcome.UNKNOWN,
        status=200,
    )


def _broken(model: str, how: str) -> ProviderError:
    return ProviderError(
        f"The reply of model {model!r} broke off: {how}; what came of it is billed.",
        outcome=Outcome.BROKEN_STREAM,
        status=200,
    )
