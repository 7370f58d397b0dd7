"""Spans leave a process when an endpoint is configured, and only then.

A process has one provider for its life, so each test asks a process of its own.
"""

import subprocess
import sys

from holdfast.settings import TelemetrySettings
from holdfast.telemetry import start_tracing
from tests.telemetry.receiver import receiving
from workflows.connection import tracing_interceptors

TRACED = """
import sys
from opentelemetry import trace
from holdfast.providers import ModelCall
from holdfast.settings import TelemetrySettings
from holdfast.telemetry import ModelSpan, start_tracing

stop = start_tracing(TelemetrySettings(otlp_endpoint=sys.argv[1]), "holdfast-test")
call = ModelCall(model="sim-large", messages=(), max_output_tokens=1, question="")
with ModelSpan().around(call, provider="openai", request_id="req_1"):
    pass
if stop is not None:
    stop()
"""


def traced(endpoint: str) -> None:
    """Make one span in a new process."""
    ran = subprocess.run(
        [sys.executable, "-c", TRACED, endpoint], capture_output=True, text=True, timeout=240, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_spans_are_posted_to_the_collector_before_the_process_ends() -> None:
    with receiving() as receiver:
        traced(f"{receiver.url}/")
    assert receiver.paths == ["/v1/traces"]
    assert receiver.spans() == {"chat sim-large": "holdfast-test"}


def test_without_an_endpoint_nothing_is_started() -> None:
    assert start_tracing(TelemetrySettings(), "holdfast-test") is None
    assert tracing_interceptors(TelemetrySettings().otlp_endpoint) == []


def test_with_an_endpoint_clients_hand_spans_on() -> None:
    assert len(tracing_interceptors("http://127.0.0.1:4318")) == 1
