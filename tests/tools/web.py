"""A web server on the loopback interface whose answers are the very bytes that a test writes, and a resolver of names.

`Web` counts what it is asked, so that a test can say that nothing was sent. It answers one request a connection.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Whole bytes of a response, or a function that writes them as it likes."""


def page(
    body: bytes | str, *, content_type: str = "text/html; charset=utf-8", status: str = "200 OK", headers: str = ""
) -> bytes:
    """The bytes of an ordinary response."""
    content = body.encode() if isinstance(body, str) else body
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    head = f"HTTP/1.1 {status}\r\n{typed}{headers}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def redirect(to: str, status: str = "302 Found") -> bytes:
    """The bytes of a redirect."""
    return page(b"", status=status, headers=f"Location: {to}\r\n")


@dataclass
class Web:
    """The server while it runs."""

    port: int
    answers: dict[str, Answer]
    """By path with its query."""
    asked: list[str] = field(default_factory=list)
    """Request lines and headers, in their order."""

    @property
    def root(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def web(
    answers: Mapping[str, Answer], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Web]:
    """Serve until the context ends."""
    served = Web(port=0, answers=dict(answers))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            served.asked.append(head)
            answer = served.answers.get(head.split(" ")[1], page("not here", status="404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


class Names:
    """A resolver that knows the names it is told, and counts the questions."""

    def __init__(self, *answers: Sequence[str], **names: Sequence[str]) -> None:
        self._answers = list(answers)
        self._names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The next answer in turn when there are any, so that a name can move between two questions."""
        self.asked.append(host)
        if self._answers:
            return self._answers.pop(0)
        if host not in self._names:
            raise OSError("no such name")
        return self._names[host]
