"""What the gateway of the command-line tests says: replies from a script, in the gateway's own shapes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway import representations
from gateway.execution import Execution, Ingestion
from gateway.representations import Links
from holdfast.contracts import (
    Answer,
    AnswerDocument,
    Approval,
    ApprovalRule,
    Citation,
    ContentRef,
    Ingested,
    Passage,
    Status,
    Usage,
)

REQUEST_ID = "req_0123456789abcdef"
CONTENT = "Nothing is lost [1]."
DIGEST = "a" * 64
LINKS = Links("default", "http://127.0.0.1:8233")
MORNING = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

Reply = tuple[int, dict[str, Any]]


@dataclass
class Call:
    """A request that the server has received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedGateway:
    """Answers each address with its next scripted reply; the last one is repeated."""

    url: str = ""
    replies: dict[str, list[Reply | Callable[[Call], Reply]]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def on(self, address: str, *replies: Reply | Callable[[Call], Reply]) -> None:
        """Script the replies to `METHOD /path`; status 0 drops the connection."""
        self.replies[address] = list(replies)

    def reply(self, call: Call) -> Reply:
        """The reply to a request."""
        self.calls.append(call)
        scripted = self.replies.get(f"{call.method} {call.path}")
        if not scripted:
            return 404, {"title": "Not Found", "status": 404, "detail": f"{call.path}: not found.", "remedy": "Look."}
        reply = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return reply(call) if callable(reply) else reply


def execution(status: Status, *, answer: Answer | None = None) -> Execution:
    """A request as the engine tells it."""
    return Execution(
        request_id=REQUEST_ID,
        tenant="local",
        user="ann",
        agent="docs",
        status=status,
        submitted_at=MORNING,
        approval=_approval() if status is Status.WAITING else None,
        answer=answer,
        cost_usd=Decimal("0.0012"),
    )


def request_document(status: Status, *, reason: str | None = None, text: str = CONTENT) -> dict[str, Any]:
    """A request as the gateway sends it."""
    if not status.is_final:
        return representations.request(execution(status), LINKS)
    answer = Answer(
        request_id=REQUEST_ID,
        status=status,
        reason=reason,
        content_sha256=DIGEST,
        deployment="extractive",
        usage=Usage(input_tokens=120, output_tokens=30, cost_usd=Decimal("0.0012")),
        attempts=1,
        decided_by="ben",
    )
    citation = Citation(marker=1, source="docs/architecture.md", start=120, end=480, quote="Nothing is lost.")
    shown = AnswerDocument(text=text, citations=(citation,)) if status is Status.COMPLETED else None
    return representations.request(execution(status, answer=answer), LINKS, shown)


def row_document(status: Status) -> dict[str, Any]:
    """A request as a line of the gateway's list."""
    return representations.row(execution(status), LINKS)


def approval_document(content: str = CONTENT, *, may_decide: bool = True) -> dict[str, Any]:
    """An open question as the gateway sends it."""
    passages = [Passage(source="docs/architecture.md", start=120, end=480, text="Nothing is lost.", score=0.9)]
    shown = representations.approval(execution(Status.WAITING), content, passages, LINKS)
    return shown | {"may_decide": may_decide}


def ingestion_document(result: Ingested | None = None, failure: str | None = None) -> dict[str, Any]:
    """An ingestion as the gateway sends it."""
    return representations.ingestion(Ingestion("ing_1", result=result, failure=failure), LINKS)


def _approval() -> Approval:
    return Approval(
        request_id=REQUEST_ID,
        content=ContentRef(sha256=DIGEST, size=len(CONTENT)),
        rule=ApprovalRule(approvers=("*",)),
        requested_by="ann",
        opened_at=MORNING,
        deadline=MORNING + timedelta(hours=24),
    )
