"""Gathers what routing decides on: the deployments as configured and as they are doing, and what the request demands.

The decision itself is `holdfast.routing.decide`, which is pure; here is what has to be looked up for it.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import TypeAdapter

from holdfast.contracts import AtLimit, Cause, ContentRef, Conversation, Fallbacks, RouteInput, SpendScopes, Usage
from holdfast.deployments import Deployment
from holdfast.health import Health, Standing
from holdfast.knowledge import Embedder
from holdfast.ledger import Ledger
from holdfast.prices import Prices
from holdfast.routing.candidate import Candidate, Demand, IntentMatch
from holdfast.routing.chain import decide
from holdfast.routing.complexity import ComplexityClassifier
from holdfast.routing.decision import Decision
from holdfast.routing.intents import Intent, IntentMatcher, texts_of
from holdfast.telemetry import BreakerCondition, Metrics
from holdfast.tokens import TOKENIZER_MARGIN, count_message_tokens

INTENTS: TypeAdapter[tuple[Intent, ...]] = TypeAdapter(tuple[Intent, ...])
"""Reads and writes the JSON array that a plan's reference stands for."""

MATCHERS = 64
"""Versions of agents whose examples are kept embedded."""


_STATES: Mapping[Standing, BreakerCondition] = {
    Standing.CLOSED: "closed",
    Standing.OPEN: "open",
    Standing.HALF_OPEN: "half_open",
    Standing.COOLING: "cooling",
}


def _lists(fallbacks: Fallbacks) -> dict[Cause, tuple[str, ...]]:
    lists = {
        Cause.OUTAGE: fallbacks.outage,
        Cause.CONTEXT_WINDOW: fallbacks.context_window,
        Cause.CONTENT_POLICY: fallbacks.content_policy,
        Cause.BUDGET: fallbacks.budget,
    }
    return {cause: names for cause, names in lists.items() if names}


@dataclass(frozen=True)
class Left:
    """What the request may still spend; `None` is without bound."""

    tokens: int | None = None
    usd: Decimal | None = None


