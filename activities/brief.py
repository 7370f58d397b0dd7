"""`brief`: makes a request of the work that a model gives to another agent."""

from temporalio import activity

from holdfast.contracts import Briefed, BriefInput
from holdfast.delegation import Delegation


class Brief:
    """Stores what a delegate's run needs. Safe to repeat: the request has the same id again."""

    def __init__(self, delegation: Delegation) -> None:
        self._delegation = delegation

    @activity.defn(name="brief")
    async def brief(self, given: BriefInput) -> Briefed:
        """Brief one delegate."""
        return await self._delegation.brief(given)
