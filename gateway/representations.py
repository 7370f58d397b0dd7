"""Requests and approvals as the JSON that clients read."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from gateway.earlier_calls import EarlierCalls
from gateway.execution import Execution, Ingestion
from holdfast.approval import ApprovalState
from holdfast.contracts import Answer, AnswerDocument, Approval, DecisionReceipt, Passage, Progress, Usage
from holdfast.contracts.tools import Delegated
from holdfast.ledger import ApprovalEvent
from holdfast.validation import cited_markers


class Links:
    """Addresses of a request's resources.

    Args:
        namespace: The engine's namespace.
        ui_url: Base address of the engine's Web UI; without it, traces are given as a path.
    """

    def __init__(self, namespace: str, ui_url: str | None) -> None:
        self._namespace = namespace
        self._ui_url = (ui_url or "").rstrip("/")

    def request(self, request_id: str) -> str:
        """The request itself."""
        return f"/v1/requests/{request_id}"

    def trace(self, workflow_id: str) -> str:
        """The run in the engine's Web UI."""
        return f"{self._ui_url}/namespaces/{self._namespace}/workflows/{workflow_id}"

    def of(self, execution: Execution) -> dict[str, str]:
        """Everything a client can do next with a request."""
        links = {"self": self.request(execution.request_id)}
        if execution.traced:
            links["trace"] = self.trace(execution.request_id)
        if not execution.status.is_final:
            links["events"] = f"{self.request(execution.request_id)}/events"
            links["cancel"] = f"{self.request(execution.request_id)}/cancel"
        if execution.approval:
            links["decide"] = f"/v1/approvals/{execution.request_id}/decisions"
        return links


def request(execution: Execution, links: Links, document: AnswerDocument | None = None) -> dict[str, Any]:
    """A request, with its answer once it has one.

    Args:
        execution: The request.
        links: Where its resources are.
        document: The answer's text; only for a completed request.
    """
    shown: dict[str, Any] = {
        "id": execution.request_id,
        "status": execution.status.value,
        "agent": execution.agent,
        "user": execution.user,
        "session": execution.session,
        "submitted_at": _moment(execution.submitted_at),
    }
    if execution.answer:
        shown |= _answer(execution.answer, document)
    if execution.approval:
        shown["approval"] = question(execution.approval)
    return shown | {"links": links.of(execution)}


def row(execution: Execution, links: Links) -> dict[str, Any]:
    """A request as a line of a list."""
    return request(execution, links) | {"tokens": execution.tokens, "cost_usd": _money(execution.cost_usd)}


def approval(execution: Execution, content: str | None, passages: Sequence[Passage], links: Links) -> dict[str, Any]:
    """An open question, with all that is needed to decide it.

    Args:
        execution: A request that waits.
        content: Exactly the text that a decision is about; `None` when it is no longer stored.
        passages: The passages it could draw on, in the order of their markers.
        links: Where its resources are.
    """
    cited = cited_markers(content or "")
    asked = question(execution.approval) if execution.approval else {}
    return {
        "request_id": execution.request_id,
        "agent": execution.agent,
        "requested_by": execution.user,
        **asked,
        "content": content,
        "passages": [
            {
                "marker": marker,
                "cited": marker in cited,
                "source": passage.source,
                "start": passage.start,
                "end": passage.end,
                "text": passage.text,
            }
            for marker, passage in enumerate(passages, start=1)
        ],
        "tokens": execution.tokens,
        "cost_usd": _money(execution.cost_usd),
        "links": {
            "request": links.request(execution.request_id),
            "decide": f"/v1/approvals/{execution.request_id}/decisions",
            "trace": links.trace(execution.request_id),
        },
    }


def receipt(taken: DecisionReceipt, links: Links) -> dict[str, Any]:
    """An accepted decision."""
    return taken.model_dump(mode="json") | {
        "links": {"request": links.request(taken.request_id), "trace": links.trace(taken.request_id)}
    }


