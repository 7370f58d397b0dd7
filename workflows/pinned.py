"""The request workflow for workers that have versions: a request that waits for people ends on the code it began with.

A class of its own, because the engine refuses a versioning behaviour from a worker without a version.
"""

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from holdfast.contracts import Answer, Run
    from workflows.request import BUGS, RequestWorkflow


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS, versioning_behavior=VersioningBehavior.PINNED)
class PinnedRequestWorkflow(RequestWorkflow):
    """Walks one request through its steps, all of them on one version of the worker."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """Walk the request to its end; see `RequestWorkflow.run`."""
        return await super().run(run)
