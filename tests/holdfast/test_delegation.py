"""A delegate's request: whose it is, what it may spend, what it is told, and where the chain ends."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.configuration import Agent, reference
from holdfast.contracts import BriefInput, Guards, Limits, Plan, PlannedCall, Request
from holdfast.contracts.request import CURRENT_WALK, MAX_DEPTH
from holdfast.delegation import Delegation, child_id, tighter
from holdfast.ledger import Ledger

TENANT = "acme"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMPT = "You write SQL."
SPARED = Limits(tokens=1_000, cost_usd=Decimal("0.50"), deadline=timedelta(hours=1))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    opened = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path}/holdfast.db")
    yield opened
    await opened.aclose()


def agent(name: str = "sql", *, mask: bool = True, limits: Limits | None = None) -> Agent:
    """An agent that can be asked."""
    plan = Plan(
        agent=name,
        version="0123456789abcdef",
        deployments=("sim",),
        instructions=reference(PROMPT),
        guards=Guards(mask=mask),
    )
    return Agent(name, "Writes SQL.", plan, limits or Limits(), 0, (PROMPT,))


def parent(**changes: Any) -> Request:
    """A request that delegates."""
    fields: dict[str, Any] = {
        "id": "req_00000001",
        "tenant": TENANT,
        "user": "ann",
        "plan": agent("router").plan,
        "input": reference("x"),
        "limits": Limits(deadline=timedelta(hours=2)),
        "submitted_at": NOON,
        "session": "chat-7",
        "tier": "gold",
        "priority": 2,
        "weight": 3.0,
        **changes,
    }
    return Request.model_validate(fields)


async def asked(ledger: Ledger, task: str = "How many orders?", *, by: Request | None = None) -> BriefInput:
    """A call of the agent `sql`."""
    arguments = await ledger.contents.put(TENANT, json.dumps({"task": task}))
    call = PlannedCall(key="3.1", id="call_a", name="ask_sql", kind="delegate", agent="sql", arguments=arguments)
    return BriefInput(parent=by or parent(), call=call, limits=SPARED, tainted=("web",))


async def test_a_delegate_works_for_the_same_people_under_its_own_plan(ledger: Ledger) -> None:
    given, above = await asked(ledger), parent()
    (request,) = [(await Delegation({"sql": agent()}, ledger).brief(given, NOON)).request]
    assert request is not None
    assert request.plan == agent().plan
    for name in ("tenant", "user", "session", "tier", "priority", "weight"):
        assert getattr(request, name) == getattr(above, name), name
    assert (request.parent, request.root, request.depth) == (above.id, above.id, 2)
    assert request.tainted == ("web",)
    assert request.walk == CURRENT_WALK
    texts = [await ledger.contents.get(TENANT, wanted) for wanted in (request.input, request.plan.instructions)]
    assert texts == ["How many orders?", PROMPT]


async def test_the_same_call_is_always_the_same_request(ledger: Ledger) -> None:
    given = await asked(ledger)
    delegation = Delegation({"sql": agent()}, ledger)
    first, again = await delegation.brief(given, NOON), await delegation.brief(given, NOON + timedelta(seconds=5))
    assert first.request is not None
    assert again.request is not None
    assert first.request.id == again.request.id
    assert (
        len({child_id(*key) for key in [("req_a", "1.0"), ("req_a", "1.1"), ("req_b", "1.0"), ("req_a1", ".0")]}) == 4
    )


async def test_a_grandchild_names_the_request_at_the_top(ledger: Ledger) -> None:
    given = await asked(ledger, by=parent(parent="req_0000000a", root="req_0000000a", depth=2, batch=True))
    request = (await Delegation({"sql": agent()}, ledger).brief(given, NOON)).request
    assert request is not None
    assert (request.parent, request.root, request.depth) == ("req_00000001", "req_0000000a", 3)
    assert request.batch, "what may take a day and cost less may do so below, too"


async def test_a_chain_ends_at_its_greatest_depth(ledger: Ledger) -> None:
    given = await asked(ledger, by=parent(parent="req_0000000a", root="req_0000000a", depth=MAX_DEPTH))
    briefed = await Delegation({"sql": agent()}, ledger).brief(given, NOON)
    assert briefed.request is None
    assert f"{MAX_DEPTH} are the most" in briefed.problem


@pytest.mark.parametrize(("task", "missing"), [("How many?", "not there any more"), ("  ", "the task is empty")])
async def test_who_cannot_be_asked_is_told_to_the_model(ledger: Ledger, task: str, missing: str) -> None:
    agents = {} if task.strip() else {"sql": agent()}
    briefed = await Delegation(agents, ledger).brief(await asked(ledger, task), NOON)
    assert briefed.request is None
    assert missing in briefed.problem
    assert "'sql'" in briefed.problem


async def test_a_delegate_without_time_is_not_begun(ledger: Ledger) -> None:
    briefed = await Delegation({"sql": agent()}, ledger).brief(await asked(ledger), NOON + timedelta(hours=2))
    assert briefed.request is None
    assert "time of this request is up" in briefed.problem


@pytest.mark.parametrize(
    ("mask", "told"), [(True, "Who is ann@example.org?"), (False, "Who is <EMAIL_1>?")], ids=["masks", "does not mask"]
)
async def test_personal_data_reaches_only_a_delegate_that_masks_it_itself(
    ledger: Ledger, mask: bool, told: str
) -> None:
    await ledger.vault.save(TENANT, "req_00000001", {"<EMAIL_1>": "ann@example.org"})
    given = await asked(ledger, "Who is <EMAIL_1>?")
    request = (await Delegation({"sql": agent(mask=mask)}, ledger).brief(given, NOON)).request
    assert request is not None
    assert await ledger.contents.get(TENANT, request.input) == told


many = st.builds(
    Limits,
    tokens=st.integers(1, 10_000),
    cost_usd=st.none() | st.decimals(0, 10, places=4),
    deadline=st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
)


@given(many, many, st.timedeltas(timedelta(days=-1), timedelta(days=30)))
def test_a_delegate_may_spend_no_more_than_its_own_limits_and_what_is_spared(
    own: Limits, spared: Limits, until: timedelta
) -> None:
    limits = tighter(own, spared, until=until)
    if limits is None:
        assert until <= timedelta(0)
        return
    assert limits.tokens == min(own.tokens, spared.tokens)
    assert limits.deadline <= min(own.deadline, spared.deadline, until)
    for ceiling in (own.cost_usd, spared.cost_usd):
        assert ceiling is None or (limits.cost_usd is not None and limits.cost_usd <= ceiling)
    assert limits.attempts == own.attempts