def progress(reached: Progress, links: Links) -> dict[str, Any]:
    """The run sheet so far: names, counts and states, none of the texts."""
    return {
        "step": reached.step,
        "attempts": reached.attempts,
        "usage": _usage(reached.spent),
        "iterations": reached.iterations,
        "tool_calls": reached.tool_calls,
        "tools": [line.model_dump(mode="json", exclude={"arguments", "result"}) for line in reached.tools],
        "delegates": [_delegate(delegate, links) for delegate in reached.delegates],
        "decisions": [taken.model_dump(mode="json") for taken in reached.decisions],
        "tainted": list(reached.tainted),
        "events": [event.model_dump(mode="json") for event in reached.events],
    }


def ingestion(found: Ingestion, links: Links) -> dict[str, Any]:
    """An ingestion, with its result once it has one."""
    shown: dict[str, Any] = {"id": found.id, "status": "running"}
    if found.result:
        shown |= {"status": "completed", **found.result.model_dump(mode="json")}
    elif found.failure:
        shown |= {"status": "failed", "reason": found.failure}
    return shown | {"links": {"self": f"/v1/ingestions/{found.id}", "trace": links.trace(found.id)}}


def _answer(answer: Answer, document: AnswerDocument | None) -> dict[str, Any]:
    return {
        "reason": answer.reason,
        "answer": document.model_dump(mode="json") if document else None,
        "content_sha256": answer.content_sha256,
        "usage": _usage(answer.usage),
        "attempts": answer.attempts,
        "deployment": answer.deployment,
        "recalled": answer.recalled,
        "decided_by": answer.decided_by,
        "tool_calls": answer.tool_calls,
        "delegates": list(answer.delegates),
        "tainted": list(answer.tainted),
        "limit": answer.limit.model_dump(mode="json") if answer.limit else None,
    }


def question(asked: Approval) -> dict[str, Any]:
    """What people are asked, without the text."""
    return {
        "kind": asked.kind,
        "content_sha256": asked.content.sha256,
        "subject": asked.subject,
        "why": asked.why,
        "rule_why": asked.rule.why,
        "approvers": list(asked.approvers),
        "stage": asked.stage,
        "stages": len(asked.rule.escalation) + 1,
        "quorum": asked.rule.quorum,
        "missing": ApprovalState(asked).missing,
        "votes": [vote.model_dump(mode="json", exclude={"content_sha256"}) for vote in asked.votes],
        "requester_may_decide": asked.rule.requester_may_decide,
        "default": asked.rule.default,
        "opened_at": _moment(asked.opened_at),
        "deadline": _moment(asked.deadline),
        "round": asked.round,
    }


def calls_before(earlier: EarlierCalls) -> dict[str, Any]:
    """What was called before a question was asked."""
    return {"calls": [asdict(call) for call in earlier.calls], "left_out": earlier.left_out}


def approval_event(event: ApprovalEvent, links: Links) -> dict[str, Any]:
    """One thing that happened to a question."""
    return {
        "request_id": event.request_id,
        "sequence": event.sequence,
        "agent": event.agent,
        "round": event.round,
        "kind": event.kind,
        "subject": event.subject,
        "happening": event.happening,
        "actor": event.actor,
        "reason": event.reason,
        "content_sha256": event.content_sha256,
        "stage": event.stage,
        "approvers": list(event.approvers),
        "deadline": _moment(event.deadline),
        "at": _moment(event.at),
        "links": {"request": links.request(event.request_id), "trace": links.trace(event.request_id)},
    }


def _delegate(delegate: Delegated, links: Links) -> dict[str, Any]:
    return delegate.model_dump(mode="json", exclude={"usage"}) | {
        "usage": _usage(delegate.usage),
        "links": {"request": links.request(delegate.request_id), "trace": links.trace(delegate.request_id)},
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return usage.model_dump(exclude={"cost_usd"}) | {
        "total_tokens": usage.total_tokens,
        "cost_usd": _money(usage.cost_usd),
    }


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")


def _moment(moment: Any) -> str:
    return str(moment.isoformat()).replace("+00:00", "Z")
