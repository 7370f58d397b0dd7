"""What model calls consumed: tokens by class, and money."""

from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from holdfast.contracts.base import Contract


class FinishReason(StrEnum):
    """Why a model stopped, whatever the provider calls it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"


class Usage(Contract):
    """Tokens in disjoint classes, so that they can be priced and added without counting one twice."""

    input_tokens: int = Field(default=0, ge=0)
    """Prompt tokens billed at the full input rate: neither read from nor written to a provider's prompt cache."""

    cache_read_tokens: int = Field(default=0, ge=0)
    """Prompt tokens served from the provider's cache."""

    cache_write_tokens: int = Field(default=0, ge=0)
    """Prompt tokens written to the provider's cache."""

    output_tokens: int = Field(default=0, ge=0)
    """Generated tokens, reasoning included."""

    cost_usd: Decimal | None = Decimal(0)
    """Price in US dollars; `None` when the model has no known price, which is not the same as free."""

    @property
    def total_tokens(self) -> int:
        """Every token of every class."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Sum of two usages. A sum with one unpriced part is unpriced."""
        unpriced = self.cost_usd is None or other.cost_usd is None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=None if unpriced else (self.cost_usd or Decimal(0)) + (other.cost_usd or Decimal(0)),
        )
