"""Requests and approvals as the JSON that clients read."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from gateway.execution import Execution, Ingestion
from holdfast.contracts import Answer, AnswerDocument, Approval, DecisionReceipt, Passage, Progress, Usage
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


def progress(reached: Progress) -> dict[str, Any]:
    """The run sheet so far."""
    return {
        "step": reached.step,
        "attempts": reached.attempts,
        "usage": _usage(reached.spent),
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
    }


def question(asked: Approval) -> dict[str, Any]:
    """What people are asked, without the text."""
    return {
        "kind": asked.kind,
        "content_sha256": asked.content.sha256,
        "approvers": list(asked.rule.approvers),
        "requester_may_decide": asked.rule.requester_may_decide,
        "default": asked.rule.default,
        "opened_at": _moment(asked.opened_at),
        "deadline": _moment(asked.deadline),
        "round": asked.round,
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
