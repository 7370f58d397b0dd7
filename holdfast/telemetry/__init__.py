"""OpenTelemetry: spans from the gateway to the model call, and metrics of what `metrics.py` lists.

Spans are off until an endpoint is configured. Workflows import nothing of this: what replays must not record.
"""

from holdfast.telemetry.genai import Names, names_of, provider_name
from holdfast.telemetry.metrics import BreakerCondition, HeldBack, Metrics, NotificationOutcome
from holdfast.telemetry.metrics_export import METRICS_CONTENT_TYPE, RunningMetrics, start_metrics
from holdfast.telemetry.model_span import LiveSpan, ModelSpan
from holdfast.telemetry.tracing import start_tracing

__all__ = [
    "METRICS_CONTENT_TYPE",
    "BreakerCondition",
    "HeldBack",
    "LiveSpan",
    "Metrics",
    "ModelSpan",
    "Names",
    "NotificationOutcome",
    "RunningMetrics",
    "names_of",
    "provider_name",
    "start_metrics",
    "start_tracing",
]
