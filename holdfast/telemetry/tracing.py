"""Turns OpenTelemetry on for a process when an endpoint is configured."""

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from holdfast import __version__
from holdfast.settings import TelemetrySettings


def start_tracing(settings: TelemetrySettings, service: str) -> Callable[[], None] | None:
    """Export spans of this process over OTLP/HTTP.

    Args:
        settings: Without `otlp_endpoint` nothing is started and spans cost nothing.
        service: `service.name` of this process, e.g. `holdfast-worker`.

    Returns:
        A function that flushes and stops the export, or `None` when tracing is off.
    """
    if not settings.otlp_endpoint:
        return None
    provider = TracerProvider(resource=Resource({"service.name": service, "service.version": __version__}))
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown
