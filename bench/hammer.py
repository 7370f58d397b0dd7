"""`python -m bench.hammer`: sends one request again and again over kept connections, and prints how it was answered.

Written on bare sockets, because a load generator on a general HTTP client would be measured instead of the server. It
reads JSON from its arguments and writes JSON: answers, seconds, latencies in milliseconds, and CPU seconds of its own.
"""

import argparse
import asyncio
import json
import re
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.figures import spread_ms

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """One kept connection with one request on its way at a time."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._sent = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.latencies: list[float] = []
        self.failures = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not a test for asyncio's class: uvloop's transports do not inherit from it.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head + b"\r\n")
        if length is None or len(body) < int(length[1]):
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failures += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if now < self._until:
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the protocol names it
        if not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        if self._transport is not None:
            self._transport.write(self._request)


async def hammer(url: str, body: bytes, *, connections: int, seconds: float) -> dict[str, object]:
    """Keep a number of requests on their way for a while."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    started, cpu = time.perf_counter(), time.process_time()
    opened = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(head.encode() + body, started + seconds),
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        opened.append(connection)
    await asyncio.gather(*(connection.over for connection in opened))
    latencies = [latency for connection in opened for latency in connection.latencies]
    elapsed = time.perf_counter() - started
    return {
        "connections": connections,
        "answers": len(latencies),
        "failures": sum(connection.failures for connection in opened),
        "per_second": round(len(latencies) / elapsed, 1),
        "latency_ms": spread_ms(latencies),
        "generator_cpu_ms_per_request": round((time.process_time() - cpu) / max(len(latencies), 1) * 1000, 3),
    }


def main() -> None:
    """Read the arguments and print the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.hammer")
    parser.add_argument("url")
    parser.add_argument("--body", required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    found = uvloop.run(
        hammer(options.url, options.body.encode(), connections=options.connections, seconds=options.seconds)
    )
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
