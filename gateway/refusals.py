"""Why a decision is not taken, told with what the gateway knows beside the run: the record, the ending, the people.

A run that has ended answers nothing; who decided in it, what and when, is in the ledger.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.context import Gateway
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.problems import Problem, problem_of
from holdfast.approval import EVERYONE, NOBODY, ROLE
from holdfast.contracts import Approval
from holdfast.errors import DecisionRefused
from holdfast.ledger import ApprovalEvent

MOST_EVENTS = 500
"""Of a request's approvals, the latest, among which the decision is looked for."""

_DECISIONS = {"approved": "approve", "edited": "edit", "rejected": "reject"}
"""What settles a question, as decisions are called."""


async def explained(
    gateway: Gateway,
    caller: Caller,
    execution: Execution,
    refused: DecisionRefused,
    content_sha256: str | None = None,
    round_number: int | None = None,
) -> DecisionRefused | Problem:
    """A refusal with what the gateway can add to it.

    Args:
        gateway: Where.
        caller: Who wanted to decide, or to see the question.
        execution: The request, as it was before.
        refused: What the engine said.
        content_sha256: The content that was to be decided on, if one was named.
        round_number: The question that was meant, if one was named.
    """
    if refused.code == "not_open":
        return await _over(gateway, caller, execution.request_id, content_sha256, round_number) or refused
    if refused.code in ("not_named", "own_request") and execution.approval is not None:
        return _others(gateway, caller, execution.approval, refused)
    return refused


async def _over(
    gateway: Gateway, caller: Caller, request_id: str, content_sha256: str | None, round_number: int | None
) -> DecisionRefused | None:
    """Who decided what and when, or how the request ended; `None` when neither can be said."""
    # Read again: it may have waited a moment ago.
    execution, _ = await gateway.complete(await gateway.find(request_id, caller))
    ended = f" The request has ended as {execution.status.value!r}." if execution.status.is_final else ""
    events = await gateway.ledger.approval_events.list(caller.tenant, limit=MOST_EVENTS, request_id=request_id)
    meant = _meant(events, content_sha256, round_number)
    if not meant and ended and events:
        meant = [event for event in events if _question(event) == _question(events[0])]
    if settled := next((event for event in meant if event.happening in _DECISIONS), None):
        said = _said(settled.actor, _DECISIONS[settled.happening], settled.at)
        return DecisionRefused(said + ended, code="already_decided")
    if not ended:
        return None
    answer = execution.answer
    # What happened is written down a moment later than it happens; the run itself told its decisions when it ended.
    told = [one for one in (answer.decisions if answer else ()) if one.request_id == request_id and one.final]
    fitting = [one for one in told if content_sha256 == one.content_sha256 or round_number == one.round]
    if receipt := next(reversed(fitting or ([] if events else told)), None):
        actor = None if receipt.actor == NOBODY else receipt.actor
        return DecisionRefused(_said(actor, receipt.decision.value, receipt.decided_at) + ended, code="already_decided")
    end = f"Request {request_id!r} has ended as {execution.status.value!r}"
    if not events and answer is not None and answer.decided_by and answer.decided_by != NOBODY:
        return DecisionRefused(f"{end}; {answer.decided_by!r} decided on it.", code="already_decided")
    how = " before anybody decided" if events else ""
    return DecisionRefused(f"{end}{how}; there is nothing left to decide.", code="not_open")


def _meant(
    events: Sequence[ApprovalEvent], content_sha256: str | None, round_number: int | None
) -> list[ApprovalEvent]:
    """What happened to the question that a decision was about, the latest first."""
    about = [
        event
        for event in events
        if (content_sha256 is not None or round_number is not None)
        and content_sha256 in (None, event.content_sha256)
        and round_number in (None, event.round)
    ]
    return [event for event in events if _question(event) == _question(about[0])] if about else []


def _question(event: ApprovalEvent) -> tuple[str, str, int]:
    return event.kind, event.subject, event.round


def _said(actor: str | None, decision: str, at: datetime) -> str:
    moment = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if actor is None:
        return f"Nobody decided in time, so the agent's rule decided {decision!r} at {moment}; a decision is final."
    return f"{actor!r} already decided {decision!r} at {moment}; a decision is final."


def _others(
    gateway: Gateway, caller: Caller, approval: Approval, refused: DecisionRefused
) -> DecisionRefused | Problem:
    """The refusal with who may decide, as far as the caller may know."""
    problem = problem_of(refused)
    if problem is None:
        return refused
    barred = {vote.actor for vote in approval.votes if vote.content_sha256 == approval.content.sha256} | {caller.user}
    if not approval.rule.requester_may_decide:
        barred.add(approval.requested_by)
    people = [
        user for user in gateway.identity.known_approvers(caller.tenant, approval.approvers) if user not in barred
    ]
    roles = (
        []
        if gateway.identity.open and people
        else [name.removeprefix(ROLE) for name in approval.approvers if name.startswith(ROLE)]
    )
    who = [*people, *(f"somebody with the role {role}" for role in roles)]
    if EVERYONE in approval.approvers:
        who.append("anybody else")
    if not who:
        return problem
    problem.remedy = f"It can be decided by {_either(who)}. " + (
        "Who one is says `--user` on the command line, and `X-Holdfast-User` over HTTP."
        if gateway.identity.open
        else "Who one is says the API key."
    )
    if gateway.identity.open:
        problem.extra["people"] = people
    return problem


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
