"""`docs/metrics.md` lists every metric there is, as it is, and no other."""

import re
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import Histogram, Metric, Sum
from prometheus_client.parser import text_string_to_metric_families

from holdfast.settings import TelemetrySettings
from holdfast.telemetry import start_metrics
from tests.telemetry.measured import Measured, record_everything

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
_NAME = re.compile(r"`([^`]+)`")


def documented(heading: str) -> dict[str, tuple[str, str, frozenset[str]]]:
    """Kind, unit and attributes by metric, from the first table below some words."""
    found = {}
    rows = PAGE[PAGE.index(heading) :].partition("|---")[2].partition("\n\n")[0].splitlines()[1:]
    for row in rows:
        name, kind, unit, attributes = row.strip("|").split("|")[:4]
        found[_NAME.findall(name)[0]] = (kind.strip(), _NAME.findall(unit)[0], frozenset(_NAME.findall(attributes)))
    return found


def described(metric: Metric) -> tuple[str, str, frozenset[str]]:
    """The same of what was recorded."""
    kind = "histogram" if isinstance(metric.data, Histogram) else "counter"
    assert isinstance(metric.data, Histogram) or (isinstance(metric.data, Sum) and metric.data.is_monotonic)
    attributes = frozenset(name for point in metric.data.data_points for name in point.attributes or {})
    return kind, metric.unit or "", attributes


@pytest.mark.parametrize("generation", ["v1.41", "next"])
def test_documented_metrics_are_exactly_those_that_are_recorded(generation: str) -> None:
    measured = Measured(generation)
    record_everything(measured.metrics)
    recorded = {name: described(metric) for name, metric in measured.all().items()}
    assert documented("## What is measured") | documented(f"In generation `{generation}`") == recorded


def test_the_questions_to_prometheus_name_what_a_scrape_has() -> None:
    running = start_metrics(TelemetrySettings(), "holdfast-test", own_server=False)
    record_everything(running.metrics)
    samples = [
        sample for family in text_string_to_metric_families(running.render().decode()) for sample in family.samples
    ]
    running.stop()
    known = {sample.name for sample in samples} | {label for sample in samples for label in sample.labels}
    blocks = re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    named = set(re.findall(r"(?:gen_ai|holdfast)_\w+", "".join(blocks)))
    assert len(blocks) == 7
    assert len(named) > 5
    assert named <= known
