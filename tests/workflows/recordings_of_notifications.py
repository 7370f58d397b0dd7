"""Recordings of requests whose happenings are told, and of the run that tells them, for `record_histories`."""

from collections.abc import Awaitable, Callable

from tests.house import House
from tests.notify.targets import SECRET
from tests.workflows.recording import decide, ended, ends, held

NOTIFICATIONS = """
[webhooks.ops]
url = "%s"
secret_env = "OPS_SECRET"
private_hosts = ["127.0.0.1"]
http = true
"""
NOTIFICATION_SECRETS = {"OPS_SECRET": SECRET}


async def notified(house: House) -> str:
    """An approval and the end of a request are told."""
    request_id = await held(house)
    await decide(house, request_id, "approve")
    return await ends(house, request_id, "completed")


async def notified_cancel(house: House) -> str:
    """A question that is closed by a cancellation is told."""
    request_id = await held(house)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def notification(house: House) -> str:
    """The run that tells."""
    request_id = await ended(house, "plain", "completed")
    told = await house.services.ledger.deliveries.list()
    workflow_id = next(f"notify-{delivery.id}" for delivery in told if delivery.request_id == request_id)
    await house.ended(workflow_id)
    return workflow_id


NOTIFIED_PATHS: tuple[Callable[[House], Awaitable[str]], ...] = (notified, notified_cancel, notification)
