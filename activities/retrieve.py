"""`retrieve`: passages of the tenant's documents that bear on the question."""

from temporalio import activity

from holdfast.contracts import Retrieved, RetrieveInput
from holdfast.knowledge import Knowledge
from holdfast.ledger import Ledger
from holdfast.preparation import PASSAGES


class Retrieve:
    """Searches the knowledge store; the passages themselves go to the content store."""

    def __init__(self, knowledge: Knowledge, ledger: Ledger) -> None:
        self._knowledge = knowledge
        self._ledger = ledger

    @activity.defn(name="retrieve")
    async def retrieve(self, given: RetrieveInput) -> Retrieved:
        """Find the best passages."""
        query = await self._ledger.contents.get(given.tenant, given.query)
        passages = await self._knowledge.retrieve(given.tenant, given.collection, query, given.limit)
        kept = await self._ledger.contents.put(given.tenant, PASSAGES.dump_json(tuple(passages)).decode())
        return Retrieved(passages=kept, count=len(passages), top_score=round(passages[0].score, 4) if passages else 0.0)
