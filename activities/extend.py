"""`extend`: a person let a request go past its budgets, and the ledger is told."""

from decimal import Decimal

from temporalio import activity

from holdfast.contracts import Extended, ExtendInput
from holdfast.ledger import Ledger

MOST_USD = Decimal(100_000)
"""For a request without a ceiling in dollars: the largest that `limits.cost_usd` can be. Its tokens bound it too."""


class Extend:
    """Records the permission once for each approval."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @activity.defn(name="extend")
    async def extend(self, given: ExtendInput) -> Extended:
        """Let the request's next calls pass the ceilings of its budgets by this much. Its own limits stay."""
        await self._ledger.budgets.extend(
            given.request_id,
            tokens=given.tokens,
            cost_usd=MOST_USD if given.cost_usd is None else given.cost_usd,
            by=given.by,
            approval=given.approval,
        )
        return Extended()
