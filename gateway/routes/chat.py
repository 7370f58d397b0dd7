"""`/v1/chat/completions`: OpenAI's API; `model` names an agent."""

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from gateway.body import read_object
from gateway.chat import replies
from gateway.chat.body import ChatBody, question_of
from gateway.chat.stream import ChatStream
from gateway.context import CallerOf, GatewayOf
from gateway.event_stream import EventStream
from gateway.openapi import body_of
from gateway.submission import read_key
from gateway.validation import validate

router = APIRouter(tags=["chat"])

SESSION = "X-Holdfast-Session"
"""Header that names the conversation, for clients that cannot send `metadata`."""


@router.post("/v1/chat/completions", openapi_extra=body_of(ChatBody))
async def complete(http: Request, gateway: GatewayOf, caller: CallerOf) -> Response:
    """Ask an agent and wait for its answer, or stream it while it is written."""
    key = read_key(http.headers)
    body = await read_object(http, gateway.settings.max_body_bytes)
    given = validate(ChatBody, body)
    asked = question_of(given, gateway.configuration.agent(given.model), http.headers.get(SESSION))
    accepted = await gateway.intake.accept(caller, asked, body, key)
    headers = {replies.REQUEST_ID: accepted.execution.request_id}
    if given.stream:
        stream = ChatStream(gateway, accepted, with_usage=given.with_usage)
        return EventStream(
            stream.write,
            heartbeat=gateway.settings.heartbeat,
            stopping=gateway.draining,
            on_stop=stream.on_stop,
            on_gone=stream.on_gone,
            headers=headers,
        )
    try:
        execution = await gateway.settle(
            accepted.execution, gateway.settings.chat_wait, http=http, through_approval=True
        )
    except ClientDisconnect:
        await gateway.abandon(accepted)
        raise
    if not execution.status.is_final and gateway.draining.is_set():
        raise replies.stopping(execution)
    execution, document = await gateway.complete(execution)
    if document is None or execution.answer is None:
        raise replies.no_answer(execution)
    return JSONResponse(replies.completion(execution, execution.answer, document), headers=headers)
