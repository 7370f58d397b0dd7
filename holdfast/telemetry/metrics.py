"""What is measured of deployments, requests, notifications and the edge.

Only activities and the gateway record. A workflow is executed again whenever it is replayed, so one that recorded would
count the past twice; workflows may not import this package.

Attributes come from the configuration (deployment, model, agent) or from our own enumerations, so their number is known
when the process starts. Tenants, users, sessions and requests are on no metric: each would be a time series for ever,
and a scrape would tell who asks how much. The ledger answers such questions (`holdfast usage`), exactly and per tenant.
"""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from opentelemetry.metrics import Histogram, Meter, MeterProvider, NoOpMeterProvider

from holdfast.contracts import Status, Usage
from holdfast.errors import Outcome
from holdfast.telemetry import genai
from holdfast.telemetry.token_metrics import TokenMetrics

OUTCOME = "holdfast.outcome"
REASON = "holdfast.reason"
STATE = "holdfast.state"
AGENT = "holdfast.agent"
STATUS = "holdfast.status"
TARGET = "holdfast.target"
EVENT = "holdfast.event"

_WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0)
_UNTIL_TOLD = (*_WAITS, 28_800.0, 86_400.0)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5)

BreakerCondition = Literal["closed", "open", "half_open", "cooling"]
"""`cooling`: the provider asked for a pause; the others as for any breaker."""


NotificationOutcome = Literal["delivered", "retried", "dead"]
"""`retried`: it was not accepted and will be tried again."""


