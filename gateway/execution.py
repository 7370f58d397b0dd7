"""What the routes know of a running request, and what they ask of the engine that runs it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from holdfast.contracts import (
    Answer,
    Approval,
    Decision,
    DecisionReceipt,
    Ingested,
    IngestRun,
    Progress,
    Request,
    Status,
)


@dataclass(frozen=True)
class Execution:
    """A request as the engine sees it."""

    request_id: str
    tenant: str
    user: str
    agent: str
    status: Status
    submitted_at: datetime
    session: str | None = None
    held: bool = True
    """Whether the request can come to wait for a person."""
    approval: Approval | None = None
    """The open question; set exactly while the status is `waiting`."""
    answer: Answer | None = None
    """How it ended; set exactly when the status is final."""
    tokens: int | None = None
    """Tokens consumed so far, if known."""
    cost_usd: Decimal | None = None
    """US dollars spent so far, if known; for display, not for accounts."""
    traced: bool = True
    """Whether the engine has a run of it to look at."""


@dataclass(frozen=True)
class Ingestion:
    """An ingestion under way or done."""

    id: str
    result: Ingested | None = None
    failure: str | None = None
    """Why it ended without a result."""


class RequestEngine(Protocol):
    """The engine as the routes use it. Every call may raise `holdfast.errors.Unavailable`."""

    async def submit(self, request: Request) -> Execution:
        """Start the request unless its id is taken, in which case the one that has it is returned."""

    async def find(self, request_id: str, tenant: str) -> Execution | None:
        """The request, or `None` when there is none of that id or it belongs to another tenant."""

    async def wait(self, execution: Execution, timeout: timedelta, *, through_approval: bool = False) -> Execution:
        """Return as soon as the request is final, or waits for a person, at the latest after `timeout`.

        Args:
            execution: The request.
            timeout: Bound of the wait.
            through_approval: Go on waiting while the request waits for a person.
        """

    def turns(self, request_id: str) -> AsyncGenerator[None, None]:
        """Yield whenever the request has moved on, the first time at once, until it has ended."""

    async def progress(self, request_id: str) -> Progress | None:
        """The run sheet so far; `None` when no worker answers."""

    async def cancel(self, request_id: str, reason: str) -> None:
        """Ask the request to stop; one that has ended already stays as it is."""

    async def requests(self, tenant: str, *, status: Status | None, agent: str | None, limit: int) -> list[Execution]:
        """The tenant's requests, the latest first."""

    async def approvals(self, tenant: str, names: Sequence[str], limit: int, offset: int = 0) -> list[Execution]:
        """Requests that wait for a decision by one of the names, the nearest deadline first.

        Args:
            tenant: Whose requests.
            names: A user's name, those of the user's roles as rules write them (`role:finance`), and `"*"`.
            limit: Most to return.
            offset: How many of the nearest to leave out.
        """

    async def count_approvals(self, tenant: str, names: Sequence[str]) -> int:
        """How many requests wait for a decision by one of the names."""

    async def decide(self, request_id: str, decision: Decision, update_id: str) -> DecisionReceipt:
        """Hand a decision to the request; the same `update_id` is taken once.

        Raises:
            DecisionRefused: It may not be taken; nothing has changed.
        """

    async def ingest(self, run: IngestRun, ingestion_id: str, timeout: timedelta) -> Ingestion:
        """Start an ingestion unless its id is taken, and wait for it up to `timeout`."""

    async def ingestion(self, ingestion_id: str, tenant: str) -> Ingestion | None:
        """An ingestion of the tenant, or `None`."""

    async def missing(self) -> list[str]:
        """What keeps requests from being worked on, one line each; empty when all is well."""
