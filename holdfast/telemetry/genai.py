"""Attribute names of the OpenTelemetry GenAI semantic conventions, kept by ourselves.

The Python package marks every `gen_ai` constant as moved: after v1.41.0 the names live in the repository
`open-telemetry/semantic-conventions-genai`, where they still change. So there are two profiles, and a setting chooses.
"""

from dataclasses import dataclass

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR_TYPE = "error.type"

SPAN_KIND = "openinference.span.kind"
"""OpenInference's key; without it viewers show some of our spans as unknown."""

REQUEST_ID = "holdfast.request.id"
ATTEMPT_ID = "holdfast.attempt.id"
COST_USD = "holdfast.cost_usd"


@dataclass(frozen=True)
class Names:
    """The names on which the two generations differ."""

    cache_read_tokens: str
    cache_write_tokens: str


_PROFILES = {
    "v1.41": Names("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    "next": Names("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"),
}


def names_of(generation: str) -> Names:
    """The names of a generation, `v1.41` or `next`.

    Raises:
        KeyError: There is no such generation.
    """
    return _PROFILES[generation]