class HeldBack(StrEnum):
    """What kept a call from being sent; the first three are named as `holdfast.limits.Dimension`."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    BREAKER = "breaker"


class Metrics:
    """Records without waiting: 10 µs for one value, 0.1 ms for all values of a model call.

    Args:
        provider: Where records go. Without one they go nowhere.
        generation: Of the GenAI names, `v1.41` or `next`.
    """

    def __init__(self, provider: MeterProvider | None = None, *, generation: str = "v1.41") -> None:
        meter = (provider or NoOpMeterProvider()).get_meter("holdfast")
        self._tokens = TokenMetrics(meter, genai.names_of(generation))
        self._duration = _seconds(
            meter, genai.OPERATION_DURATION, "Duration of a model call.", genai.SECONDS_BOUNDARIES
        )
        self._first_chunk = _seconds(
            meter, genai.OPERATION_FIRST_CHUNK, "From sending a call to its first chunk.", genai.SECONDS_BOUNDARIES
        )
        self._per_token = _seconds(
            meter, "holdfast.time_per_output_token", "Mean time of a reply's tokens after the first.", _PER_TOKEN
        )
        self._queue = _seconds(meter, "holdfast.queue.time", "Model calls' time in their deployment's queue.", _WAITS)
        self._limiter = _seconds(
            meter, "holdfast.limiter.wait", "What calls were told to wait before they could be sent.", _WAITS
        )
        self._attempts = meter.create_counter(
            "holdfast.attempts", unit="{attempt}", description="Model calls by how they ended."
        )
        self._spend = meter.create_counter(
            "holdfast.spend.usd", unit="{USD}", description="Spending, for display; the ledger has it to the cent."
        )
        self._breaker = meter.create_counter(
            "holdfast.breaker.transitions", unit="{transition}", description="Changes of breakers, as seen here."
        )
        self._requests = meter.create_counter(
            "holdfast.requests", unit="{request}", description="Requests by how they ended."
        )
        self._edge_hits = meter.create_counter(
            "holdfast.edge.hits", unit="{request}", description="Requests that the gateway answered by itself."
        )
        self._notifications = meter.create_counter(
            "holdfast.notification.attempts", unit="{attempt}", description="Attempts to tell a target by outcome."
        )
        self._until_told = _seconds(
            meter, "holdfast.notification.time", "From what happened to a target that knows of it.", _UNTIL_TOLD
        )
        self._seen: dict[str, BreakerCondition] = {}

    def call_ended(
        self,
        deployment: str,
        *,
        model: str,
        vendor: str,
        outcome: Outcome,
        duration: timedelta | None,
        first_token: timedelta | None = None,
        usage: Usage | None = None,
        cost_usd: Decimal | None = None,
    ) -> None:
        """A model call is over, well or badly.

        Args:
            deployment: Its name in `models.toml`.
            model: What was asked for. The model that answered is the provider's word, so not an attribute.
            vendor: A provider or an id of the price list, as for `genai.provider_name`.
            outcome: How it ended.
            duration: From sending to the end; `None` for a call of a batch, whose hours say nothing about the model.
            first_token: From sending to the first chunk; `None` when none came.
            usage: What the provider reported; `None` when it reported nothing, and then no tokens are made up.
            cost_usd: What the ledger put down, also a worst case that stays; `None` when there is no price.
        """
        attributes = {
            genai.OPERATION: "chat",
            genai.PROVIDER: genai.provider_name(vendor),
            genai.REQUEST_MODEL: model,
            genai.DEPLOYMENT: deployment,
        }
        self._attempts.add(1, {genai.DEPLOYMENT: deployment, OUTCOME: outcome.value})
        failed = outcome is not Outcome.OK
        if duration is not None:
            self._duration.record(
                _at_least_nothing(duration),
                {**attributes, genai.ERROR_TYPE: outcome.value} if failed else attributes,
            )
        if first_token is not None:
            self._first_chunk.record(_at_least_nothing(first_token), attributes)
        if usage is not None:
            self._tokens.record(usage, attributes)
            if first_token is not None and duration is not None and usage.output_tokens > 1:
                self._per_token.record(
                    _at_least_nothing(duration - first_token) / (usage.output_tokens - 1), attributes
                )
        if cost_usd:
            self._spend.add(float(cost_usd), attributes)

    def queued(self, deployment: str, wait: timedelta) -> None:
        """A model call is taken from its deployment's queue.

        Args:
            deployment: Whose queue.
            wait: From schedule to start of this attempt.
        """
        self._queue.record(_at_least_nothing(wait), {genai.DEPLOYMENT: deployment})

    def throttled(self, deployment: str, reason: HeldBack, wait: timedelta) -> None:
        """A call is held back before anything was sent.

        Args:
            deployment: Which has no room.
            reason: What it has no room in, or its breaker.
            wait: What the call is told to wait.
        """
        self._limiter.record(_at_least_nothing(wait), {genai.DEPLOYMENT: deployment, REASON: reason.value})

    def breaker(self, deployment: str, state: BreakerCondition) -> None:
        """A deployment's breaker is seen in a state; counted when it is another than this process saw last.

        Breakers are closed until someone sees otherwise, so it may be told at every look.
        """
        if self._seen.get(deployment, "closed") != state:
            self._seen[deployment] = state
            self._breaker.add(1, {genai.DEPLOYMENT: deployment, STATE: state})

    def request_ended(self, agent: str, status: Status) -> None:
        """A request is final. `agent` is one of the configuration's."""
        self._requests.add(1, {AGENT: agent, STATUS: status.value})

    def edge_hit(self, agent: str) -> None:
        """The gateway answered a request from the ledger, without the engine. `agent` is one of the configuration's."""
        self._edge_hits.add(1, {AGENT: agent})

    def notified(self, target: str, event: str, outcome: NotificationOutcome, since: timedelta) -> None:
        """An attempt to tell a target is on record.

        Args:
            target: `webhook:<name>` of the configuration, or `email`, whoever it goes to.
            event: One of `holdfast.notify.EVENTS`.
            outcome: What came of it.
            since: From what happened until now.
        """
        attributes = {TARGET: target, EVENT: event}
        self._notifications.add(1, {**attributes, OUTCOME: outcome})
        if outcome == "delivered":
            self._until_told.record(_at_least_nothing(since), attributes)


def _seconds(meter: Meter, name: str, description: str, boundaries: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=boundaries
    )


def _at_least_nothing(span: timedelta) -> float:
    """Seconds; two machines' clocks may put an end before its beginning."""
    return max(0.0, span.total_seconds())
