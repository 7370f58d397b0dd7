"""`POST /v1/chat/completions`: decides, bills, and writes the reply or breaks off as the behaviour says.

The order is the promise: a request is billed when it is accepted, tokens before they are written, and `completed`
before the last byte, so no client ever saw more than is on the bill.
"""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.types import Receive, Scope, Send

from simulator.behaviour import Behaviour, BehaviourError, Kind, read_fields
from simulator.bill import Bill, BillEntry
from simulator.chat_request import ChatRequest, read_chat_request
from simulator.errors import ERROR_KINDS, ApiError, limit_error, simulated_error
from simulator.exchange import ClientGone, Exchange
from simulator.program import Program
from simulator.rate_limits import RateLimit
from simulator.replies import Reply, shown_reply, whole_reply

HTML_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>\n"
MOST_TOKENS_A_CHUNK = 8
_LEAST_STREAM_PAUSE = 0.010
_LEAST_BODY_PAUSE = 0.250
"""Seconds. Shorter latencies are added up before a pause: a timer for every token would cost more than the reply."""


class ChatCompletions:
    """The endpoint, as an ASGI application.

    Args:
        program: Decides each call's behaviour.
        bill: Records what is generated.
    """

    def __init__(self, program: Program, bill: Bill) -> None:
        self._program = program
        self._bill = bill
        self._limits: dict[str, RateLimit] = {}
        self._unlimited = RateLimit(None, None)

    def reset(self) -> None:
        """Return to the beginning: an empty bill and script, random draws rewound, rate limits filled up."""
        self._program.reset()
        self._bill.reset()
        self._limits.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        headers = {"x-request-id": f"req_{uuid.uuid4().hex}"}
        try:
            try:
                await self._answer(exchange, headers)
            except ApiError as error:
                headers |= {"content-type": "application/json"} | error.headers
                await exchange.respond(error.status, headers, error.body())
        except ClientGone:
            return

    async def _answer(self, exchange: Exchange, headers: dict[str, str]) -> None:
        request = read_chat_request(await exchange.read_body())
        behaviour = self._program.decide(request.model, _own_fields(exchange.header("x-simulate")))
        limit = self._limit(request.model)
        refusal = limit.take(request.prompt_tokens + (request.max_tokens or behaviour.completion_tokens))
        headers |= limit.headers()
        if refusal is not None:
            raise limit_error(request.model, refusal)
        if behaviour.kind.is_refusal:
            raise simulated_error(behaviour)
        whole = whole_reply(request, behaviour, self._program.seed)
        if behaviour.kind not in ERROR_KINDS or behaviour.bill_on_error:
            entry = self._bill.accept(
                f"chatcmpl-{uuid.uuid4().hex}",
                request.model,
                exchange.header("x-client-request-id"),
                request.prompt_tokens,
            )
            await _Generation(exchange, self._bill, entry, request, behaviour, whole, self._program, headers).run()
        else:
            await exchange.pause(behaviour.first_token_ms / 1000)
            raise simulated_error(behaviour)

    def _limit(self, model: str) -> RateLimit:
        profile = self._program.profile.of(model)
        if profile.requests_per_minute is None and profile.tokens_per_minute is None:
            return self._unlimited
        if model not in self._limits:
            self._limits[model] = RateLimit(profile.requests_per_minute, profile.tokens_per_minute)
        return self._limits[model]


def _own_fields(header: str | None) -> Mapping[str, Any] | None:
    if header is None:
        return None
    try:
        return read_fields(json.loads(header))
    except BehaviourError as error:
        raise behaviour_refused(error) from error
    except ValueError as error:
        raise behaviour_refused(BehaviourError("Header `X-Simulate` is not JSON.", field="X-Simulate")) from error


def behaviour_refused(error: BehaviourError) -> ApiError:
    """422 for a behaviour that cannot be carried out."""
    return ApiError(422, str(error), type="invalid_request_error", code="invalid_behaviour", param=error.field)


