"""`/v1/requests/{id}/events`: a request as it happens, milestones and text, from any point on, as often as asked."""

import asyncio
import json
import re
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway import representations
from gateway.context import CallerOf, Gateway, GatewayOf
from gateway.event_stream import EventStream, Sink
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.milestones import Milestone
from gateway.problems import Problem, problem_of, reference_of
from gateway.routes.requests import RequestId, find_request
from gateway.sse import encode
from gateway.text import Shown
from holdfast.contracts import EventKind
from holdfast.errors import HoldfastError

router = APIRouter(prefix="/v1/requests", tags=["requests"])

RETRY = timedelta(seconds=2)
"""How long a client waits before it connects again."""

_ID = re.compile(r"m(\d{1,9})\.(a\d{1,9}\.o\d{1,15}\.c[0-9a-f]{8})(\.done)?")
_TYPES = {
    EventKind.APPROVAL_OPENED: "approval",
    EventKind.APPROVAL_ESCALATED: "approval",
    EventKind.APPROVAL_REMINDED: "approval",
    EventKind.DECISION_ACCEPTED: "approval",
    EventKind.DECISION_REFUSED: "approval",
    EventKind.TOOL_STARTED: "tool",
    EventKind.TOOL_FINISHED: "tool",
    EventKind.TOOL_FAILED: "tool",
}
"""What an event of the stream is called; all other milestones are steps."""


@router.get("/{request_id}/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def follow(
    request_id: RequestId,
    http: Request,
    gateway: GatewayOf,
    caller: CallerOf,
    last_event_id: Annotated[str | None, Query(description="Instead of the header Last-Event-ID.")] = None,
) -> Response:
    """Server-sent events: `step`, `tool`, `approval`, `text`, `restart`, `done`, `error`. 204 when all was read."""
    given = last_event_id or http.headers.get("last-event-id") or ""
    milestones, shown, done = _position(given) if given else (0, Shown(), False)
    execution = await find_request(gateway, request_id, caller)
    if done:
        # What makes an EventSource stop connecting again (WHATWG HTML, section 9.2.2).
        return Response(status_code=204)
    reader = _Reader(gateway, http, caller, execution, milestones, shown)
    return EventStream(reader.write, heartbeat=gateway.settings.heartbeat, stopping=gateway.draining)


class _Reader:
    """One client's way through one request.

    Args:
        gateway: What it reads from.
        http: The client's call, named in errors.
        caller: Who reads.
        execution: The request as it was found.
        milestones: Sequence number of the last milestone that the client has.
        shown: The text that it has.
    """

    def __init__(
        self, gateway: Gateway, http: Request, caller: Caller, execution: Execution, milestones: int, shown: Shown
    ) -> None:
        self._gateway = gateway
        self._http = http
        self._caller = caller
        self._execution = execution
        self._milestones = milestones
        self._shown = shown
        self._turn = asyncio.Lock()
        """Held from naming a position to having sent it, because two tasks write."""

    async def write(self, sink: Sink) -> None:
        """Write everything that the client has not had yet, until the request has ended."""
        await sink.write(encode(retry=RETRY))
        try:
            if self._execution.status.is_final:
                for milestone in await self._gateway.milestones.so_far(self._execution):
                    await self._tell(sink, milestone)
            else:
                await self._live(sink)
            await self._finish(sink)
        except HoldfastError as error:
            if (problem := problem_of(error)) is None:
                raise
            document = problem.document(self._http.url.path, reference_of(self._http))
            await sink.write(encode(json.dumps(document, ensure_ascii=False), event="error"))

    async def _live(self, sink: Sink) -> None:
        text = asyncio.create_task(self._text(sink))
        try:
            async with self._gateway.milestones.following(self._execution) as followed:
                next_one = 0
                while True:
                    while next_one < len(followed.milestones):
                        await self._tell(sink, followed.milestones[next_one])
                        next_one += 1
                    if followed.failure is not None:
                        raise followed.failure
                    if followed.over:
                        return
                    await followed.change()
        finally:
            text.cancel()
            with suppress(asyncio.CancelledError):
                await text

    async def _text(self, sink: Sink) -> None:
        as_json = self._gateway.writes_json(self._execution)
        async with aclosing(self._gateway.text.follow(self._execution, self._shown, as_json=as_json)) as pieces:
            async for piece in pieces:
                if piece.kind == "restart":
                    await self._restart(sink, piece.shown, "a newer attempt began")
                else:
                    await self._add(sink, piece.text, piece.shown)

    async def _finish(self, sink: Sink) -> None:
        """The rest of the text from the stored answer, and the request as it ended."""
        gateway = self._gateway
        found = await gateway.find(self._execution.request_id, self._caller)
        if not found.status.is_final:
            # The run ended after it had told so, and its description lags behind.
            found = await gateway.settle(found, gateway.settings.max_wait, through_approval=True)
        execution, document = await gateway.complete(found)
        if document is not None:
            attempt = max(self._shown.attempt, execution.answer.attempts if execution.answer else 0)
            if not self._shown.begins(document.text):
                await self._restart(sink, Shown(attempt), "the answer is another text than the one shown")
            self._shown = replace(self._shown, attempt=attempt)
            if rest := document.text[self._shown.offset :]:
                await self._add(sink, rest, self._shown.plus(rest))
        shown = representations.request(execution, gateway.links, document)
        await sink.write(encode(_json(shown), event="done", id=f"{self._id(self._shown)}.done"))

    async def _tell(self, sink: Sink, milestone: Milestone) -> None:
        event = milestone.event
        if event.sequence <= self._milestones:
            return
        data = event.model_dump(mode="json")
        if milestone.question is not None:
            data["approval"] = representations.question(milestone.question)
        kind = _TYPES.get(event.kind, "step")
        async with self._turn:
            await sink.write(encode(_json(data), event=kind, id=f"m{event.sequence}.{self._shown}"))
            # Only what was handed to the server counts: a task that is stopped while it waits has sent nothing.
            self._milestones = event.sequence

    async def _add(self, sink: Sink, text: str, shown: Shown) -> None:
        data = _json({"attempt": shown.attempt, "text": text})
        async with self._turn:
            await sink.write(encode(data, event="text", id=self._id(shown)))
            self._shown = shown

    async def _restart(self, sink: Sink, shown: Shown, reason: str) -> None:
        data = _json({"attempt": shown.attempt, "reason": reason})
        async with self._turn:
            await sink.write(encode(data, event="restart", id=self._id(shown)))
            self._shown = shown

    def _id(self, shown: Shown) -> str:
        return f"m{self._milestones}.{shown}"


def _position(given: str) -> tuple[int, Shown, bool]:
    match = _ID.fullmatch(given)
    if match is None:
        raise Problem(
            400,
            "invalid-header",
            "Invalid header",
            "Last-Event-ID is not the id of an event of this stream.",
            remedy="Send the `id` of the last event you have as it came, or leave it out to read from the beginning.",
            field="Last-Event-ID",
        )
    return int(match[1]), Shown.read(match[2]), bool(match[3])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
