"""Indexing documents as a workflow: an upload that was accepted is indexed, whatever dies in between."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from holdfast.contracts import Ingested, IngestRun
    from workflows import steps
    from workflows.request import BUGS


@workflow.defn(name="IngestWorkflow", failure_exception_types=BUGS)
class IngestWorkflow:
    """Indexes one batch of documents into one collection of one tenant."""

    @workflow.run
    async def run(self, run: IngestRun) -> Ingested:
        """Index the batch; unreadable sources are named in the result and do not keep the others out."""
        indexed: Ingested = await workflow.execute_activity(
            "ingest",
            run,
            result_type=Ingested,
            task_queue=steps.ingest_queue(workflow.info().task_queue),
            start_to_close_timeout=timedelta(minutes=30),
            schedule_to_close_timeout=timedelta(hours=2),
            heartbeat_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=5, non_retryable_error_types=steps.FINAL_ERRORS),
            summary=f"ingest: {len(run.documents)} documents into {run.collection!r}",
        )
        return indexed