class _Generation:
    """One accepted request."""

    def __init__(
        self,
        exchange: Exchange,
        bill: Bill,
        entry: BillEntry,
        request: ChatRequest,
        behaviour: Behaviour,
        whole: Reply,
        program: Program,
        headers: Mapping[str, str],
    ) -> None:
        self._exchange = exchange
        self._bill = bill
        self._entry = entry
        self._request = request
        self._behaviour = behaviour
        self._whole = whole
        self._reply = shown_reply(whole, behaviour)
        self._draw = program.random
        self._headers = headers
        self._produced = 0
        self._created = int(time.time())

    async def run(self) -> None:
        """Generate, bill and send.

        Raises:
            ClientGone: The client left, or was left.
        """
        if self._behaviour.bill_on_error:
            self._bill.produce(self._entry, self._whole.tokens)
        match self._behaviour.kind:
            case Kind.HANG:
                await self._exchange.hang()
            case Kind.DISCONNECT_BEFORE_RESPONSE:
                await self._exchange.break_connection()
            case Kind.ERROR_500 | Kind.ERROR_502:
                await self._exchange.pause(self._behaviour.first_token_ms / 1000)
                raise simulated_error(self._behaviour)
            case Kind.HTML_200:
                await self._generate()
                self._bill.complete(self._entry)
                await self._exchange.respond(200, self._typed("text/html; charset=utf-8"), HTML_PAGE)
            case _ if self._request.stream:
                await self._send_stream()
            case _:
                await self._send_body()

    def _typed(self, content_type: str) -> dict[str, str]:
        return {**self._headers, "content-type": content_type}

    def _produce(self, tokens: int) -> None:
        """Bill up to the reply's tokens, once: with `bill_on_error` all of them are on the bill already."""
        owed = self._produced + tokens - self._entry.completion_tokens
        self._produced += tokens
        if owed > 0:
            self._bill.produce(self._entry, owed)

    def _latency(self, tokens: int) -> float:
        """Seconds that tokens take after the first one."""
        behaviour = self._behaviour
        if behaviour.token_ms == 0:
            return 0.0
        if behaviour.token_sigma == 0:
            return tokens * behaviour.token_ms / 1000
        draws = (self._draw.lognormvariate(0, behaviour.token_sigma) for _ in range(tokens))
        return sum(draws) * behaviour.token_ms / 1000

    async def _generate(self) -> None:
        """Let the whole shown reply be produced, without sending it."""
        await self._exchange.pause(self._behaviour.first_token_ms / 1000)
        tokens = self._reply.tokens
        if self._behaviour.token_ms == 0:
            self._produce(tokens)
            return
        waiting, owed = 0, 0.0
        for position in range(tokens):
            waiting += 1
            owed += self._latency(1) if position else 0.0
            if owed >= _LEAST_BODY_PAUSE or position == tokens - 1:
                await self._exchange.pause(owed)
                self._produce(waiting)
                waiting, owed = 0, 0.0

    async def _send_body(self) -> None:
        await self._generate()
        body = json.dumps(self._completion(), ensure_ascii=False).encode()
        headers = self._typed("application/json")
        match self._behaviour.kind:
            case Kind.MALFORMED_JSON:
                body = body[: len(body) // 2]
            case Kind.HANG_MID_STREAM | Kind.DISCONNECT_MID_STREAM:
                await self._exchange.start(200, {**headers, "content-length": str(len(body))})
                await self._exchange.write(body[: len(body) // 2])
                await self._break_off()
        self._bill.complete(self._entry)
        await self._exchange.respond(200, headers, body)

    async def _break_off(self) -> NoReturn:
        if self._behaviour.kind is Kind.HANG_MID_STREAM:
            await self._exchange.hang()
        await self._exchange.break_connection()

    async def _send_stream(self) -> None:
        exchange, behaviour = self._exchange, self._behaviour
        await exchange.pause(behaviour.first_token_ms / 1000)
        await exchange.start(200, self._typed("text/event-stream; charset=utf-8") | {"cache-control": "no-cache"})
        pending = [self._event({"role": "assistant", "content": "", "refusal": None})]
        waiting, owed, first = 0, 0.0, True
        for delta, tokens in self._reply.deltas(1 if behaviour.token_ms else MOST_TOKENS_A_CHUNK):
            owed += self._latency(tokens - 1 if first else tokens)
            first = False
            if owed >= _LEAST_STREAM_PAUSE:
                await self._flush(pending, waiting)
                await exchange.pause(owed)
                waiting, owed = 0, 0.0
            pending.append(self._event(delta))
            waiting += tokens
        await exchange.pause(owed)
        if behaviour.kind in (Kind.HANG_MID_STREAM, Kind.DISCONNECT_MID_STREAM):
            await self._flush(pending, waiting)
            await self._break_off()
        if behaviour.kind is Kind.MALFORMED_JSON:
            pending.append(self._event({"content": ""})[:60] + b"\n\n")
        pending.append(self._event({}, self._reply.finish_reason))
        if self._request.include_usage and behaviour.kind is not Kind.NO_USAGE:
            pending.append(_sse(self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()}))
        pending.append(b"data: [DONE]\n\n")
        self._produce(waiting)
        self._bill.complete(self._entry)
        await exchange.write(b"".join(pending), more=False)

    async def _flush(self, pending: list[bytes], tokens: int) -> None:
        self._produce(tokens)
        await self._exchange.write(b"".join(pending))
        pending.clear()

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self._entry.id, "object": kind, "created": self._created, "model": self._request.model}

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        if self._request.include_usage:
            chunk["usage"] = None
        return _sse(chunk)

    def _completion(self) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": self._reply.message(),
            "logprobs": None,
            "finish_reason": self._reply.finish_reason,
        }
        completion = self._envelope("chat.completion") | {"choices": [choice]}
        if self._behaviour.kind is not Kind.NO_USAGE:
            completion["usage"] = self._usage()
        return completion

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self._request.prompt_tokens, self._reply.tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": min(self._behaviour.cached_tokens, prompt), "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def _sse(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
