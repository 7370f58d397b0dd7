"""An HTTP server that speaks enough of the protocol to be connected to, and then answers calls as it is told to."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Headers = dict[str, str]


@dataclass
class BadWeb:
    """What it heard, and what it does with a call of a tool."""

    url: str = ""
    answer: str = "ok"
    session: str = "session-1"
    calls: int = 0
    opened: int = 0
    gone: int = 404
    """What a call in a session that it does not know is answered with."""
    unknown: int = 0
    """Such calls."""
    authorization: list[str] = field(default_factory=list)
    streams: int = 0
    """GET requests."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.authorization.append(headers.get("authorization", ""))
            if first.startswith("GET"):
                self.streams += 1
                await (self._once_more(writer) if self.answer == "again" else self._send(writer, 405, b""))
            elif first.startswith("POST"):
                await self._post(writer, json.loads(body), headers)
            else:
                await self._send(writer, 200, b"")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _post(self, writer: asyncio.StreamWriter, message: dict[str, Any], headers: Headers) -> None:
        ident = message.get("id")
        match message.get("method"):
            case "initialize":
                self.opened += 1
                result = {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "bad", "version": "1"},
                }
                await self._json(writer, ident, result, {"mcp-session-id": self.session})
            case "tools/list":
                await self._json(writer, ident, {"tools": [{"name": "act", "inputSchema": {"type": "object"}}]})
            case "tools/call" if self.answer == "forgets" or headers.get("mcp-session-id") != self.session:
                self.unknown += 1
                said = {"code": -32_000, "message": "Bad Request: No valid session ID provided"}
                await self._send(writer, self.gone, json.dumps({"jsonrpc": "2.0", "id": None, "error": said}).encode())
            case "tools/call":
                self.calls += 1
                await self._call(writer, ident)
            case _ if ident is None:
                await self._send(writer, 202, b"")
            case _:
                error = {"jsonrpc": "2.0", "id": ident, "error": {"code": -32601, "message": "unknown"}}
                await self._send(writer, 404, json.dumps(error).encode())

    async def _call(self, writer: asyncio.StreamWriter, ident: Any) -> None:
        match self.answer:
            case "ok":
                await self._json(writer, ident, {"content": [{"type": "text", "text": "done"}]})
            case "huge":
                await self._json(writer, ident, {"content": [{"type": "text", "text": "x" * 5_000_000}]})
            case "gzip":
                result = {"jsonrpc": "2.0", "id": ident, "result": {"content": []}}
                await self._send(writer, 200, gzip.compress(json.dumps(result).encode()), {"content-encoding": "gzip"})
            case "junk":
                await self._send(writer, 200, b"<html>the password is hunter2</html>")
            case "html":
                await self._send(writer, 200, b"<html>", {"content-type": "text/html"})
            case "redirect":
                await self._send(writer, 307, b"", {"location": "http://127.0.0.1:9/elsewhere"})
            case "broken":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{")
                await writer.drain()
            case "drop":
                pass
            case "events":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                padding = b" " * 10_000
                while True:
                    writer.write((b'data: {"jsonrpc": "2.0",%b"method": "notifications/message"}\n\n' % padding) * 10)
                    await writer.drain()
            case "event":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
                while True:
                    writer.write(b"x" * 65_536)
                    await writer.drain()
            case "again":
                await self._once_more(writer)
            case status:
                await self._send(writer, int(status), b"the password is hunter2", {"content-type": "text/plain"})

    async def _once_more(self, writer: asyncio.StreamWriter) -> None:
        """A stream that ends without an answer and asks to be opened again at once."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nid: 1\nretry: 0\ndata:\n\n")
        await writer.drain()

    async def _json(
        self, writer: asyncio.StreamWriter, ident: Any, result: dict[str, Any], headers: Headers | None = None
    ) -> None:
        await self._send(writer, 200, json.dumps({"jsonrpc": "2.0", "id": ident, "result": result}).encode(), headers)

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: Headers | None = None
    ) -> None:
        given = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in (given | (headers or {})).items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()


@asynccontextmanager
async def bad_web() -> AsyncIterator[BadWeb]:
    """Serve on loopback until the block ends."""
    web = BadWeb()
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield web
    finally:
        server.close()
