"""Generates one reply: bills it and writes it, or breaks off as the behaviour says.

The order is the promise: a request is billed when it is accepted, tokens before they are written, and `completed`
before the last byte, so no client ever saw more than is on the bill.
"""

import json
import random
from collections.abc import Mapping
from typing import NoReturn

from simulator.behaviour import Behaviour, Kind
from simulator.bill import Bill, BillEntry
from simulator.error_bodies import written
from simulator.errors import ERROR_KINDS, simulated_error
from simulator.exchange import Exchange
from simulator.model_request import ModelRequest
from simulator.replies import Reply, shown_reply
from simulator.wire import Rendering, Wire

HTML_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>\n"
MOST_TOKENS_A_CHUNK = 8
_LEAST_STREAM_PAUSE = 0.010
_LEAST_BODY_PAUSE = 0.250
"""Seconds. Shorter latencies are added up before a pause: a timer for every token would cost more than the reply."""


class Generation:
    """One request that is to be answered.

    Args:
        exchange: Where the answer goes.
        bill: Records what is generated.
        request: What is asked for.
        behaviour: How it goes.
        whole: The reply before anything goes wrong with it.
        draw: Where random latencies come from.
    """

    def __init__(
        self,
        exchange: Exchange,
        bill: Bill,
        request: ModelRequest,
        behaviour: Behaviour,
        whole: Reply,
        draw: random.Random,
    ) -> None:
        self._exchange = exchange
        self._bill = bill
        self._request = request
        self._behaviour = behaviour
        self._whole = whole
        self._reply = shown_reply(whole, behaviour)
        self._draw = draw
        self._produced = 0

    def first_latency(self) -> float:
        """Seconds to the first token."""
        behaviour = self._behaviour
        milliseconds = behaviour.first_token_ms * behaviour.latency_factor
        if milliseconds and behaviour.first_token_sigma:
            milliseconds *= self._draw.lognormvariate(0, behaviour.first_token_sigma)
        return milliseconds / 1000

    async def run(self, entry: BillEntry, wire: Wire, headers: Mapping[str, str]) -> None:
        """Generate, bill and send.

        Args:
            entry: The request on the bill.
            wire: The format of the answer.
            headers: Response headers.

        Raises:
            ApiError: The answer is an error response, which is still to be sent.
            ClientGone: The client left, or was left.
        """
        if self._behaviour.bill_on_error and self._behaviour.kind.is_withheld:
            self._bill.produce(entry, self._whole.tokens)
        rendering = wire.render(entry.id, self._request, self._reply, entry.prompt, self._behaviour)
        match self._behaviour.kind:
            case Kind.HANG:
                await self._exchange.hang()
            case Kind.DISCONNECT_BEFORE_RESPONSE:
                await self._exchange.break_connection()
            case kind if kind in ERROR_KINDS:
                await self._exchange.pause(self.first_latency())
                raise simulated_error(self._behaviour)
            case Kind.HTML_200:
                await self._generate(entry)
                self._bill.complete(entry)
                html = {**headers, "content-type": "text/html; charset=utf-8"}
                await self._exchange.respond(200, html, HTML_PAGE)
            case _ if self._request.stream:
                await self._send_stream(entry, rendering, headers)
            case _:
                await self._send_body(entry, rendering, wire, headers)

    def _produce(self, entry: BillEntry, tokens: int) -> None:
        """Bill up to the reply's tokens, once: with `bill_on_error` all of them are on the bill already."""
        owed = self._produced + tokens - entry.output_tokens
        self._produced += tokens
        if owed > 0:
            self._bill.produce(entry, owed)

    def _latency(self, tokens: int) -> float:
        """Seconds that tokens take after the first one."""
        behaviour = self._behaviour
        token_ms = behaviour.token_ms * behaviour.latency_factor
        if token_ms == 0:
            return 0.0
        if behaviour.token_sigma == 0:
            return tokens * token_ms / 1000
        draws = (self._draw.lognormvariate(0, behaviour.token_sigma) for _ in range(tokens))
        return sum(draws) * token_ms / 1000

    async def _generate(self, entry: BillEntry) -> None:
        """Let the whole shown reply be produced, without sending it."""
        await self._exchange.pause(self.first_latency())
        tokens = self._reply.tokens
        if self._behaviour.token_ms == 0:
            self._produce(entry, tokens)
            return
        waiting, owed = 0, 0.0
        for position in range(tokens):
            waiting += 1
            owed += self._latency(1) if position else 0.0
            if owed >= _LEAST_BODY_PAUSE or position == tokens - 1:
                await self._exchange.pause(owed)
                self._produce(entry, waiting)
                waiting, owed = 0, 0.0

    async def _send_body(
        self, entry: BillEntry, rendering: Rendering, wire: Wire, given_headers: Mapping[str, str]
    ) -> None:
        await self._generate(entry)
        body = json.dumps(rendering.body(), ensure_ascii=False).encode("utf-8", "replace")
        headers = {**given_headers, "content-type": "application/json"}
        match self._behaviour.kind:
            case Kind.ERROR_MID_STREAM:
                error = simulated_error(self._behaviour)
                await self._exchange.respond(200, headers, written(wire.error(error, None)))
                return
            case Kind.MALFORMED_JSON:
                body = body[: len(body) // 2]
            case Kind.HANG_MID_STREAM | Kind.DISCONNECT_MID_STREAM:
                await self._exchange.start(200, {**headers, "content-length": str(len(body))})
                await self._exchange.write(body[: len(body) // 2])
                await self._break_off()
        self._bill.complete(entry)
        await self._exchange.respond(200, headers, body)

    async def _break_off(self) -> NoReturn:
        if self._behaviour.kind is Kind.HANG_MID_STREAM:
            await self._exchange.hang()
        await self._exchange.break_connection()

    async def _send_stream(self, entry: BillEntry, rendering: Rendering, headers: Mapping[str, str]) -> None:
        exchange, behaviour = self._exchange, self._behaviour
        await exchange.pause(self.first_latency())
        content_type = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        await exchange.start(200, {**headers, **content_type})
        pending = [rendering.opening()]
        waiting, owed, first = 0, 0.0, True
        for delta, tokens in rendering.deltas(1 if behaviour.token_ms else MOST_TOKENS_A_CHUNK):
            owed += self._latency(tokens - 1 if first else tokens)
            first = False
            if owed >= _LEAST_STREAM_PAUSE:
                await self._flush(entry, pending, waiting)
                await exchange.pause(owed)
                waiting, owed = 0, 0.0
            pending.append(delta)
            waiting += tokens
        await exchange.pause(owed)
        match behaviour.kind:
            case Kind.HANG_MID_STREAM | Kind.DISCONNECT_MID_STREAM:
                await self._flush(entry, pending, waiting)
                await self._break_off()
            case Kind.ERROR_MID_STREAM:
                pending.append(rendering.failure(simulated_error(behaviour)))
                self._produce(entry, waiting)
                await exchange.write(b"".join(pending), more=False)
                return
            case Kind.MALFORMED_JSON:
                pending.append(rendering.malformed())
        pending.append(rendering.closing())
        self._produce(entry, waiting)
        self._bill.complete(entry)
        await exchange.write(b"".join(pending), more=False)

    async def _flush(self, entry: BillEntry, pending: list[bytes], tokens: int) -> None:
        self._produce(entry, tokens)
        await self._exchange.write(b"".join(pending))
        pending.clear()
