"""The same decision under the same key gets the same receipt, also when the run has started over in between.

The server suggests that at 20 events instead of thousands.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.test_decided_and_cancelled import ANOTHER, NOT_MADE, REFUND, cancel, rows
from tests.workflows.test_long_runs import LONG_AGENTS, VALID, ended, progress, refused, started_over
from tests.workflows.workshop import TOOLS, WORKSHOP

Script = Callable[..., None]


@pytest.fixture(scope="module")
async def shared_house(short_history: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house on a server that calls 20 events a long history."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, short_history, agents=LONG_AGENTS, tools=TOOLS) as opened:
        yield opened


async def decide(house: House, request_id: str, by: str, key: str, content: str, **said: Any) -> httpx.Response:
    """Decide under a key of the caller."""
    return await house.http.post(
        f"/v1/approvals/{request_id}/decisions",
        headers={"X-Holdfast-User": by, "Idempotency-Key": key},
        json={"decision": "approve", "content_sha256": content, **said},
    )


async def asks_again(house: House, request_id: str) -> None:
    """Wait until a request has its second question open."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await progress(house, request_id)).tools[-1].key != "1.1":  # noqa: ASYNC110 - the question has no event
            await asyncio.sleep(0.05)


async def test_a_repeated_decision_gets_its_first_receipt_however_often_the_run_started_over(
    house: House, script: Script
) -> None:
    script(VALID)
    request_id = (await house.ask("joint", "May this leave?"))["id"]
    content = (await house.waiting(request_id))["content_sha256"]
    first = await decide(house, request_id, "ann", "k", content)
    assert (first.status_code, first.json()["missing"]) == (200, 1), first.text
    for times in (1, 2):
        await refused(house, request_id, 25)
        await started_over(house, request_id, times)
        again = await decide(house, request_id, "ann", "k", content)
        assert (again.status_code, again.json()) == (200, first.json())
    other = await decide(house, request_id, "ann", "k", content, reason="another body")
    assert (other.status_code, other.json()["code"]) == (409, "already_voted"), "it is another decision"
    assert (await decide(house, request_id, "bob", "k", content, decision="reject")).status_code == 200
    assert (await ended(house, request_id)).status == "rejected"
    said = [(taken.actor, taken.decision) for taken in (await progress(house, request_id)).decisions]
    assert said == [("ann", "approve"), ("bob", "reject")], "a repetition is not counted"


async def test_a_call_that_was_approved_before_the_run_started_over_is_not_forgotten(
    house: House, script: Script
) -> None:
    WORKSHOP.reset()
    script({"kind": "tool_calls", "tool_calls": [REFUND, ANOTHER]}, {"kind": "ok", "content": "Done."})
    request_id = (await house.ask("paying", "Refund A7 and B8."))["id"]
    content = (await house.waiting(request_id))["content_sha256"]
    for by in ("ann", "bob"):
        assert (await decide(house, request_id, by, "k", content)).status_code == 200
    await asks_again(house, request_id)
    await refused(house, request_id, 25)
    await started_over(house, request_id, 1)
    again = await decide(house, request_id, "bob", "k", content)
    assert (again.status_code, again.json()["round"], again.json()["final"]) == (200, 1, True)
    await cancel(house, request_id)
    await house.ended(request_id)
    assert (await house.show(request_id))["reason"] == f"Cancelled by the caller. {NOT_MADE}"
    assert WORKSHOP.refunds == []
    told = [(number, happening) for number, happening, _ in await rows(house, request_id)]
    assert told[-3:] == [(2, "opened"), (2, "closed"), (1, "closed")]


async def test_a_decision_that_is_repeated_after_the_end_gets_its_receipt_too(house: House, script: Script) -> None:
    script(VALID)
    request_id = (await house.ask("heldlong", "May this leave?"))["id"]
    content = (await house.waiting(request_id))["content_sha256"]
    first = await decide(house, request_id, "ann", "k", content)
    await house.ended(request_id)
    again = await decide(house, request_id, "ann", "k", content)
    assert (again.status_code, again.json()) == (200, first.json())
    other = await decide(house, request_id, "bob", "k", content)
    assert (other.status_code, other.json()["code"]) == (409, "already_decided")
