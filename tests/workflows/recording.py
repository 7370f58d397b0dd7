"""What recordings of histories have in common: a request that is asked and ends, people who decide, what models say."""

import asyncio
import json
from decimal import Decimal
from typing import Any

from holdfast.contracts import AtLimit
from holdfast.spending import Period, ScopeKind
from tests.house import House
from tests.workflows.recorded import DOCUMENT, QUESTION, REPLY

VALID = {"kind": "ok", "content": json.dumps({"x": 1, "note": REPLY})}
INVALID = {"kind": "ok", "content": json.dumps({"x": REPLY, "note": "", "more": REPLY})}
SAID = {"kind": "ok", "content": f"{REPLY} holds."}


async def ended(house: House, agent: str, status: str, *, text: str = f"What is {QUESTION}?", **body: object) -> str:
    """Ask, and wait for the ending that is meant."""
    request_id = str((await house.ask(agent, text, **body))["id"])
    return await ends(house, request_id, status)


async def ends(house: House, request_id: str, status: str) -> str:
    """Wait for the ending that is meant."""
    async with asyncio.timeout(60):
        while True:
            reply = await house.show(request_id)
            if reply["status"] == status:
                return request_id
            if reply["status"] not in ("running", "waiting"):
                raise AssertionError(f"{request_id} ended as {reply['status']}: {reply.get('reason')}")
            await asyncio.sleep(0.1)


async def held(house: House, agent: str = "held", **body: object) -> str:
    """Ask what waits for a person."""
    if agent != "heldjson":
        house.simulator.script(SAID)
    reply = await house.ask(agent, f"May {QUESTION} leave?", **body)
    return str(reply["id"])


async def poor(house: House, at_limit: AtLimit) -> None:
    """Leave the tenant less than one call costs, for as long as the recording of this path takes."""
    await house.services.ledger.budgets.set(
        "local", ScopeKind.TENANT, "local", Period.DAY, cost_usd=Decimal("0.0000001"), at_limit=at_limit
    )


async def decide(house: House, request_id: str, decision: str, *, by: str = "ann", **body: Any) -> None:
    """Decide on what waits."""
    reply = await house.decide(request_id, decision, by=by, **body)
    if reply.status_code != 200:
        raise AssertionError(reply.text)


async def add_document(house: House) -> str:
    """Index a document; the id of the ingestion."""
    posted = await house.http.post(
        "/v1/collections/docs/documents",
        params={"wait": 30},
        json={"documents": [{"source": "bird.md", "text": f"# Birds\n\nThe {DOCUMENT} holds a branch.\n"}]},
    )
    if posted.status_code != 200:
        raise AssertionError(posted.text)
    return str(posted.json()["id"])
