"""Whatever is killed, an accepted request completes with the same answer, and every paid call is on record.

Every process is killed with SIGKILL: the worker at every step's boundary and inside every step, the gateway, and the
Temporal server, whose file stays.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.client import Client
from tests.chaos.installation import Installation
from tests.chaos.selection import cases

pytestmark = pytest.mark.chaos

PATIENCE_SECONDS = 240
"""How long one case may take before it counts as hanging."""

STEPS = ("sanitize", "recall", "retrieve", "route", "generate", "validate", "deliver")


@dataclass(frozen=True)
class Case:
    """A request and where its processes are killed."""

    points: tuple[str, ...]
    attempts: int | None = 1
    """Model calls that the ledger must have in the end; `None` where it depends on who is faster."""
    calls: int | None = 1
    """Model calls that the provider must have seen."""
    agent: str = "librarian"
    question: str = "What holds a ship fast in a storm?"

    @property
    def batch(self) -> bool:
        """Whether the call goes through a batch."""
        return self.agent == "nightly"


CASES = (
    *(Case((f"{step}:{side}",)) for step in STEPS for side in ("before", "after")),
    Case(("sanitize:inside",)),
    Case(("recall:inside",)),
    Case(("retrieve:inside",)),
    Case(("route:inside",)),
    Case(("generate:opened",), attempts=2, calls=1),
    Case(("generate:streaming",), attempts=2, calls=2),
    Case(("generate:replied",), attempts=2, calls=2),
    Case(("generate:settled",)),
    Case(("generate:opened", "generate:streaming"), attempts=3, calls=2),
    Case(("validate:inside",)),
    Case(("approve:opening",)),
    Case(("approve:waiting",)),
    Case(("approve:deciding",)),
    Case(("approve:decided",)),
    Case(("deliver:inside",)),
    Case(("deliver:committed",)),
    Case(
        ("sanitize:inside", "deliver:inside", "deliver:committed"),
        agent="secretary",
        question="Write to jane.doe@example.org about the log.",
    ),
    Case(("gateway:claimed",)),
    Case(("gateway:started",)),
    Case(("gateway:accepted",)),
    Case(("gateway:generating",)),
    Case(("gateway:decided",)),
    Case(("server:accepted",)),
    Case(("server:generating",), attempts=None, calls=None),
    Case(("server:waiting",)),
    Case(("server:decided",)),
    *(
        Case((f"{step}:{side}",), agent="nightly")
        for step in ("enqueue", "submit_batch", "collect_batches")
        for side in ("before", "after")
    ),
    Case(("batch:begun",), agent="nightly", attempts=2, calls=1),
    Case(("batch:accepted",), agent="nightly"),
    Case(("batch:sent",), agent="nightly"),
    Case(("batch:settled",), agent="nightly"),
    Case(("batch:done",), agent="nightly"),
    Case(("batch:begun", "batch:accepted", "batch:settled"), agent="nightly", attempts=2, calls=1),
)


OFTEN = (
    "route:after",
    "generate:opened",
    "generate:streaming",
    "generate:settled",
    "approve:deciding",
    "approve:decided",
    "deliver:committed",
    "gateway:claimed",
    "server:decided",
    "batch:sent",
)


@pytest.mark.parametrize("case", cases(CASES, OFTEN, name=lambda case: "+".join(case.points)))
async def test_after_a_kill_the_request_completes_with_the_same_answer_and_every_call_on_record(
    case: Case, installation: Installation
) -> None:
    name = "+".join(case.points)
    question = f"{case.question} ({name})"
    async with asyncio.timeout(PATIENCE_SECONDS):
        undisturbed = await _undisturbed(installation, case.agent, question, name)
        client = Client(installation.http, case.agent, question, name, batch=case.batch)
        reply = await _disturbed(installation, client, case.points)
        assert reply["status"] == "completed", reply
        for field in ("answer", "content_sha256", "decided_by", "deployment", "recalled"):
            assert reply[field] == undisturbed[field], field
        assert reply["answer"]["citations"]
        assert "<EMAIL" not in reply["answer"]["text"]
        attempts, calls = await assert_every_call_is_on_record(installation, client.request_id)
        assert case.attempts in (attempts, None)
        assert case.calls in (calls, None)
        totals = await installation.ledger.attempts.totals(client.request_id)
        assert reply["attempts"] == totals.attempts
        assert reply["usage"]["total_tokens"] == totals.usage.total_tokens
        again = await client.submit()
        assert (again["id"], again["answer"]) == (reply["id"], reply["answer"])
        assert await installation.runs(client.request_id) == 1


async def test_a_worker_that_keeps_dying_in_the_call_never_goes_past_the_attempt_limit(
    installation: Installation,
) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        client = Client(installation.http, "librarian", "What kills a worker?", "limit", limits={"attempts": 2})
        reply = await _disturbed(installation, client, ("generate:streaming", "generate:streaming"))
        assert reply["status"] == "denied", reply
        assert "limits.attempts" in reply["reason"]
        assert await assert_every_call_is_on_record(installation, client.request_id) == (2, 2)
        assert reply["attempts"] == 2


async def _undisturbed(installation: Installation, agent: str, question: str, name: str) -> dict[str, Any]:
    client = Client(installation.http, f"{agent}-undisturbed", question, f"{name}-undisturbed")
    client.may_decide.set()
    return await client.walk()


async def _disturbed(installation: Installation, client: Client, points: tuple[str, ...]) -> dict[str, Any]:
    """Let the client walk while processes die, and return the request as it ended."""

    async def kill() -> None:
        async with aclosing(installation.deaths(points, client)) as deaths:
            async for _ in deaths:
                await assert_every_call_is_on_record(installation, client.request_id)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        walking = group.create_task(client.walk())
    return walking.result()


async def assert_every_call_is_on_record(installation: Installation, request_id: str) -> tuple[int, int]:
    """The provider's bill does not exceed the ledger's record, call by call.

    Returns:
        How many attempts the ledger has, and how many calls the provider.
    """
    bill = installation.billed(request_id)
    recorded = {attempt.attempt_id: attempt for attempt in await installation.ledger.attempts.list(request_id)}
    assert len(bill) <= len(recorded)
    for entry in bill:
        attempt = recorded.pop(entry["client_request_id"].replace("-", "."))
        assert entry["prompt_tokens"] + entry["completion_tokens"] <= attempt.usage.total_tokens
    return len(bill) + len(recorded), len(bill)
