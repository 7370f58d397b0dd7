"""Spans kept in memory, by a provider that no other test shares."""

from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@dataclass
class Spans:
    """What was traced."""

    provider: TracerProvider = field(default_factory=TracerProvider)
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def finished(self) -> list[ReadableSpan]:
        """Every span that has ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def only(self) -> ReadableSpan:
        """The one span there is."""
        (span,) = self.finished()
        return span

    def text(self) -> str:
        """Everything on the spans, as it would be exported."""
        return "\n".join(span.to_json() for span in self.finished())


@pytest.fixture
def spans() -> Spans:
    """An empty record of spans."""
    return Spans()
