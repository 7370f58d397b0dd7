"""`/v1/approvals`: what waits for a person, and the person's decision."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import Field, TypeAdapter
from starlette.responses import JSONResponse, Response

from gateway import representations
from gateway.body import read_object
from gateway.context import CallerOf, Gateway, GatewayOf, Limit
from gateway.execution import Execution
from gateway.openapi import body_of
from gateway.problems import Problem
from gateway.submission import digest, new_id, read_key
from gateway.validation import Body, Line, validate
from holdfast.contracts import Decision, DecisionKind, Passage
from holdfast.contracts.content import Sha256
from holdfast.errors import ContentMissing

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

_PASSAGES = TypeAdapter(list[Passage])


class DecisionBody(Body):
    """The body of a decision."""

    decision: Literal["approve", "edit", "reject"]
    content_sha256: Sha256
    """Digest of the content that was shown, as the approval gives it."""
    payload: Annotated[str, Field(min_length=1)] | None = None
    """For `edit`: the text to deliver instead."""
    reason: Annotated[Line, Field(max_length=2_000)] | None = None


@router.get("")
async def list_approvals(gateway: GatewayOf, caller: CallerOf, limit: Limit = 100) -> Response:
    """What waits for a decision by the caller, the nearest deadline first."""
    found = await gateway.engine.approvals(caller.tenant, caller.user, limit)
    return JSONResponse({"approvals": [await _shown(gateway, execution, caller.user) for execution in found]})


@router.post("/{request_id}/decisions", openapi_extra=body_of(DecisionBody))
async def decide(
    request_id: Annotated[str, Path(description="The id of the request that waits.")],
    http: Request,
    gateway: GatewayOf,
    caller: CallerOf,
) -> Response:
    """Approve, edit or reject. The decision names the content it is about; on other content it is refused."""
    key = read_key(http.headers)
    body = await read_object(http, gateway.settings.max_body_bytes)
    given = validate(DecisionBody, body)
    kind = DecisionKind(given.decision)
    if (kind is DecisionKind.EDIT) is not (given.payload is not None):
        raise _payload_problem(kind)
    execution = await gateway.find(request_id, caller)
    payload = await gateway.ledger.contents.put(caller.tenant, given.payload) if given.payload is not None else None
    taken = await gateway.engine.decide(
        execution.request_id,
        Decision(
            decision=kind,
            actor=caller.user,
            content_sha256=given.content_sha256,
            payload=payload,
            reason=given.reason,
        ),
        # The same key with another body, or by another person, is another decision and is refused by the workflow.
        new_id("dec_") if key is None else f"dec_{digest([caller.user, key, body])}",
    )
    return JSONResponse(representations.receipt(taken, gateway.links))


async def _shown(gateway: Gateway, execution: Execution, user: str) -> dict[str, object]:
    question = execution.approval
    if question is None:
        raise ValueError(f"Request {execution.request_id!r} is listed as waiting but carries no approval.")
    references = [question.content, *([question.passages] if question.passages else [])]
    try:
        content, *rest = await gateway.ledger.contents.get_many(execution.tenant, references)
    except ContentMissing:
        content, rest = None, []
    passages = _PASSAGES.validate_json(rest[0]) if rest else []
    spent = (await gateway.ledger.attempts.totals(execution.request_id)).usage
    execution = replace(execution, tokens=spent.total_tokens, cost_usd=spent.cost_usd)
    return representations.approval(execution, content, passages, gateway.links) | {
        "may_decide": question.rule.requester_may_decide or question.requested_by != user
    }


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
