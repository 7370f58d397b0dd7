"""What tokens cost: the configured price of a deployment, or else the list that the genai-prices package carries.

Nothing here touches the network: the list is the one bundled with the installed package, never its updater's.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from genai_prices import Usage as CountedUsage
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id
from genai_prices.types import ModelPrice

from holdfast.contracts import Usage

MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars per million tokens."""

    input_usd_per_million: Decimal
    output_usd_per_million: Decimal
    cache_read_usd_per_million: Decimal | None = None
    """`None`: the input rate."""
    cache_write_usd_per_million: Decimal | None = None
    """`None`: the input rate."""

    def cost(self, usage: Usage) -> Decimal:
        """Dollars of a usage, exact."""
        read = self.cache_read_usd_per_million
        write = self.cache_write_usd_per_million
        return (
            usage.input_tokens * self.input_usd_per_million
            + usage.cache_read_tokens * (self.input_usd_per_million if read is None else read)
            + usage.cache_write_tokens * (self.input_usd_per_million if write is None else write)
            + usage.output_tokens * self.output_usd_per_million
        ) / MILLION


class Prices:
    """Looks prices up."""

    def __init__(self) -> None:
        self._list = DataSnapshot(providers=providers, from_auto_update=False)

    def cost(
        self, provider: str, model: str, usage: Usage, at: datetime, *, override: Price | None = None
    ) -> Decimal | None:
        """Dollars of one call.

        Args:
            provider: Whose price list applies, an id of genai-prices such as `openai`.
            model: The model as the provider calls it, e.g. `gpt-4o-mini-2024-07-18`.
            usage: Its tokens; `cost_usd` is not looked at.
            at: When the call was made, aware: list prices change over time.
            override: The configured price; with it the list is not asked.

        Returns:
            The cost, or `None` when the model is unknown or the list lacks a rate for a kind of token that was used:
            the list's own arithmetic would count such tokens as free.
        """
        if override is not None:
            return override.cost(usage)
        try:
            _, listed = self._list.find_provider_model(model, None, provider, None)
        except LookupError:
            return None
        rates = listed.get_prices(at)
        prompt_tokens = usage.total_tokens - usage.output_tokens
        if (prompt_tokens and not _has(rates, "input_mtok")) or (
            usage.output_tokens and not _has(rates, "output_mtok")
        ):
            return None
        # genai-prices counts cached tokens inside `input_tokens`; here the classes are disjoint.
        counted = CountedUsage(
            input_tokens=prompt_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
        )
        return rates.calc_price(counted)["total_price"]


def vendors() -> tuple[str, ...]:
    """The ids of all price lists."""
    return tuple(provider.id for provider in providers)


def is_vendor(name: str) -> bool:
    """Whether prices are looked up under a name: the id of a list, or another name that the package has for it."""
    return find_provider_by_id(providers, name) is not None or name.lower() == "litellm"


def _has(rates: ModelPrice, name: str) -> bool:
    return getattr(rates, name, None) is not None
