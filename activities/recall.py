"""`recall`: the answer to the identical question, asked before by the same tenant of the same agent version."""

from datetime import UTC, datetime, timedelta

from temporalio import activity

from holdfast.contracts import Recalled, RecallInput
from holdfast.ledger import Ledger


class Recall:
    """Looks exact answers up."""

    def __init__(self, ledger: Ledger, recall_for: timedelta) -> None:
        self._ledger = ledger
        self._recall_for = recall_for

    @activity.defn(name="recall")
    async def recall(self, given: RecallInput) -> Recalled:
        """Find a validated answer that is not too old."""
        found = await self._ledger.answers.recall(
            given.tenant, given.plan_version, given.masked.sha256, ttl=self._recall_for, now=datetime.now(UTC)
        )
        if found is None:
            return Recalled()
        return Recalled(content=found.content, passages=found.passages, from_request=found.request_id)
