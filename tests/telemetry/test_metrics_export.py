"""Metrics leave the process: pushed to a collector, pulled by Prometheus, or not at all."""

import socket
import threading
import urllib.request

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from holdfast.errors import ConfigurationError, Outcome
from holdfast.settings import TelemetrySettings
from holdfast.telemetry import METRICS_CONTENT_TYPE, RunningMetrics, start_metrics
from tests.ports import free_port
from tests.telemetry.measured import record_everything
from tests.telemetry.receiver import receiving


def families(text: bytes) -> dict[str, Metric]:
    """A scrape as Prometheus reads it."""
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def total(found: dict[str, Metric], family: str, sample: str, **labels: str) -> float:
    """The one sample with these labels among its labels."""
    (value,) = (
        entry.value
        for entry in found[family].samples
        if entry.name == sample and labels.items() <= entry.labels.items()
    )
    return float(value)


def gateway(**settings: str) -> RunningMetrics:
    """The metrics of a process that has a server of its own."""
    return start_metrics(TelemetrySettings.model_validate(settings), "holdfast-test", own_server=False)


def test_prometheus_reads_what_was_recorded() -> None:
    running = gateway()
    record_everything(running.metrics)
    found = families(running.render())
    running.stop()
    duration = "gen_ai_client_operation_duration_seconds"
    labels = {"gen_ai_request_model": "sim-large", "holdfast_deployment": "primary", "error_type": ""}
    assert total(found, duration, duration + "_sum", **labels) == 3
    assert total(found, duration, duration + "_count", **labels) == 1
    assert total(found, duration, duration + "_bucket", le="2.56", **labels) == 0
    assert total(found, duration, duration + "_bucket", le="5.12", **labels) == 1
    tokens = "gen_ai_client_token_usage"
    assert total(found, tokens, tokens + "_sum", gen_ai_token_type="output") == len(Outcome) * 5
    assert total(found, "holdfast_spend_usd", "holdfast_spend_usd_total") == len(Outcome) * 0.25
    attempts = "holdfast_attempts"
    assert total(found, attempts, attempts + "_total", holdfast_outcome="rate_limited") == 1
    assert total(found, "target_info", "target_info", service_name="holdfast-test") == 1


def test_two_scrapes_at_the_same_time_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = PrometheusMetricReader.collect
    read: list[bytes] = []
    second = threading.Thread(target=lambda: read.append(running.render()))

    def collect_with_company(reader: PrometheusMetricReader) -> None:
        collect(reader)
        if read and second.ident is None:
            second.start()
            # A second scrape that is let in ends within this time; one that is kept out ends after this one.
            second.join(timeout=0.3)

    monkeypatch.setattr(PrometheusMetricReader, "collect", collect_with_company)
    running = gateway()
    record_everything(running.metrics)
    read.append(running.render())
    read.append(running.render())
    second.join()
    running.stop()
    assert len(read) == 3
    assert len(set(read)) == 1


def test_a_worker_serves_metrics_on_loopback_until_it_stops() -> None:
    port = free_port()
    settings = TelemetrySettings(metrics_port=port)
    running = start_metrics(settings, "holdfast-worker", own_server=True)
    record_everything(running.metrics)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        assert reply.headers["Content-Type"] == METRICS_CONTENT_TYPE
        found = families(reply.read())
    assert "holdfast_queue_time_seconds" in found
    assert listeners(port) == {"127.0.0.1"}
    with pytest.raises(ConfigurationError, match="METRICS_PORT"):
        start_metrics(settings, "holdfast-worker", own_server=True)
    running.stop()
    assert listeners(port) == set()
    start_metrics(settings, "holdfast-worker", own_server=True).stop()


def listeners(port: int) -> set[str]:
    """Addresses of this machine that answer on a port; a server that is bound to every address answers on both."""
    found = set()
    for address in ("127.0.0.1", "127.0.0.2"):
        with socket.socket() as caller:
            caller.settimeout(30)
            if caller.connect_ex((address, port)) == 0:
                found.add(address)
    return found


def test_a_process_with_a_server_of_its_own_opens_no_port() -> None:
    port = free_port()
    running = gateway(metrics_port=str(port))
    assert listeners(port) == set()
    running.metrics.edge_hit("support")
    assert "holdfast_edge_hits" in families(running.render())
    running.stop()


def test_a_worker_that_nobody_asks_records_nothing() -> None:
    running = start_metrics(TelemetrySettings(), "holdfast-worker", own_server=True)
    record_everything(running.metrics)
    assert running.render() == b""
    running.stop()


@pytest.mark.parametrize("own_server", [True, False])
def test_metrics_are_pushed_to_the_collector_before_the_process_ends(own_server: bool) -> None:
    with receiving() as receiver:
        settings = TelemetrySettings(otlp_endpoint=receiver.url + "/", semantic_conventions="next")
        running = start_metrics(settings, "holdfast-test", own_server=own_server)
        record_everything(running.metrics)
        running.stop()
    assert set(receiver.paths) == {"/v1/metrics"}
    pushed = receiver.metrics()
    assert pushed["holdfast.attempts"] == "holdfast-test"
    assert pushed["gen_ai.client.inference.usage.input_tokens"] == "holdfast-test"


def test_two_processes_metrics_do_not_mix() -> None:
    first, second = gateway(), gateway()
    first.metrics.edge_hit("support")
    assert "holdfast_edge_hits" in families(first.render())
    assert "holdfast_edge_hits" not in families(second.render())
    first.stop()
    second.stop()
