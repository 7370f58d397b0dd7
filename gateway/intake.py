"""Accepts questions: stores what a request needs and starts it, or answers at the edge what was answered before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.edge_answers import EdgeAnswer, EdgeAnswers
from gateway.execution import Execution, RequestEngine
from gateway.identity import Caller
from gateway.session import Earlier, earlier_turns
from gateway.submission import Question, digest, keyed_id, merge_limits, new_id
from holdfast.configuration import Agent, Configuration, reference
from holdfast.contracts import ContentRef, Conversation, Request
from holdfast.contracts.request import CURRENT_WALK
from holdfast.errors import InvalidInput
from holdfast.ledger import FinishedRequest, Ledger
from holdfast.settings import TierSettings
from holdfast.telemetry import Metrics

LAST = 5
"""The priority of batch requests."""


@dataclass(frozen=True)
class Accepted:
    """A question that was taken."""

    execution: Execution
    agent: Agent
    fresh: bool
    """Whether this call made the request; a repetition of its idempotency key did not."""
    edge: EdgeAnswer | None = None
    """The answer, if it was given at the edge."""


class Intake:
    """Accepts questions.

    Args:
        configuration: The agents.
        ledger: Where texts and idempotency keys are kept.
        engine: What runs the requests.
        answers: What needs no run.
        tiers: Service tiers by name.
        metrics: Where answers of the edge are counted.
    """

    def __init__(
        self,
        configuration: Configuration,
        ledger: Ledger,
        engine: RequestEngine,
        answers: EdgeAnswers,
        tiers: Mapping[str, TierSettings],
        metrics: Metrics | None = None,
    ) -> None:
        self.configuration = configuration
        self._ledger = ledger
        self._engine = engine
        self._answers = answers
        self._tiers = tiers
        self._metrics = metrics or Metrics()

    async def accept(self, caller: Caller, asked: Question, body: Mapping[str, Any], key: str | None) -> Accepted:
        """Store what the request needs and start it, once for each idempotency key.

        The texts are committed before the run starts, so a run never lacks them. If the process dies in between, the
        same key starts the run when it comes again.

        Args:
            caller: Who asks.
            asked: The question.
            body: The body as it was parsed; a repetition of the key must have an equal one.
            key: Idempotency key, if any.

        Raises:
            InvalidInput: The agent is unknown, the input is empty, or a limit is not acceptable.
            Problem: A limit is out of its range.
            IdempotencyConflict: The key came with another body before.
            Unavailable: Ledger or engine do not answer.
        """
        agent = self.configuration.agent(asked.agent)
        if not asked.input.strip():
            raise InvalidInput("`input` is empty; send the question as text.", field="input")
        if agent.plan.toolbox is not None and asked.conversation is not None and asked.conversation.tools:
            raise InvalidInput(
                f"Agent {agent.name!r} has tools of its own, beside which a client's tools cannot be offered; leave "
                "`tools` out, or ask an agent without.",
                field="tools",
            )
        limits = merge_limits(agent, asked.limits)
        now = datetime.now(UTC)
        if asked.not_before is not None and asked.not_before - now >= limits.deadline:
            raise InvalidInput(
                "`not_before` is after the request's deadline; name an earlier moment, or ask for a longer "
                "`limits.deadline`.",
                field="not_before",
            )
        earlier = await self._earlier(caller, agent, asked)
        conversation = _conversation(asked, earlier)
        question = reference(asked.input)
        edge = None
        if conversation is None and _may_repeat(agent, asked):
            edge = await self._answers.find(caller.tenant, agent.plan.version, question.sha256)
        surroundings = () if conversation is None else (conversation.model_dump_json(exclude_defaults=True),)
        texts = () if edge else (asked.input, *surroundings, *agent.texts)
        request_id = new_id("req_") if key is None else keyed_id("req_", caller.tenant, key)
        if key is not None:
            claim = await self._ledger.submissions.claim(
                caller.tenant, key, body_sha256=digest(body), request_id=request_id, texts=texts
            )
            request_id = claim.request_id
            if not claim.created and (existing := await find(self._engine, self._ledger, request_id, caller.tenant)):
                return Accepted(existing, agent, fresh=False)
        if edge is not None:
            self._metrics.edge_hit(agent.name)
            return Accepted(
                await self._repeat(caller, agent, asked, question, edge, request_id, now), agent, True, edge
            )
        if key is None or not claim.created:
            # A key that was claimed before: its first submission died before the run started, perhaps under an older
            # version of the agent.
            await self._ledger.contents.put_many(caller.tenant, texts)
        execution = await self._engine.submit(
            Request(
                id=request_id,
                tenant=caller.tenant,
                user=caller.user,
                plan=agent.plan,
                input=question,
                limits=limits,
                submitted_at=now,
                session=asked.session,
                tier=caller.tier,
                walk=CURRENT_WALK,
                **self._options(caller, asked),
                **({"conversation": reference(surroundings[0])} if surroundings else {}),
                **({"tainted": earlier.tainted} if earlier.tainted else {}),
            )
        )
        return Accepted(execution, agent, fresh=True)

    def _options(self, caller: Caller, asked: Question) -> dict[str, Any]:
        """Fields that most requests leave at their defaults; what is unset is left out of a history."""
        tier = self._tiers.get(caller.tier, TierSettings())
        options: dict[str, Any] = {"priority": LAST if asked.batch else tier.priority, "weight": tier.weight}
        if asked.batch:
            options["batch"] = True
        if asked.chat:
            options["chat"] = True
        if asked.not_before is not None:
            options["not_before"] = asked.not_before
        return options

    async def _earlier(self, caller: Caller, agent: Agent, asked: Question) -> Earlier:
        """What was said before in the session, unless the client sent a history of its own."""
        given = asked.conversation
        spoken = given is not None and any(turn.role != "system" for turn in (*given.turns, *given.continuation))
        if asked.session is None or agent.history == 0 or spoken:
            return Earlier(turns=(), tainted=())
        return await earlier_turns(self._ledger, caller.tenant, caller.user, asked.session, limit=agent.history)

    async def _repeat(
        self,
        caller: Caller,
        agent: Agent,
        asked: Question,
        question: ContentRef,
        edge: EdgeAnswer,
        request_id: str,
        now: datetime,
    ) -> Execution:
        """Put the repetition on record, which is all that is done for it."""
        finished = FinishedRequest(
            tenant=caller.tenant,
            user=caller.user,
            agent=agent.name,
            plan_version=agent.plan.version,
            submitted_at=now,
            finished_at=now,
            # What it was first answered from taints the answer as often as it is given.
            answer=edge.ended(request_id).model_copy(
                update={"tainted": ("documents",) if agent.plan.collection else ()}
            ),
            session=asked.session,
            tier=caller.tier,
            input=question,
        )
        await self._ledger.requests.finish(finished)
        return _ended(finished)


def _conversation(asked: Question, earlier: Earlier) -> Conversation | None:
    """What the client sent, and after it what was said before in the session."""
    if not earlier.turns:
        return asked.conversation
    given = asked.conversation or Conversation()
    return given.model_copy(update={"turns": (*given.turns, *earlier.turns)})


async def find(engine: RequestEngine, ledger: Ledger, request_id: str, tenant: str) -> Execution | None:
    """A request of the tenant, from the engine or, when it has no run or no longer one, from the ledger."""
    if (execution := await engine.find(request_id, tenant)) is not None:
        return execution
    finished = await ledger.requests.get(tenant, request_id)
    return None if finished is None else _ended(finished)


def _ended(finished: FinishedRequest) -> Execution:
    return Execution(
        request_id=finished.answer.request_id,
        tenant=finished.tenant,
        user=finished.user,
        agent=finished.agent,
        status=finished.answer.status,
        submitted_at=finished.submitted_at,
        session=finished.session,
        answer=finished.answer,
        tokens=finished.answer.usage.total_tokens,
        cost_usd=finished.answer.usage.cost_usd,
        traced=False,
    )


def _may_repeat(agent: Agent, asked: Question) -> bool:
    """Whether an earlier answer to the identical input may be given without a run."""
    return agent.plan.recall and agent.plan.approval is None and not asked.batch and asked.not_before is None
