"""A gateway over real sockets whose streams are read event by event, and requests that do what a test says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import httpx

from gateway.server import base_url, serving
from holdfast.configuration import Configuration
from holdfast.contracts import Answer, AnswerDocument, FinishReason, Status, StreamEvent, ToolCall, Usage
from holdfast.ledger import FinishedRequest, Ledger
from tests.gateway.recorded import Edge, opened

USAGE = Usage(input_tokens=30, cache_read_tokens=10, output_tokens=7, cost_usd=Decimal("0.0012"))


@dataclass
class Event:
    """A server-sent event."""

    kind: str
    id: str
    data: Any


@dataclass
class Line:
    """A gateway on a port of its own, with whatever is wrong with the line to it."""

    edge: Edge
    url: str
    http: httpx.AsyncClient
    events: list[Event] = field(default_factory=list)

    async def submitted(self, agent: str = "writer", **body: Any) -> str:
        """Submit a request and return its id."""
        reply = await self.http.post("/v1/requests", json={"agent": agent, "input": "Why?", **body})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    async def publish(self, request_id: str, *pieces: str, attempt: int = 1, end: bool = False) -> None:
        """Let an attempt begin and write some text."""
        await publish(self.edge, request_id, *pieces, attempt=attempt, end=end)

    async def finish(self, request_id: str, text: str, **changes: Any) -> None:
        """Let the request end with an answer."""
        await finish(self.edge, request_id, text, **changes)

    @asynccontextmanager
    async def following(self, request_id: str, last: str | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        """Follow a request from the beginning or from an event's id."""
        headers = {"Last-Event-ID": last} if last else {}
        async with self.http.stream("GET", f"/v1/requests/{request_id}/events", headers=headers, timeout=120) as reply:
            assert reply.status_code == 200, await reply.aread()
            assert reply.headers["content-type"].startswith("text/event-stream")
            yield events_of(reply)

    async def read_all(self, request_id: str, last: str | None = None) -> list[Event]:
        """Follow a request to its end."""
        async with self.following(request_id, last) as events:
            return [event async for event in events]


async def publish(edge: Edge, request_id: str, *pieces: str, attempt: int = 1, end: bool = False) -> None:
    """Let an attempt begin and write some text."""
    offset = 0
    await edge.relay.publish(event(request_id, attempt, 0, "began"))
    for piece in pieces:
        await edge.relay.publish(event(request_id, attempt, offset, "text", piece))
        offset += len(piece)
    if end:
        await edge.relay.publish(event(request_id, attempt, offset, "ended"))


def event(
    request_id: str, attempt: int, offset: int, kind: Literal["began", "text", "ended", "failed"], text: str = ""
) -> StreamEvent:
    """One event of a stream."""
    return StreamEvent(request_id=request_id, attempt=attempt, offset=offset, kind=kind, text=text)


async def finish(
    edge: Edge,
    request_id: str,
    text: str = "",
    *,
    status: Status = Status.COMPLETED,
    reason: str | None = None,
    tool_calls: tuple[ToolCall, ...] = (),
    finish_reason: FinishReason = FinishReason.STOP,
    tainted: tuple[str, ...] = (),
) -> None:
    """Let a request end: in the ledger as `deliver` would, and in the engine."""
    running = edge.engine.executions[request_id]
    [asked] = [request for request in edge.engine.submitted if request.id == request_id]
    completed = status is Status.COMPLETED
    document = AnswerDocument(text=text, tool_calls=tool_calls).model_dump_json() if completed else None
    stored = await edge.ledger.finish(
        FinishedRequest(
            tenant=running.tenant,
            user=running.user,
            agent=running.agent,
            plan_version="0123456789abcdef",
            submitted_at=running.submitted_at,
            finished_at=datetime.now(UTC),
            session=running.session,
            input=asked.input,
            answer=Answer(request_id=request_id, status=status, reason=reason, tainted=tainted),
        ),
        document=document,
        forget_vault=True,
    )
    answer = stored.answer.model_copy(update={"usage": USAGE, "attempts": 1, "finish_reason": finish_reason})
    ended = edge.engine.put(replace(running, status=status, answer=answer, approval=None))
    edge.engine.becomes = lambda execution: ended if execution.request_id == request_id else execution
    await edge.relay.close(request_id)
    edge.engine.run(request_id).end()


async def events_of(reply: httpx.Response) -> AsyncIterator[Event]:
    """The events of a response, as they come."""
    kind, identity = "message", ""
    data: list[str] = []
    async for line in reply.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind, identity, json.loads("\n".join(data)))
            kind, data = "message", []
        elif name == "event":
            kind = value
        elif name == "id":
            identity = value
        elif name == "data":
            data.append(value)


@asynccontextmanager
async def on_the_line(configuration: Configuration, ledger: Ledger, /, **settings: Any) -> AsyncIterator[Line]:
    """A gateway on a port of its own."""
    gateway = opened(configuration, ledger, **settings)
    async with serving(gateway.app, "127.0.0.1", 0) as port:
        url = base_url("127.0.0.1", port)
        async with httpx.AsyncClient(base_url=url) as http:
            yield Line(gateway.edge, url, http)
