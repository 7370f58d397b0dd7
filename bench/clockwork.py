"""`python -m bench.clockwork`: a model whose every token is the moment at which it was sent, in nanoseconds.

It speaks OpenAI's format and sends its tokens one by one at an even pace, so whoever reads them can tell how long each
was on its way. Clocks are compared within one machine only.
"""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

TOKEN = 20
"""Characters of a token: a full stop and nineteen figures."""
_CHUNK = {"id": "chatcmpl-clock", "object": "chat.completion.chunk", "created": 0, "model": "clock"}


def app(*, first_token_s: float, token_s: float, tokens: int) -> Starlette:
    """The model.

    Args:
        first_token_s: Silence before the first token.
        token_s: Time between tokens.
        tokens: Of each answer.
    """

    async def complete(_: Request) -> Response:
        return StreamingResponse(_answer(first_token_s, token_s, tokens), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


async def _answer(first_token_s: float, token_s: float, tokens: int) -> AsyncGenerator[bytes, None]:
    due = time.perf_counter() + first_token_s
    for _ in range(tokens):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        due += token_s
        yield _event([{"index": 0, "delta": {"content": f".{time.time_ns():019d}"}, "finish_reason": None}])
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    yield _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield _event([], usage)
    yield b"data: [DONE]\n\n"


def _event(choices: list[dict[str, object]], usage: dict[str, int] | None = None) -> bytes:
    return f"data: {json.dumps(_CHUNK | {'choices': choices, 'usage': usage})}\n\n".encode()


async def _serve(options: argparse.Namespace) -> None:
    listener = socket.create_server(("127.0.0.1", options.port), backlog=2_048)
    served = app(first_token_s=options.first_token_s, token_s=options.token_s, tokens=options.tokens)
    server = uvicorn.Server(uvicorn.Config(served, log_config=None, access_log=False, lifespan="off"))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await server.serve(sockets=[listener])


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.clockwork")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--first-token-s", type=float, default=1.0)
    parser.add_argument("--token-s", type=float, default=0.05)
    parser.add_argument("--tokens", type=int, default=100)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
