"""PostgreSQL that goes away and comes back: nothing is skipped meanwhile, and nobody has to restart."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url

from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, Outcome, Unavailable
from holdfast.ledger import AttemptKey, Contents, GroupBy, Ledger, Opened
from holdfast.spending import Period, ScopeKind
from tests.cable import Cable

HOLD = Usage(input_tokens=100)


@pytest.fixture
async def cable(postgresql: str) -> AsyncIterator[Cable]:
    """A plugged cable to the server of the test's database."""
    target = make_url(postgresql)
    carrying = Cable(target.host or "127.0.0.1", target.port or 5432)
    await carrying.plug()
    yield carrying
    await carrying.cut()


@pytest.fixture
async def ledger(postgresql: str, cable: Cable) -> AsyncIterator[Ledger]:
    """A ledger at the far end of the cable, with a budget for three calls."""
    url = make_url(postgresql).set(host="127.0.0.1", port=cable.port)
    opened = await Ledger.open(url.render_as_string(hide_password=False))
    await opened.budgets.set("acme", ScopeKind.TENANT, "acme", Period.TOTAL, tokens=300)
    yield opened
    await opened.aclose()


async def call(ledger: Ledger, request: str) -> Opened:
    opened = await ledger.attempts.open(
        AttemptKey("acme", request, 1),
        deployment="d",
        model="m",
        hold=HOLD,
        limits=Limits(),
        scopes=SpendScopes(tenant="acme", user="ada"),
    )
    assert isinstance(opened, Opened)
    return opened


async def test_while_it_is_away_no_call_is_admitted_and_when_it_is_back_the_budget_still_holds(
    ledger: Ledger, cable: Cable
) -> None:
    first = await call(ledger, "req_1")
    await cable.cut()
    for number in range(2, 5):
        with pytest.raises(Unavailable, match="does not answer"):
            await call(ledger, f"req_{number}")
    with pytest.raises(Unavailable):
        await ledger.attempts.list("req_1")
    results = await asyncio.gather(*(call(ledger, f"req_{n}") for n in range(5, 25)), return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    await cable.plug()
    results = await asyncio.gather(*(call(ledger, f"req_{n}") for n in range(30, 40)), return_exceptions=True)
    assert sum(isinstance(result, Opened) for result in results) == 2
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 8
    settled = await ledger.attempts.settle(
        first.attempt_id, Outcome.OK, usage=HOLD, output="reply", finish_reason=FinishReason.STOP, model="m"
    )
    assert settled.usage == HOLD
    (line,) = await ledger.usage(GroupBy.TENANT)
    (standing,) = await ledger.budgets.list("acme")
    assert (line.attempts, standing.spent.tokens) == (3, 300)


async def test_a_connection_that_died_while_idle_is_replaced_without_anyone_noticing(
    ledger: Ledger, cable: Cable
) -> None:
    await call(ledger, "req_1")
    reference = await ledger.contents.put("acme", "text")
    await cable.cut()
    await cable.plug()
    await call(ledger, "req_2")
    await cable.cut()
    await cable.plug()
    assert await Contents(ledger.database).get("acme", reference) == "text"


async def test_a_server_that_is_not_there_at_the_start_is_named_without_its_password(
    postgresql: str, cable: Cable
) -> None:
    url = make_url(postgresql).set(host="127.0.0.1", port=cable.port, password="hush")
    await cable.cut()
    with pytest.raises(Unavailable, match=f":{cable.port}/") as raised:
        await Ledger.open(url.render_as_string(hide_password=False))
    assert "hush" not in str(raised.value)
    await cable.plug()
