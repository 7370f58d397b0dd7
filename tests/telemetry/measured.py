"""Metrics kept in memory, by a provider that no other test shares."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import get_args

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint

from holdfast.contracts import Status, Usage
from holdfast.errors import Outcome
from holdfast.notify import EVENTS
from holdfast.telemetry import HeldBack, Metrics, NotificationOutcome

USAGE = Usage(input_tokens=10, cache_read_tokens=3, cache_write_tokens=2, output_tokens=5)


@dataclass
class Measured:
    """What was recorded."""

    generation: str = "v1.41"
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.metrics = Metrics(MeterProvider([self.reader]), generation=self.generation)

    def all(self) -> dict[str, Metric]:
        """Every metric that has a value, by name."""
        data = self.reader.get_metrics_data()
        resources = data.resource_metrics if data else []
        return {
            metric.name: metric
            for resource in resources
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> dict[frozenset[tuple[str, object]], float]:
        """A metric's values by their attributes: a counter's total, a histogram's sum."""
        return dict(_values(self.all()[name])) if name in self.all() else {}


def _values(metric: Metric) -> Iterator[tuple[frozenset[tuple[str, object]], float]]:
    for point in metric.data.data_points:
        key: frozenset[tuple[str, object]] = frozenset((point.attributes or {}).items())
        if isinstance(point, HistogramDataPoint):
            yield key, point.sum
        elif isinstance(point, NumberDataPoint):
            yield key, point.value


def keyed(**attributes: str) -> frozenset[tuple[str, object]]:
    """Attributes as a key; `__` stands for a dot."""
    return frozenset((name.replace("__", "."), value) for name, value in attributes.items())


def record_everything(metrics: Metrics) -> None:
    """Record with every method, so that every instrument and every attribute has a value."""
    for outcome in Outcome:
        metrics.call_ended(
            "primary",
            model="sim-large",
            vendor="openai",
            outcome=outcome,
            duration=timedelta(seconds=3),
            first_token=timedelta(seconds=1),
            usage=USAGE,
            cost_usd=Decimal("0.25"),
        )
    metrics.queued("primary", timedelta(seconds=2))
    for reason in HeldBack:
        metrics.throttled("primary", reason, timedelta(seconds=4))
    metrics.breaker("primary", "open")
    for status in Status:
        metrics.request_ended("support", status)
    metrics.edge_hit("support")
    for event in EVENTS:
        for outcome in get_args(NotificationOutcome):
            metrics.notified("webhook:ops", event, outcome, timedelta(seconds=2))
