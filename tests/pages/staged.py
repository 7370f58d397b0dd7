"""A gateway on a port whose engine tells what a test puts on stage; pages, sessions, ledger and sockets are real."""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.app import create_app
from gateway.execution import Execution
from gateway.inbox_watch import InboxWatch
from gateway.routes.site import Site
from gateway.server import base_url, serving
from gateway.signed_in import SignedIn
from holdfast.configuration import load_configuration
from holdfast.contracts import (
    Approval,
    ApprovalRule,
    ContentRef,
    Decision,
    DecisionReceipt,
    Passage,
    Progress,
    Status,
)
from holdfast.errors import Unavailable
from holdfast.ledger import Ledger
from holdfast.relay import MemoryRelay
from holdfast.settings import Settings
from tests.gateway.recorded import RecordedEngine

MODELS = '[deployments.extractive]\nprovider = "extractive"\nmodel = "extractive-1"\n'
AGENT = 'deployments = ["extractive"]\nprompt = "prompt.md"\n[approval]\napprovers = ["ann", "bob"]\n'


@dataclass
class StagedEngine(RecordedEngine):
    """Lists what is on stage as the real engine does, and can be away."""

    away: bool = False
    broken: Exception | None = None
    """What listing raises: a fault of our own."""
    sheets: dict[str, Progress] = field(default_factory=dict)
    settles: bool = True
    """Whether a decision ends the question."""

    def _present(self) -> None:
        if self.broken is not None:
            raise self.broken
        if self.away:
            raise Unavailable("Temporal does not answer: could not list the requests.")

    async def approvals(self, tenant: str, names: Sequence[str], limit: int, offset: int = 0) -> list[Execution]:
        """Those that ask one of the names, the nearest deadline first."""
        self._present()
        found = [
            (execution.approval.deadline, execution.request_id, execution)
            for execution in self.executions.values()
            if execution.tenant == tenant
            and execution.approval is not None
            and not set(names).isdisjoint(execution.approval.approvers)
        ]
        return [execution for _, _, execution in sorted(found, key=lambda row: row[:2])][offset : offset + limit]

    async def find(self, request_id: str, tenant: str) -> Execution | None:
        """By id."""
        self._present()
        return await super().find(request_id, tenant)

    async def requests(self, tenant: str, *, status: Status | None, agent: str | None, limit: int) -> list[Execution]:
        """All."""
        self._present()
        return await super().requests(tenant, status=status, agent=agent, limit=limit)

    async def progress(self, request_id: str) -> Progress | None:
        """As staged; otherwise as recorded."""
        return self.sheets.get(request_id) or await super().progress(request_id)

    async def decide(self, request_id: str, decision: Decision, update_id: str) -> DecisionReceipt:
        """Take it, and end the question."""
        receipt = await super().decide(request_id, decision, update_id)
        if self.settles:
            self.executions[request_id] = replace(self.executions[request_id], status=Status.RUNNING, approval=None)
        return receipt


@dataclass
class Stage:
    """The gateway, and how to put something on its pages."""

    url: str
    engine: StagedEngine
    ledger: Ledger
    relay: MemoryRelay
    ledger_file: Path
    numbers: int = 0

    def sql(self, statement: str) -> None:
        """Change the ledger behind everybody's back."""
        with closing(sqlite3.connect(self.ledger_file)) as file:
            file.execute(statement)
            file.commit()

    @contextmanager
    def no_sessions(self) -> Iterator[None]:
        """For the duration of the block, the ledger cannot say who is signed in: its table is away."""
        self.sql("ALTER TABLE browser_sessions RENAME TO sessions_away")
        try:
            yield
        finally:
            self.sql("ALTER TABLE sessions_away RENAME TO browser_sessions")

    async def text(self, text: str, tenant: str = "local") -> ContentRef:
        """Store a text."""
        return await self.ledger.contents.put(tenant, text)

    async def ask(
        self,
        content: str,
        *,
        agent: str = "refunds",
        user: str = "carl",
        tenant: str = "local",
        approvers: tuple[str, ...] = ("ann", "bob"),
        due: timedelta = timedelta(hours=3, minutes=10, seconds=30),
        waiting: timedelta = timedelta(minutes=12),
        passages: Sequence[Passage] = (),
        asked: str | None = None,
        draft: str | None = None,
        rule: dict[str, Any] | None = None,
        cost: str = "0.0042",
        **approval: Any,
    ) -> str:
        """Put a question on stage and return its request's id."""
        self.numbers += 1
        request_id = f"req_{self.numbers:026d}"
        now = datetime.now(UTC)
        listed = "[" + ",".join(passage.model_dump_json() for passage in passages) + "]"
        self.engine.put(
            Execution(
                request_id=request_id,
                tenant=tenant,
                user=user,
                agent=agent,
                status=Status.WAITING,
                submitted_at=now - waiting - timedelta(seconds=40),
                cost_usd=Decimal(cost),
                approval=Approval(
                    request_id=request_id,
                    content=await self.text(content, tenant),
                    passages=await self.text(listed, tenant) if passages else None,
                    rule=ApprovalRule(approvers=approvers, **(rule or {})),
                    requested_by=user,
                    opened_at=now - waiting,
                    deadline=now + due,
                    asked=await self.text(asked, tenant) if asked else None,
                    draft=await self.text(draft, tenant) if draft else None,
                    **approval,
                ),
            )
        )
        return request_id


@asynccontextmanager
async def staged(
    directory: Path, *, ledger_file: Path | None = None, agent: str = AGENT, people: str = "", **settings: Any
) -> AsyncIterator[Stage]:
    """A stage for the duration of the block; with the `ledger_file` of another, a second gateway beside it."""
    config = directory / "config"
    for name in ("agents", "prompts"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text(MODELS)
    (config / "prompts" / "prompt.md").write_text("Answer briefly.")
    (config / "agents" / "refunds.toml").write_text(agent)
    (config / "people.toml").write_text(people)
    configuration = load_configuration(config)
    ledger_file = ledger_file or directory / "ledger.db"
    ledger = await Ledger.open(f"sqlite+aiosqlite:///{ledger_file}")
    engine, relay = StagedEngine(), MemoryRelay()
    app = create_app(Settings(**settings), configuration, ledger, engine, relay=relay, ui_url="http://127.0.0.1:8233")
    site = app.state.site
    assert isinstance(site, Site)
    often = timedelta(milliseconds=50)
    app.state.site = replace(site, watch=InboxWatch(engine, often), signed_in=SignedIn(ledger.browser_sessions, often))
    try:
        async with serving(app, "127.0.0.1", 0) as port:
            yield Stage(base_url("127.0.0.1", port), engine, ledger, relay, ledger_file)
    finally:
        await ledger.aclose()
