"""Counts tokens the way the chosen generation of the GenAI conventions wants them counted."""

from collections.abc import Mapping

from opentelemetry.metrics import Counter, Meter

from holdfast.contracts import Usage
from holdfast.telemetry import genai


class TokenMetrics:
    """The token instruments of one meter.

    Args:
        meter: Makes the instruments.
        names: Of the generation. v1.41 has one histogram for both directions; the next has a histogram for each, to
            look at single calls, and counters, to add up.
    """

    def __init__(self, meter: Meter, names: genai.Names) -> None:
        self._input = meter.create_histogram(
            names.input_histogram,
            unit="{token}",
            description="Tokens of a model call, cached ones included.",
            explicit_bucket_boundaries_advisory=genai.TOKEN_BOUNDARIES,
        )
        self._output = (
            self._input
            if names.output_histogram == names.input_histogram
            else meter.create_histogram(
                names.output_histogram,
                unit="{token}",
                description="Tokens of a model's reply, reasoning included.",
                explicit_bucket_boundaries_advisory=genai.TOKEN_BOUNDARIES,
            )
        )
        self._direction = names.histogram_attribute
        self._inputs = _counter(meter, names.input_counter, "Prompt tokens, cached ones included.")
        self._outputs = _counter(meter, names.output_counter, "Reply tokens, reasoning included.")
        self._cache_reads = _counter(meter, names.cache_read_counter, "Prompt tokens from the provider's cache.")
        self._cache_writes = _counter(meter, names.cache_write_counter, "Prompt tokens written to the cache.")
        self._counted = {names.counter_attribute: "text"} if names.counter_attribute else {}

    def record(self, usage: Usage, attributes: Mapping[str, str]) -> None:
        """Record what the provider reported for one call."""
        prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        self._input.record(prompt, {**attributes, self._direction: "input"} if self._direction else attributes)
        self._output.record(
            usage.output_tokens, {**attributes, self._direction: "output"} if self._direction else attributes
        )
        counted = {**attributes, **self._counted}
        for counter, tokens in (
            (self._inputs, prompt),
            (self._outputs, usage.output_tokens),
            (self._cache_reads, usage.cache_read_tokens),
            (self._cache_writes, usage.cache_write_tokens),
        ):
            if counter is not None and tokens:
                counter.add(tokens, counted)


def _counter(meter: Meter, name: str | None, description: str) -> Counter | None:
    return meter.create_counter(name, unit="{token}", description=description) if name else None
