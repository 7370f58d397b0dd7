"""From what happened to the notifications of it: one for each target that wants to know.

A notification holds ids, names, digests, links, and why people are asked, in the words of the agent's file. It never
holds a text of the request: neither the question nor the answer, nor a tool's arguments, nor what somebody wrote as a
reason. Whoever may read these follows the link.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from holdfast.contracts import ApprovalHappening, NoteInput, Request, Status
from holdfast.ledger import Delivery
from holdfast.notify.configuration import Notifications

WEBHOOK = "webhook:"
EMAIL = "email:"

_EVENTS: Mapping[ApprovalHappening, str] = {
    "opened": "approval.opened",
    "reminded": "approval.reminder",
    "escalated": "approval.escalated",
    "approved": "approval.decided",
    "rejected": "approval.decided",
    "edited": "approval.decided",
    "closed": "approval.closed",
}
"""A vote that settles nothing is on record, and nobody is told."""

_TO_DECIDE = ("approval.opened", "approval.reminder", "approval.escalated")


class Addresses(Protocol):
    """Who people are; `holdfast.people` knows."""

    def users_of(self, tenant: str, approvers: Sequence[str]) -> tuple[str, ...]:
        """The users that a rule's list of users and roles names; `*` names nobody."""

    def email_of(self, tenant: str, user: str) -> str | None:
        """A user's e-mail address, if one is known."""


@dataclass(frozen=True)
class Links:
    """Where people look.

    Args:
        public_url: How they reach the gateway.
    """

    public_url: str

    def of(self, request_id: str) -> dict[str, str]:
        """The pages of a request."""
        base = self.public_url.rstrip("/")
        return {"inbox": f"{base}/inbox/{request_id}", "request": f"{base}/requests/{request_id}"}


def note_messages(note: NoteInput, to: Notifications, people: Addresses, links: Links) -> tuple[Delivery, ...]:
    """The notifications of what happened to an approval."""
    question, event = note.approval, _EVENTS.get(note.happening)
    # An edit that others still have to agree to settles nothing either.
    if event is None or (note.happening == "edited" and question.rule.quorum > 1):
        return ()
    data = {
        "tenant": note.tenant,
        "request_id": question.request_id,
        "root": note.root,
        "agent": note.agent,
        "kind": question.kind,
        "subject": question.subject,
        "why": question.why,
        "rule_why": question.rule.why,
        "round": question.round,
        "stage": question.stage,
        "approvers": list(question.approvers),
        "quorum": question.rule.quorum,
        "votes": len(question.votes),
        "deadline": _moment(question.deadline),
        "content_sha256": note.content_sha256,
        "status": note.happening if event in ("approval.decided", "approval.closed") else "waiting",
        "actor": note.actor,
        "links": links.of(question.request_id),
    }
    users: Iterable[str] = ()
    if to.email is not None and to.email.wanted.wants(event, note.agent, note.tenant):
        users = _to_ask(note, people) if event in _TO_DECIDE else (question.requested_by,)
    return _deliveries(
        to, people, event, note.tenant, question.request_id, note.agent, str(note.sequence), data, users, note.at
    )


def ended_messages(
    request: Request,
    status: Status,
    to: Notifications,
    people: Addresses,
    links: Links,
    at: datetime,
    *,
    content_sha256: str | None = None,
    decided_by: str | None = None,
) -> tuple[Delivery, ...]:
    """The notifications of a request's end. A delegate's end is its root's business, and nobody is told."""
    if request.parent is not None:
        return ()
    event, agent = "request.completed", request.plan.agent
    data = {
        "tenant": request.tenant,
        "request_id": request.id,
        "agent": agent,
        "user": request.user,
        "session": request.session,
        "status": status.value,
        "content_sha256": content_sha256,
        "decided_by": decided_by,
        "links": {"request": links.of(request.id)["request"]},
    }
    wants = to.email is not None and to.email.wanted.wants(event, agent, request.tenant)
    users = (request.user,) if wants else ()
    return _deliveries(to, people, event, request.tenant, request.id, agent, "end", data, users, at)


def _to_ask(note: NoteInput, people: Addresses) -> list[str]:
    question = note.approval
    done = {vote.actor for vote in question.votes}
    if not question.rule.requester_may_decide:
        done.add(question.requested_by)
    return [user for user in people.users_of(note.tenant, question.approvers) if user not in done]


def _deliveries(
    to: Notifications,
    people: Addresses,
    event: str,
    tenant: str,
    request_id: str,
    agent: str,
    occasion: str,
    data: Mapping[str, Any],
    users: Iterable[str],
    at: datetime,
) -> tuple[Delivery, ...]:
    targets = [f"{WEBHOOK}{name}" for name, hook in to.webhooks.items() if hook.wanted.wants(event, agent, tenant)]
    targets += [f"{EMAIL}{user}" for user in dict.fromkeys(users) if people.email_of(tenant, user)]
    if not targets:
        return ()
    payload = json.dumps(
        {"type": event, "timestamp": _moment(at), "data": data}, ensure_ascii=False, separators=(",", ":")
    )
    return tuple(
        Delivery(
            id=_id_of(tenant, request_id, occasion, target),
            tenant=tenant,
            request_id=request_id,
            target=target,
            event=event,
            payload=payload,
            created_at=at,
        )
        for target in targets
    )


def _id_of(tenant: str, request_id: str, occasion: str, target: str) -> str:
    """The same for the same occasion however often it is computed, so that a repeated step tells nobody twice."""
    return "msg_" + hashlib.sha256("\0".join((tenant, request_id, occasion, target)).encode()).hexdigest()[:32]


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
