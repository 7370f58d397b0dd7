"""`/v1/approvals`: what waits for a person, and the person's decision."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, Field, TypeAdapter
from starlette.responses import JSONResponse, Response

from gateway import representations
from gateway.body import read_object
from gateway.context import CallerOf, Gateway, GatewayOf, Limit
from gateway.earlier_calls import earlier_calls
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.openapi import body_of
from gateway.problems import Problem
from gateway.refusals import explained
from gateway.submission import digest, new_id, read_key
from gateway.validation import Body, Line, validate
from holdfast.approval import is_named, may_decide
from holdfast.contracts import ContentRef, Decision, DecisionKind, DecisionReceipt, Passage
from holdfast.contracts.content import Sha256
from holdfast.errors import ContentMissing, DecisionRefused

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

_PASSAGES = TypeAdapter(list[Passage])

Moment = Annotated[AwareDatetime | None, Query(description="A moment with its zone, such as 2026-03-01T09:00:00Z.")]


class DecisionBody(Body):
    """The body of a decision."""

    decision: Literal["approve", "edit", "reject", "escalate"]
    content_sha256: Sha256
    """Digest of the content that was shown, as the approval gives it."""
    payload: Annotated[str, Field(min_length=1)] | None = None
    """For `edit`: the text to deliver instead, or the arguments to call the tool with instead, as JSON."""
    reason: Annotated[Line, Field(max_length=2_000)] | None = None
    round: Annotated[int, Field(ge=1)] | None = None
    """Which of the request's questions was shown, as the approval gives it."""


@router.get("")
async def list_approvals(gateway: GatewayOf, caller: CallerOf, limit: Limit = 100) -> Response:
    """What waits for a decision by the caller, the nearest deadline first."""
    found = await gateway.engine.approvals(caller.tenant, caller.names, limit)
    return JSONResponse({"approvals": [await _shown(gateway, execution, caller) for execution in found]})


@router.get("/history")
async def list_history(
    gateway: GatewayOf,
    caller: CallerOf,
    limit: Limit = 100,
    since: Moment = None,
    until: Moment = None,
    request_id: Annotated[str | None, Query(max_length=64, description="Only of this request.")] = None,
) -> Response:
    """What happened to the tenant's approvals, the latest first: asked, voted, edited, escalated, reminded, decided."""
    events = await gateway.ledger.approval_events.list(caller.tenant, since, until, limit, request_id=request_id)
    return JSONResponse({"events": [representations.approval_event(event, gateway.links) for event in events]})


@router.get("/{request_id}")
async def show_approval(
    request_id: Annotated[str, Path(description="The id of the request that waits.")],
    gateway: GatewayOf,
    caller: CallerOf,
) -> Response:
    """One question that the caller is asked, and which tools were called before it, with what came of them."""
    execution = await gateway.find(request_id, caller)
    question = execution.approval
    if question is None:
        refused = DecisionRefused(f"Request {execution.request_id!r} is not waiting for a decision.", code="not_open")
        raise await explained(gateway, caller, execution, refused)
    if not is_named(question.approvers, caller.user, caller.roles):
        refused = DecisionRefused(
            f"{caller.user!r} is not among the approvers of this request: {', '.join(question.approvers)}.",
            code="not_named",
        )
        raise await explained(gateway, caller, execution, refused)
    transcript = await _text(gateway, execution.tenant, question.transcript)
    before = representations.calls_before(earlier_calls(transcript))
    return JSONResponse(await _shown(gateway, execution, caller) | {"before": before})


@router.post("/{request_id}/decisions", openapi_extra=body_of(DecisionBody))
async def take_decision(
    request_id: Annotated[str, Path(description="The id of the request that waits.")],
    http: Request,
    gateway: GatewayOf,
    caller: CallerOf,
) -> Response:
    """Approve, edit, reject or escalate. The decision names the content it is about; on other content it is refused."""
    key = read_key(http.headers)
    given = validate(DecisionBody, await read_object(http, gateway.settings.max_body_bytes))
    taken = await decide(gateway, caller, request_id, given, key)
    return JSONResponse(representations.receipt(taken, gateway.links))


async def decide(
    gateway: Gateway, caller: Caller, request_id: str, given: DecisionBody, key: str | None
) -> DecisionReceipt:
    """Hand a caller's decision to the request, whichever way it came.

    Args:
        gateway: Where.
        caller: Who decides.
        request_id: The request that waits.
        given: The decision.
        key: Under the same key, the same decision is taken once.

    Raises:
        Problem: 404 for a request that is not the caller's to see; 422 when text and kind do not fit; 403 when others
            decide.
        DecisionRefused: It may not be taken; nothing has changed.
    """
    kind = DecisionKind(given.decision)
    if (kind is DecisionKind.EDIT) is not (given.payload is not None):
        raise _payload_problem(kind)
    execution = await gateway.find(request_id, caller)
    payload = await gateway.ledger.contents.put(caller.tenant, given.payload) if given.payload is not None else None
    decision = Decision(
        decision=kind,
        actor=caller.user,
        content_sha256=given.content_sha256,
        payload=payload,
        reason=given.reason,
        # Those of this moment: somebody who was taken out of a role since the question was asked decides no more.
        roles=caller.roles,
        round=given.round,
    )
    # The same key with another body, or by another person, is another decision and is refused by the workflow.
    taken_once = new_id("dec_") if key is None else f"dec_{digest([caller.user, key, given.model_dump(mode='json')])}"
    try:
        return await gateway.engine.decide(execution.request_id, decision, taken_once)
    except DecisionRefused as refused:
        raise await explained(gateway, caller, execution, refused, given.content_sha256, given.round) from None


async def _shown(gateway: Gateway, execution: Execution, caller: Caller) -> dict[str, object]:
    question = execution.approval
    if question is None:
        raise ValueError(f"Request {execution.request_id!r} is listed as waiting but carries no approval.")
    content, passages, draft, asked = [
        await _text(gateway, execution.tenant, reference)
        for reference in (question.content, question.passages, question.draft, question.asked)
    ]
    spent = (await gateway.ledger.attempts.totals(execution.request_id)).usage
    execution = replace(execution, tokens=spent.total_tokens, cost_usd=spent.cost_usd)
    shown = _PASSAGES.validate_json(passages) if passages else []
    return representations.approval(execution, content, shown, gateway.links) | {
        "draft": draft,
        "asked": asked,
        "may_decide": may_decide(question, caller.user, caller.roles),
    }


async def _text(gateway: Gateway, tenant: str, reference: ContentRef | None) -> str | None:
    """A text, unless it is no longer stored."""
    if reference is None:
        return None
    try:
        return await gateway.ledger.contents.get(tenant, reference)
    except ContentMissing:
        return None


def _payload_problem(kind: DecisionKind) -> Problem:
    edit = kind is DecisionKind.EDIT
    return Problem(
        422,
        "invalid-input",
        "Invalid input",
        "An edit needs the new text." if edit else f"`payload` is only for edits, not for {kind.value!r}.",
        remedy="Send the new text in `payload`." if edit else 'Leave `payload` out, or send "decision": "edit".',
        field="payload",
    )