class Router:
    """Chooses deployments.

    Args:
        deployments: As configured.
        prices: For deployments without a price of their own.
        ledger: Texts, and what has been spent.
        health: How the deployments are doing.
        embedder: For intents and complexity; asked only by agents that use them.
    """

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        prices: Prices,
        ledger: Ledger,
        health: Health,
        embedder: Embedder,
        metrics: Metrics | None = None,
    ) -> None:
        self._deployments = deployments
        self._prices = prices
        self._ledger = ledger
        self._health = health
        self._embedder = embedder
        self._metrics = metrics or Metrics()
        self._classifier = ComplexityClassifier.load()
        self._matchers: OrderedDict[str, IntentMatcher] = OrderedDict()
        self._matching = asyncio.Lock()

    async def route(self, given: RouteInput) -> Decision:
        """Choose among the deployments given, and the handlers of the agent's intents."""
        demand = await self._demand(given)
        intended = () if demand.intent is None else (demand.intent.deployment,)
        others = (name for names in demand.fallbacks.values() for name in names)
        candidates = await self._candidates(tuple(dict.fromkeys((*given.deployments, *intended, *others))))
        left = await self._left(given)
        decision = decide(candidates, replace(demand, tokens_left=left.tokens, usd_left=left.usd))
        if decision.chosen is None and given.cause is not Cause.BUDGET:
            # When nothing fits what is left, the ledger says whose ceiling it is and what is to be done.
            decision = decide(candidates, demand)
        return decision

    async def _candidates(self, names: Sequence[str]) -> list[Candidate]:
        known = {name: self._deployments[name] for name in names if name in self._deployments}
        remote = [deployment.health_key for deployment in known.values() if not deployment.in_process]
        conditions = await self._health.look(remote) if remote else {}
        for name, deployment in known.items():
            if condition := conditions.get(deployment.health_key):
                self._metrics.breaker(name, _STATES[condition.state])
        now = datetime.now(UTC)
        return [
            Candidate(
                name=name,
                model=deployment.model,
                provider=deployment.provider,
                region="local" if deployment.in_process else deployment.region,
                weight=deployment.weight,
                tier=deployment.tier,
                input_usd_per_million=self._rate(deployment, Usage(input_tokens=1_000_000), now),
                output_usd_per_million=self._rate(deployment, Usage(output_tokens=1_000_000), now),
                context_window=deployment.context_window,
                capabilities=deployment.abilities,
                enabled=deployment.enabled,
                health_key=deployment.health_key,
                condition=conditions.get(deployment.health_key),
            )
            for name, deployment in known.items()
        ]

    def _rate(self, deployment: Deployment, million: Usage, now: datetime) -> Decimal | None:
        return self._prices.cost(
            deployment.price_list, deployment.model, million, now, override=deployment.price_override
        )

    async def _demand(self, given: RouteInput) -> Demand:
        request = given.request
        excluded = dict.fromkeys(given.excluded, "failed this request or has no room")
        if request is None:
            return Demand(deployments=given.deployments, excluded=excluded)
        plan = request.plan
        conversation = Conversation()
        if given.conversation:
            text = await self._ledger.contents.get(request.tenant, given.conversation)
            conversation = Conversation.model_validate_json(text)
        needs = {"text"}
        if conversation.tools:
            needs.add("tools")
        if plan.output_schema:
            needs.add("json_schema")
        demand = Demand(
            prompt_tokens=await self._prompt_tokens(given),
            output_tokens=request.limits.output_tokens,
            needs=frozenset(needs),
            regions=frozenset(plan.regions),
            excluded=excluded,
            deployments=given.deployments,
            strategy=plan.strategy,
            # Once there is a cause, the loop has taken the list that belongs to it.
            fallbacks={} if given.cause else _lists(plan.fallbacks),
            cause=given.cause,
            seed=request.id,
        )
        first = given.cause is None and given.turn == 1
        wants_intent = plan.intents is not None and first and given.conversation is None
        if given.question is None or not (wants_intent or plan.strategy == "complexity"):
            return demand
        question = await self._ledger.contents.get(request.tenant, given.question)
        vector = (await self._embedder.embed([question]))[0]
        intent: IntentMatch | None = None
        if wants_intent and plan.intents is not None:
            intent = (await self._matcher(request.tenant, plan.intents)).match(vector)
        complexity = self._classifier.classify(question, vector) if plan.strategy == "complexity" else None
        return replace(demand, intent=intent, complexity=complexity)

    async def _matcher(self, tenant: str, reference: ContentRef) -> IntentMatcher:
        """The matcher of an agent's version; its examples are embedded once."""
        # One at a time: of many requests to a new worker, the first embeds the examples and the others find them.
        async with self._matching:
            matcher = self._matchers.get(reference.sha256)
            if matcher is None:
                intents = INTENTS.validate_json(await self._ledger.contents.get(tenant, reference))
                vectors = await self._embedder.embed(texts_of(intents))
                matcher = self._matchers[reference.sha256] = IntentMatcher(intents, vectors)
                while len(self._matchers) > MATCHERS:
                    self._matchers.popitem(last=False)
        return matcher

    async def _prompt_tokens(self, given: RouteInput) -> int:
        """What the ledger would hold for the prompt.

        A token is at least one byte, so a prompt whose bytes fit every window need not be counted exactly.
        """
        request = given.request
        if request is None:
            return 0
        parts = [request.plan.instructions, given.question, given.conversation, given.passages]
        references = [part for part in parts if part is not None]
        size = sum(part.size for part in references)
        windows = [self._deployments[name].context_window for name in given.deployments if name in self._deployments]
        counted = request.limits.cost_usd is not None or given.cause is Cause.BUDGET
        if not counted and size + request.limits.output_tokens < min(windows, default=0):
            return size // 4
        texts = [await self._ledger.contents.get(request.tenant, part) for part in references]
        return math.ceil(count_message_tokens(texts) * TOKENIZER_MARGIN)

    async def _left(self, given: RouteInput) -> Left:
        """What the request's own limits, and those of its budgets that degrade or block, leave."""
        request = given.request
        if request is None:
            return Left()
        spent = Usage()
        if given.turn > 1 or given.cause is not None:
            spent = (await self._ledger.attempts.totals(request.id)).usage
        tokens = [max(0, request.limits.tokens - spent.total_tokens)]
        usd = []
        if request.limits.cost_usd is not None:
            usd.append(max(Decimal(0), request.limits.cost_usd - (spent.cost_usd or Decimal(0))))
        scopes = SpendScopes(tenant=request.tenant, user=request.user, session=request.session)
        for standing in await self._ledger.budgets.left(scopes):
            # Where a person or the next period decides, a dearer deployment is still worth asking for.
            if standing.at_limit in (AtLimit.DEGRADE, AtLimit.BLOCK):
                tokens += [] if standing.left_tokens is None else [standing.left_tokens]
                usd += [] if standing.left_usd is None else [standing.left_usd]
        return Left(min(tokens), min(usd, default=None))
