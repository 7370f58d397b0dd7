"""`ingest`: documents into passages, embedded and indexed by the worker that owns the knowledge store."""

from datetime import UTC, datetime

from temporalio import activity

from holdfast.contracts import Ingested, IngestRun, Unreadable
from holdfast.knowledge import Document, Knowledge
from holdfast.ledger import Ledger


class Ingest:
    """Indexes document by document, so that a retry goes on where the last attempt died."""

    def __init__(self, knowledge: Knowledge, ledger: Ledger) -> None:
        self._knowledge = knowledge
        self._ledger = ledger

    @activity.defn(name="ingest")
    async def ingest(self, run: IngestRun) -> Ingested:
        """Index a batch. Replacing a source is idempotent, so an attempt may repeat any part of another."""
        sources = passages = 0
        unreadable: list[Unreadable] = []
        for number, document in enumerate(run.documents):
            activity.heartbeat(number)
            text = await self._ledger.contents.get(run.tenant, document.text)
            report = await self._knowledge.ingest(run.tenant, run.collection, [Document(document.source, text)])
            unreadable += report.unreadable
            sources += len(report.indexed)
            passages += sum(report.indexed.values())
        # Answers from before knew other documents.
        await self._ledger.answers.forget(run.tenant)
        return Ingested(sources=sources, passages=passages, unreadable=tuple(unreadable), finished_at=datetime.now(UTC))
