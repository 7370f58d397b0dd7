"""One span per HTTP request, named `METHOD route`; the framework makes it, and it costs nothing without a provider."""

from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig

_PROBES = ("/healthz", "/readyz", "/metrics")


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in _PROBES


TELEMETRY = TelemetryConfig(
    tracing=True,
    # The engine's spans hang below the request's own; spans for dependencies and serialisation would only hide them.
    operation_spans=False,
    metrics=False,
    # The framework's log records hold exception messages and stack traces of our own faults.
    logs=False,
    auto_configure=False,
    exclude=_is_probe,
)
"""How the gateway is traced. Bodies and headers are never on a span."""
