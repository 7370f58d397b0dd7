"""How servers of the chat-completions shape differ from each other: one row each, and no code that asks for a name.

Sources: OpenAI API reference; Google, "OpenAI compatibility" and "Thought signatures"; OpenRouter, "API parameters";
Ollama, `docs/api/openai-compatibility.mdx`; vLLM, `vllm/entrypoints/openai/chat_completion/protocol.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FlavourName = Literal["openai", "gemini", "openrouter", "ollama", "vllm", "compatible"]
"""`compatible` is any other server: it is sent nothing beyond what all of them understand."""


@dataclass(frozen=True)
class Flavour:
    """What one kind of server understands beyond the common core."""

    tool_choice: bool = True
    """Whether it heeds `tool_choice`. Where not, `none` is expressed by sending no tools, and a tool that was required
    and not called is no failure."""
    parallel_tool_calls: bool = True
    strict_tools: bool = True
    """Whether a function may be marked `strict`."""
    cache_key_field: str | None = None
    """Takes `ModelCall.cache_key`."""
    user_field: str | None = None
    """Takes `ModelCall.user_tag`."""
    tenant_field: str | None = None
    """Takes `ModelCall.tenant_tag`, and keeps prompt caches of different values apart."""
    stream_options: Mapping[str, bool] = field(default_factory=dict)
    """Beside `include_usage`."""
    first_call_extra: Mapping[str, Any] = field(default_factory=dict)
    """Put on the first tool call of every assistant turn that is sent back."""
    truncates_silently: bool = False
    """Whether a prompt that does not fit is cut off without an error, so that it has to be measured before."""


FLAVOURS: Mapping[FlavourName, Flavour] = {
    "openai": Flavour(cache_key_field="prompt_cache_key", user_field="safety_identifier"),
    "gemini": Flavour(
        parallel_tool_calls=False,
        strict_tools=False,
        # Gemini 3 answers 400 to a tool call without its signature; this value stands for one that got lost.
        first_call_extra={"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}},
    ),
    "openrouter": Flavour(user_field="user"),
    "ollama": Flavour(tool_choice=False, parallel_tool_calls=False, strict_tools=False, truncates_silently=True),
    # Usage on every chunk, because vLLM leaves it out at the end when the client or the engine breaks off.
    "vllm": Flavour(tenant_field="cache_salt", stream_options={"continuous_usage_stats": True}),
    "compatible": Flavour(strict_tools=False),
}
"""Every difference that a request shows. Those of replies and errors are understood whoever sends them."""
