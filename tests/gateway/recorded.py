"""A gateway whose engine is recorded instead of run; all else is real."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from gateway.app import create_app
from gateway.execution import Execution, Ingestion
from holdfast.configuration import Configuration
from holdfast.contracts import (
    Approval,
    Decision,
    DecisionReceipt,
    Event,
    EventKind,
    Ingested,
    IngestRun,
    Progress,
    Request,
    Status,
    Usage,
)
from holdfast.errors import DecisionRefused
from holdfast.ledger import Ledger
from holdfast.relay import MemoryRelay
from holdfast.settings import GatewaySettings, Settings


@dataclass
class RecordedRun:
    """A run that goes where the test sends it."""

    events: list[Event] = field(default_factory=list)
    approval: Approval | None = None
    ended: bool = False
    broken: Exception | None = None
    asked: int = 0
    """How often its run sheet was read."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, kind: EventKind, name: str, summary: str = "") -> None:
        """Add a line to the run sheet."""
        at = datetime(2026, 1, 1, tzinfo=UTC)
        self.events.append(Event(sequence=len(self.events) + 1, kind=kind, name=name, summary=summary, at=at))
        self.moved.set()

    def end(self) -> None:
        """Let the run end."""
        self.ended = True
        self.moved.set()


@dataclass
class RecordedEngine:
    """An engine that starts nothing: it records what it was asked, and tells what the test put in."""

    submitted: list[Request] = field(default_factory=list)
    executions: dict[str, Execution] = field(default_factory=dict)
    decisions: list[tuple[str, Decision, str]] = field(default_factory=list)
    refusal: DecisionRefused | None = None
    cancelled: list[str] = field(default_factory=list)
    ingested: list[tuple[str, IngestRun]] = field(default_factory=list)
    waits: list[timedelta] = field(default_factory=list)
    becomes: Callable[[Execution], Execution] = field(default=lambda execution: execution)
    lacks: list[str] = field(default_factory=list)
    holds: asyncio.Event | None = None
    """Set once someone waits; then nobody is answered before `released`."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    queries: list[tuple[str, Status | None, str | None, int]] = field(default_factory=list)
    runs: dict[str, RecordedRun] = field(default_factory=dict)
    followed: list[str] = field(default_factory=list)
    """Requests whose runs are being followed, once for each follower."""

    async def submit(self, request: Request) -> Execution:
        self.submitted.append(request)
        return self.put(
            Execution(
                request_id=request.id,
                tenant=request.tenant,
                user=request.user,
                agent=request.plan.agent,
                status=Status.RUNNING,
                submitted_at=request.submitted_at,
                session=request.session,
            )
        )

    def put(self, execution: Execution) -> Execution:
        self.executions[execution.request_id] = execution
        return execution

    async def find(self, request_id: str, tenant: str) -> Execution | None:
        found = self.executions.get(request_id)
        return found if found and found.tenant == tenant else None

    async def wait(self, execution: Execution, timeout: timedelta, *, through_approval: bool = False) -> Execution:
        self.waits.append(timeout)
        if self.holds:
            self.holds.set()
            await self.released.wait()
        return self.put(self.becomes(execution))

    async def turns(self, request_id: str) -> AsyncGenerator[None, None]:
        self.followed.append(request_id)
        run = self.run(request_id)
        try:
            while True:
                yield
                if run.ended:
                    return
                if run.broken is not None:
                    raise run.broken
                await run.moved.wait()
                run.moved.clear()
        finally:
            self.followed.remove(request_id)

    async def progress(self, request_id: str) -> Progress | None:
        run = self.run(request_id)
        run.asked += 1
        return Progress(
            request_id=request_id,
            status=Status.WAITING if run.approval else Status.RUNNING,
            step="generate",
            approval=run.approval,
            spent=Usage(),
            attempts=1,
            events=tuple(run.events),
        )

    def run(self, request_id: str) -> "RecordedRun":
        """The run behind a request, for a test to move on."""
        return self.runs.setdefault(request_id, RecordedRun())

    async def cancel(self, request_id: str, reason: str) -> None:
        self.cancelled.append(request_id)

    async def requests(self, tenant: str, *, status: Status | None, agent: str | None, limit: int) -> list[Execution]:
        self.queries.append((tenant, status, agent, limit))
        return [found for found in self.executions.values() if found.tenant == tenant][:limit]

    async def approvals(self, tenant: str, names: Sequence[str], limit: int, offset: int = 0) -> list[Execution]:
        found = [found for found in self.executions.values() if found.tenant == tenant and found.approval]
        return found[offset : offset + limit]

    async def count_approvals(self, tenant: str, names: Sequence[str]) -> int:
        return len(await self.approvals(tenant, names, 10_000))

    async def decide(self, request_id: str, decision: Decision, update_id: str) -> DecisionReceipt:
        if self.refusal:
            raise self.refusal
        self.decisions.append((request_id, decision, update_id))
        return DecisionReceipt(
            request_id=request_id,
            decision=decision.decision,
            actor=decision.actor,
            content_sha256=decision.content_sha256,
            decided_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    async def ingest(self, run: IngestRun, ingestion_id: str, timeout: timedelta) -> Ingestion:
        self.waits.append(timeout)
        self.ingested.append((ingestion_id, run))
        return Ingestion(ingestion_id, result=Ingested(sources=len(run.documents), passages=3))

    async def ingestion(self, ingestion_id: str, tenant: str) -> Ingestion | None:
        found = any(known == ingestion_id and run.tenant == tenant for known, run in self.ingested)
        return Ingestion(ingestion_id) if found else None

    async def missing(self) -> list[str]:
        return list(self.lacks)


@dataclass
class Edge:
    """A gateway under test, and how to call it."""

    engine: RecordedEngine
    ledger: Ledger
    configuration: Configuration
    http: httpx.AsyncClient
    relay: MemoryRelay

    async def ask(self, body: object, **headers: str) -> httpx.Response:
        """Post a request; `_` in a header's name stands for `-`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post("/v1/requests", json=body, headers=names)

    async def ask_raw(self, body: bytes, content_type: str = "application/json") -> httpx.Response:
        return await self.http.post("/v1/requests", content=body, headers={"Content-Type": content_type})

    def becomes(self, **changes: Any) -> None:
        """What waiting for a request makes of it."""
        self.engine.becomes = lambda execution: replace(execution, **changes)


class opened:  # noqa: N801 - reads as a function where it is used
    """A gateway for the duration of a block."""

    def __init__(self, configuration: Configuration, ledger: Ledger, /, **settings: Any) -> None:
        engine = RecordedEngine()
        relay = MemoryRelay()
        settings = {"gateway": GatewaySettings(max_body_bytes=20_000)} | settings
        self.app = create_app(
            Settings(**settings), configuration, ledger, engine, relay=relay, ui_url="http://127.0.0.1:8233"
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")
        self.edge = Edge(engine, ledger, configuration, http, relay)

    async def __aenter__(self) -> Edge:
        return self.edge

    async def __aexit__(self, *_: object) -> None:
        await self.edge.http.aclose()


def problem(response: httpx.Response, status: int, field: str | None) -> Mapping[str, Any]:
    """Check that a response is a problem document naming field and remedy, and return it."""
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["type"].startswith("urn:holdfast:problem:")
    assert document["status"] == status
    assert document.get("field") == field
    assert document["remedy"]
    assert document["reference"] == response.headers["x-request-id"]
    return document


def text_of(response: httpx.Response) -> str:
    """A response's document as one string, for looking what is not in it."""
    return json.dumps(response.json(), ensure_ascii=False)
