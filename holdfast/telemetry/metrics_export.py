"""Brings a process's metrics out: pushed over OTLP, pulled by Prometheus, or both.

Nothing here is global: every process, and every test, has its own provider and registry.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Metric, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from holdfast import __version__
from holdfast.errors import ConfigurationError
from holdfast.settings import TelemetrySettings
from holdfast.telemetry.metrics import Metrics

METRICS_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Media type of what `RunningMetrics.render` returns."""


@dataclass(frozen=True)
class RunningMetrics:
    """The metrics of a process."""

    metrics: Metrics
    render: Callable[[], bytes]
    """Everything recorded so far as Prometheus text; takes milliseconds, so not on an event loop."""
    stop: Callable[[], None]
    """Pushes what is left and closes the port; may wait for the collector, so not on an event loop."""


def start_metrics(settings: TelemetrySettings, service: str, *, own_server: bool) -> RunningMetrics:
    """Record metrics in this process and bring them out as the settings say.

    Args:
        settings: With `otlp_endpoint`, they are pushed every minute.
        service: `service.name` of this process, e.g. `holdfast-worker`.
        own_server: Whether this process opens `metrics_port` of loopback for Prometheus, as a worker does. A process
            with a server of its own serves `render` there instead, and metrics are on whatever the settings say.

    Raises:
        ConfigurationError: The port cannot be bound.
    """
    port = settings.metrics_port if own_server else 0
    if own_server and not port and not settings.otlp_endpoint:
        return RunningMetrics(Metrics(), bytes, _nothing)
    registry = _OneScrapeAtATime()
    readers: list[MetricReader] = []
    if port or not own_server:
        readers.append(PrometheusMetricReader(scope_info_enabled=False, registry=registry))
    if settings.otlp_endpoint:
        exporter = OTLPMetricExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/metrics")
        readers.append(PeriodicExportingMetricReader(exporter))
    # Bound before anything runs, so that a taken port leaves nothing behind.
    close = _serve(registry, port) if port else _nothing
    provider = MeterProvider(readers, Resource({"service.name": service, "service.version": __version__}))

    def stop() -> None:
        close()
        provider.shutdown()

    metrics = Metrics(provider, generation=settings.semantic_conventions)
    return RunningMetrics(metrics, lambda: generate_latest(registry), stop)


class _OneScrapeAtATime(CollectorRegistry):
    """Of two scrapes at the same time, OpenTelemetry's collector would give one the samples of both."""

    def __init__(self) -> None:
        super().__init__()
        self._scrape = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Everything registered, read in one go."""
        with self._scrape:
            return iter(list(super().collect()))


def _serve(registry: CollectorRegistry, port: int) -> Callable[[], None]:
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"Metrics cannot be served on port {port} of 127.0.0.1: {error.strerror}. Set "
            "HOLDFAST_TELEMETRY__METRICS_PORT to a free port for each worker of this machine, or to 0 to serve none."
        ) from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def _nothing() -> None:
    pass
