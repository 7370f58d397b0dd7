"""What `webhooks` does with the ledger and the engine. It loads both, so the verb imports it late."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError

from cli.output import Problem
from holdfast.contracts import NotifyRun
from holdfast.errors import Unavailable
from holdfast.ledger import Delivery, DeliveryState, Ledger
from holdfast.notify.configuration import FILE
from holdfast.settings import Settings, load_settings
from workflows.connection import connect_client

Result = TypeVar("Result")
Row = dict[str, Any]

MOST = 1_000
"""Notifications taken off the dead-letter list by one call."""
STARTS = 16
"""Runs started at the same time."""


def read(tenant: str | None, state: str | None, limit: int) -> list[Row]:
    """Notifications, latest first."""
    states = [DeliveryState(state)] if state else []

    async def work(ledger: Ledger, settings: Settings) -> list[Row]:
        del settings
        return [_row(found) for found in await ledger.deliveries.list(tenant=tenant, states=states, limit=limit)]

    return _with_ledger(work)


def described_in() -> Path:
    """The file that says who is told what."""
    return load_settings().config_dir / FILE


def retry(delivery: str | None, tenant: str | None) -> list[str]:
    """Have a notification sent again, or everything on the dead-letter list.

    Returns:
        The ids of those that are being sent.
    """

    async def work(ledger: Ledger, settings: Settings) -> list[str]:
        engine = settings.engine
        # Before anything leaves the dead-letter list, there has to be somebody to send it.
        client = await connect_client(engine.address, engine.namespace)
        if delivery is None:
            dead = await ledger.deliveries.list(tenant=tenant, states=[DeliveryState.DEAD], limit=MOST)
            taken = [found for found in dead if await ledger.deliveries.revive(found.tenant, found.id)]
        else:
            taken = await _one(ledger, delivery, tenant)
        starting = asyncio.Semaphore(STARTS)
        await asyncio.gather(*(_start(client, engine.task_queue, found, starting) for found in taken))
        return [delivery] if delivery else [found.id for found in taken]

    return _with_ledger(work)


async def _start(client: Client, task_queue: str, delivery: Delivery, starting: asyncio.Semaphore) -> None:
    try:
        async with starting:
            await client.start_workflow(
                "NotificationWorkflow",
                NotifyRun(tenant=delivery.tenant, deliveries=(delivery.id,)),
                # Not the id of the first run, which may be under way with other notifications of the same event.
                id=f"retry-{delivery.id}",
                task_queue=task_queue,
                # An earlier retry waits for its next attempt, which is what is to happen now.
                id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary="a notification again",
            )
    except RPCError as error:
        raise Unavailable(
            f"The engine did not take notification {delivery.id} ({error.status.name}); repeat "
            f"`holdfast webhooks retry {delivery.id}`."
        ) from None


async def _one(ledger: Ledger, delivery_id: str, tenant: str | None) -> list[Delivery]:
    found = await ledger.deliveries.find(delivery_id)
    if found is None or tenant not in (None, found.tenant):
        raise Problem(f"There is no notification {delivery_id!r}.", remedy="See `holdfast webhooks failed`.")
    if found.state is DeliveryState.SENT:
        raise Problem(f"Notification {delivery_id} was accepted; it is not sent again.")
    mine = found.state is DeliveryState.PENDING or await ledger.deliveries.revive(found.tenant, found.id)
    # Somebody else took it off the list a moment ago, and has it sent.
    return [found] if mine else []


def _with_ledger(work: Callable[[Ledger, Settings], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        settings = load_settings()
        ledger = await Ledger.open(settings.ledger.url)
        try:
            return await work(ledger, settings)
        finally:
            await ledger.aclose()

    return asyncio.run(run())


def _row(delivery: Delivery) -> Row:
    return {
        "id": delivery.id,
        "tenant": delivery.tenant,
        "request_id": delivery.request_id,
        # As receivers get it; an event of another form names none.
        "agent": (json.loads(delivery.payload).get("data") or {}).get("agent", "-"),
        "event": delivery.event,
        "target": delivery.target,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "problem": delivery.problem,
        "created_at": delivery.created_at.isoformat(),
        "ended_at": delivery.ended_at.isoformat() if delivery.ended_at else None,
    }
