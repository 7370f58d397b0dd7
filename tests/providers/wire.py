"""Model servers made of bytes: what a provider's adapter gets to read, and what comes of it."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from holdfast.errors import ProviderError
from holdfast.providers import HttpStream, Message, ModelCall, ModelEvent, Provider, TextDelta

Handler = Callable[[httpx.Request], httpx.Response]
KEY = "sk-proj-4242secret"


def model_call(**changes: Any) -> ModelCall:
    """A call, with what the test changes."""
    return ModelCall(
        **{
            "model": "gpt-test",
            "messages": (Message("user", "Wie groß ist die Erde? 🌍"),),
            "max_output_tokens": 64,
            "question": "Wie groß ist die Erde? 🌍",
            "attempt_id": "att_1",
            **changes,
        }
    )


def data(value: Any) -> str:
    """A server-sent event that holds a value as JSON, or a string as it is."""
    return f"data: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}\n\n"


class Pieces(httpx.AsyncByteStream):
    """A body in the given pieces."""

    def __init__(self, *pieces: bytes | str) -> None:
        self._pieces = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def answers(
    *pieces: bytes | str, status: int = 200, content_type: str = "text/event-stream", **headers: str
) -> Handler:
    """A server with one answer."""
    named = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda _: httpx.Response(status, headers=named, stream=Pieces(*pieces))


async def exchange(connect: Callable[[HttpStream], Provider], handler: Handler, call: ModelCall) -> list[ModelEvent]:
    """Everything that one call of a provider yields."""
    client = HttpStream(transport=httpx.MockTransport(handler))
    try:
        return [event async for event in connect(client).complete(call)]
    finally:
        await client.aclose()


async def failure(connect: Callable[[HttpStream], Provider], handler: Handler, call: ModelCall) -> ProviderError:
    """What a call that fails raises."""
    with pytest.raises(ProviderError) as caught:
        await exchange(connect, handler, call)
    return caught.value


def joined(events: list[ModelEvent]) -> str:
    """The text of a reply."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))
