"""One HTTP exchange at the ASGI level: pauses that notice a client who left, and connections broken on purpose.

Written against ASGI rather than `Request`/`StreamingResponse`, which start a task group for every response.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.types import Receive, Scope, Send

TRANSPORT = "simulator.transport"
"""Key in the ASGI `state` under which the server leaves the connection's transport."""


class ClientGone(Exception):
    """The client closed the connection before the response was complete."""


class Exchange:
    """A request being answered.

    Args:
        scope: ASGI scope.
        receive: ASGI receive.
        send: ASGI send.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.status: int | None = None
        """HTTP status, once a response was begun."""
        self.broken = False
        """Whether the connection was closed on purpose."""

    def header(self, name: str) -> str | None:
        """A request header by its lowercase name."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("utf-8", "replace")

    async def read_body(self) -> bytes:
        """The request body.

        Raises:
            ClientGone: The client left while sending it.
        """
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(body)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and headers."""
        self.status = status
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole response."""
        await self.start(status, {**headers, "content-length": str(len(body))})
        await self.write(body, more=False)

    async def pause(self, seconds: float) -> None:
        """Let time pass; returns at once for 0.

        Raises:
            ClientGone: The client left meanwhile.
        """
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.hang()
            except TimeoutError:
                return

    async def hang(self) -> NoReturn:
        """Do nothing until the client leaves; the body has been read, so no other message can come.

        Raises:
            ClientGone: Always.
        """
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise ClientGone

    async def break_connection(self) -> NoReturn:
        """Close the TCP connection after what was written, with no terminator of the response.

        Raises:
            ClientGone: Always.
        """
        state: dict[str, Any] = self._scope.get("state", {})
        transport = state.get(TRANSPORT)
        # Not a test for asyncio's class: uvloop's transports do not inherit from it.
        if transport is None:
            raise RuntimeError("Connections can be broken only under `simulator.server`, which lends the transport.")
        self.broken = True
        transport.close()
        await self.hang()
