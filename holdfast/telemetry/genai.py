"""Names of the OpenTelemetry GenAI semantic conventions for spans and metrics, kept by ourselves.

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
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP = "gen_ai.request.stop_sequences"
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
DIRECTION = "gen_ai.token.type"
MODALITY = "gen_ai.token.modality"

OPERATION_DURATION = "gen_ai.client.operation.duration"
OPERATION_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"

TOKEN_BOUNDARIES = tuple(float(4**power) for power in range(14))
"""Buckets that the conventions ask for: 1 to 67,108,864 tokens."""
SECONDS_BOUNDARIES = tuple(0.01 * 2**power for power in range(14))
"""Buckets that the conventions ask for: 10 ms to 81.92 s."""

SPAN_KIND = "openinference.span.kind"
"""OpenInference's key; without it viewers show some of our spans as unknown."""

REQUEST_ID = "holdfast.request.id"
ATTEMPT_ID = "holdfast.attempt.id"
DEPLOYMENT = "holdfast.deployment"
TOOL_CALLS = "holdfast.tool_calls"
COST_USD = "holdfast.cost_usd"

_PROVIDERS = {
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}


def provider_name(provider: str) -> str:
    """The conventions' `gen_ai.provider.name` of a provider.

    Args:
        provider: A `provider` of `models.toml` or an id of the price list; one that the conventions do not know keeps
            its own name, as they allow.
    """
    return _PROVIDERS.get(provider, provider)


@dataclass(frozen=True)
class Names:
    """The names on which the two generations differ."""

    cache_read_tokens: str
    """Attribute of a span."""
    cache_write_tokens: str
    input_histogram: str
    """Metric: prompt tokens of a call."""
    output_histogram: str
    histogram_attribute: str | None
    """What tells the two apart where one metric has both."""
    input_counter: str | None
    """Metric: prompt tokens of all calls, in the generation that has one beside the histogram."""
    output_counter: str | None
    cache_read_counter: str
    """Metric: prompt tokens from the provider's cache. v1.41 has none, so there it is our own."""
    cache_write_counter: str
    counter_attribute: str | None
    """What the generation wants to know of counted tokens; ours are always text."""


_SPENT = "gen_ai.client.inference.usage."

_PROFILES = {
    "v1.41": Names(
        cache_read_tokens="gen_ai.usage.cache_read.input_tokens",
        cache_write_tokens="gen_ai.usage.cache_creation.input_tokens",
        input_histogram="gen_ai.client.token.usage",
        output_histogram="gen_ai.client.token.usage",
        histogram_attribute=DIRECTION,
        input_counter=None,
        output_counter=None,
        cache_read_counter="holdfast.tokens.cache_read",
        cache_write_counter="holdfast.tokens.cache_write",
        counter_attribute=None,
    ),
    "next": Names(
        cache_read_tokens="gen_ai.usage.cache_read.input_tokens",
        cache_write_tokens="gen_ai.usage.cache_write.input_tokens",
        input_histogram="gen_ai.client.inference.operation.input_tokens",
        output_histogram="gen_ai.client.inference.operation.output_tokens",
        histogram_attribute=None,
        input_counter=_SPENT + "input_tokens",
        output_counter=_SPENT + "output_tokens",
        cache_read_counter=_SPENT + "cache_read.input_tokens",
        cache_write_counter=_SPENT + "cache_write.input_tokens",
        counter_attribute=MODALITY,
    ),
}


def names_of(generation: str) -> Names:
    """The names of a generation, `v1.41` or `next`.

    Raises:
        KeyError: There is no such generation.
    """
    return _PROFILES[generation]
