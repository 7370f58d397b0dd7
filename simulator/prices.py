"""What tokens cost: four disjoint kinds of them, a price for each, and exact sums."""

from decimal import Decimal
from typing import NamedTuple

_MILLION = 1_000_000
BATCH_SHARE = Decimal("0.5")
"""Of the price, for what a batch generated (OpenAI and Anthropic, "Batch API": 50 % of the standard price)."""


class Prompt(NamedTuple):
    """The tokens of a prompt, each counted once."""

    input_tokens: int
    """Neither read from nor written to the prompt cache."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total(self) -> int:
        """All tokens of the prompt."""
        return sum(self)


class Price(NamedTuple):
    """USD per million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal

    def cost(self, prompt: Prompt, output_tokens: int, *, batch: bool = False) -> Decimal:
        """USD for some tokens, not rounded."""
        per_million = (
            self.input * prompt.input_tokens
            + self.cache_read * prompt.cache_read_tokens
            + self.cache_write * prompt.cache_write_tokens
            + self.output * output_tokens
        )
        return per_million * (BATCH_SHARE if batch else 1) / _MILLION
