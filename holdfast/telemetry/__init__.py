"""OpenTelemetry: spans from the gateway to the model call, off until an endpoint is configured."""

from holdfast.telemetry.genai import Names, names_of
from holdfast.telemetry.model_span import ModelSpan
from holdfast.telemetry.tracing import start_tracing

__all__ = ["ModelSpan", "Names", "names_of", "start_tracing"]
