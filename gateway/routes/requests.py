"""`/v1/requests`: submit, read, list and cancel."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from gateway import representations
from gateway.body import read_object
from gateway.context import CallerOf, Gateway, GatewayOf, Limit, Wait, caller_of, gateway_of
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.openapi import body_of
from gateway.pages.questions import text_of
from gateway.problems import Problem
from gateway.submission import Question, Submission, read_key
from gateway.validation import validate
from holdfast.contracts import AnswerDocument, Progress, Status

router = APIRouter(prefix="/v1/requests", tags=["requests"])

_ID = re.compile(r"req_[0-9a-z]{8,60}")
RequestId = Annotated[str, Path(description="A request id, `req_...`.")]


@router.post("", status_code=202, openapi_extra=body_of(Submission))
async def submit(http: Request, wait: Wait = None) -> Response:
    """Submit a request. 202 while it runs or waits for a person, 200 with the answer when it ended within `wait`."""
    # Asked for by hand: the framework's dependencies are a fifth of what an answer at the edge costs.
    gateway, caller = await gateway_of(http), await caller_of(http)
    longest = gateway.longest(wait)
    key = read_key(http.headers)
    body = await read_object(http, gateway.settings.max_body_bytes)
    accepted = await gateway.intake.accept(caller, Question.of(validate(Submission, body)), body, key)
    if accepted.edge is not None:
        return _shown(gateway, accepted.execution, accepted.edge.document)
    try:
        execution = await gateway.settle(accepted.execution, longest, http=http)
    except ClientDisconnect:
        await gateway.abandon(accepted)
        raise
    return await _response(gateway, execution, unfinished=202)


@router.get("")
async def list_requests(
    gateway: GatewayOf,
    caller: CallerOf,
    status: Status | None = None,
    agent: Annotated[str | None, Query(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = None,
    limit: Limit = 50,
) -> Response:
    """The tenant's requests, the latest first."""
    found = await gateway.engine.requests(caller.tenant, status=status, agent=agent, limit=limit + 1)
    return JSONResponse(
        {
            "requests": [representations.row(execution, gateway.links) for execution in found[:limit]],
            "more": len(found) > limit,
        }
    )


@router.get("/{request_id}")
async def read(
    request_id: RequestId,
    http: Request,
    gateway: GatewayOf,
    caller: CallerOf,
    wait: Wait = None,
    progress: bool = False,
) -> Response:
    """One request, with its answer once it has one, and with `progress=true` the steps it has taken."""
    longest = gateway.longest(wait)
    execution = await gateway.settle(await find_request(gateway, request_id, caller), longest, http=http)
    return await _response(gateway, execution, unfinished=200, progress=progress)


@router.post("/{request_id}/cancel", status_code=202)
async def cancel(request_id: RequestId, gateway: GatewayOf, caller: CallerOf) -> Response:
    """Ask a request to stop; the model call under way is broken off. 409 when it has ended already."""
    execution = await find_request(gateway, request_id, caller)
    if execution.status.is_final:
        raise Problem(
            409,
            "already-final",
            "Already final",
            "The request has ended and cannot be cancelled.",
            remedy="Nothing needs to be done; read the request to see how it ended.",
            field="id",
        )
    await gateway.engine.cancel(execution.request_id, f"cancelled by {caller.user}")
    shown = representations.request(execution, gateway.links) | {"cancel_requested": True}
    return JSONResponse(shown, status_code=202, headers={"Location": gateway.links.request(request_id)})


async def find_request(gateway: Gateway, request_id: str, caller: Caller) -> Execution:
    """A request of the caller's tenant by the id that a client gave; see `Gateway.find`."""
    # An id of another form names nothing; ingestions, for one, are not requests.
    return await gateway.find(request_id if _ID.fullmatch(request_id) else "req_none", caller)


async def _response(gateway: Gateway, execution: Execution, *, unfinished: int, progress: bool = False) -> Response:
    execution, document = await gateway.complete(execution)
    beside: dict[str, Any] = {}
    if progress:
        reached = await gateway.progress(execution)
        beside["progress"] = representations.progress(reached, gateway.links) if reached else None
        beside["asked"] = await _question_of(gateway, execution, reached)
    return _shown(gateway, execution, document, beside, status=200 if execution.status.is_final else unfinished)


async def _question_of(gateway: Gateway, execution: Execution, reached: Progress | None) -> str | None:
    """What the user asked, masked until the request has ended, as the page of the request shows it."""
    finished = await gateway.ledger.requests.get(execution.tenant, execution.request_id)
    asked = finished.input if finished else execution.approval.asked if execution.approval else None
    return await text_of(gateway, execution.tenant, asked or (reached.asked if reached else None))


def _shown(
    gateway: Gateway,
    execution: Execution,
    document: AnswerDocument | None,
    beside: dict[str, Any] | None = None,
    *,
    status: int = 200,
) -> Response:
    return JSONResponse(
        representations.request(execution, gateway.links, document) | (beside or {}),
        status_code=status,
        headers={"Location": gateway.links.request(execution.request_id)},
    )
