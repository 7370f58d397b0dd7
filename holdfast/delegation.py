"""Makes a request of the work that one agent gives to another: its text, its budget, its place in the chain.

The delegate is briefed like anybody who asks: with the task in plain words, under its own plan and limits. What it may
spend was carved out of its parent's limits before, by `holdfast.budget.carve`.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from holdfast.configuration import Agent, reference
from holdfast.contracts import CURRENT_WALK, MAX_DEPTH, Briefed, BriefInput, Limits, Request
from holdfast.guards import restore
from holdfast.ledger import Ledger

TASK = "task"
"""The one parameter of a delegate, as a model sees it."""


class Delegation:
    """Briefs delegates.

    Args:
        agents: By name, as the configuration has them now; the delegate's run is pinned to that.
        ledger: Has the texts, and what the placeholders in them stand for.
    """

    def __init__(self, agents: Mapping[str, Agent], ledger: Ledger) -> None:
        self._agents = agents
        self._ledger = ledger

    async def brief(self, given: BriefInput, now: datetime | None = None) -> Briefed:
        """The delegate's request, its texts stored; or why there is none, in words for the model.

        Doing it again gives a request of the same id, of which the engine admits one run.

        Args:
            given: Who asks whom for what, and what can be spared.
            now: The moment of submission; the present by default.

        Raises:
            ContentMissing: The call's arguments are gone.
            Unavailable: The ledger does not answer.
        """
        parent, call = given.parent, given.call
        now = now or datetime.now(UTC)
        if parent.depth + 1 > MAX_DEPTH:
            return Briefed(
                problem=f"Agent {call.agent!r} was not asked: the chain of delegation already has {parent.depth} "
                f"agents, and {MAX_DEPTH} are the most. Answer without it."
            )
        agent = self._agents.get(call.agent)
        if agent is None:
            return Briefed(problem=f"Agent {call.agent!r} is not there any more. Answer without it.")
        limits = tighter(agent.limits, given.limits, until=parent.deadline_at - now)
        if limits is None:
            return Briefed(problem=f"Agent {call.agent!r} was not asked: the time of this request is up.")
        task = await self._task(given, restored=agent.plan.guards.mask)
        if not task.strip():
            return Briefed(problem=f"Agent {call.agent!r} was not asked: the task is empty.")
        await self._ledger.contents.put_many(parent.tenant, (task, *agent.texts))
        return Briefed(
            request=Request(
                id=child_id(parent.id, call.key),
                tenant=parent.tenant,
                user=parent.user,
                plan=agent.plan,
                input=reference(task),
                limits=limits,
                submitted_at=now,
                session=parent.session,
                tier=parent.tier,
                priority=parent.priority,
                weight=parent.weight,
                parent=parent.id,
                root=parent.root or parent.id,
                depth=parent.depth + 1,
                tainted=given.tainted,
                walk=CURRENT_WALK,
                **_options(parent),
            )
        )

    async def _task(self, given: BriefInput, *, restored: bool) -> str:
        """What the delegate is asked to do.

        Placeholders are those of the parent's run. A delegate that masks personal data gets the values and masks them
        itself; one that does not mask never sees them.
        """
        parent, call = given.parent, given.call
        if call.arguments is None:
            return ""
        task = str(json.loads(await self._ledger.contents.get(parent.tenant, call.arguments)).get(TASK, ""))
        if not restored:
            return task
        mapping = await self._ledger.vault.load(parent.tenant, parent.id)
        return restore(task, mapping) if mapping else task


def child_id(parent: str, key: str) -> str:
    """The request id of the delegate that a call asks for; the same call always has the same."""
    digest = hashlib.sha256(f"{parent}\0{key}".encode()).hexdigest()
    return f"req_{digest[:32]}"


def tighter(own: Limits, spared: Limits, *, until: timedelta) -> Limits | None:
    """A delegate's own limits, its tokens, dollars and time cut to what its parent can spare.

    Args:
        own: Of the delegate's agent.
        spared: The part of the parent's.
        until: Time to the parent's deadline.

    Returns:
        `None` when there is no time left.
    """
    deadline = min(own.deadline, spared.deadline, until)
    if deadline <= timedelta(0):
        return None
    costs = [cost for cost in (own.cost_usd, spared.cost_usd) if cost is not None]
    cost: Decimal | None = min(costs) if costs else None
    update = {"tokens": min(own.tokens, spared.tokens), "cost_usd": cost, "deadline": deadline}
    return own.model_copy(update=update)


def _options(parent: Request) -> dict[str, Any]:
    """What most requests leave at its default; what is unset is left out of a history."""
    return {"batch": True} if parent.batch else {}
