"""Workflows that keep the engine's side of the bargain - names, memo, search attributes, update, query - and no more.

They let the door to the engine be tested against a real server without models, stores or activities.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from holdfast.contracts import (
    Answer,
    Approval,
    Carried,
    ContentRef,
    Decision,
    DecisionReceipt,
    Ingested,
    IngestRun,
    Progress,
    Run,
    Status,
    Usage,
)
from workflows import attributes

CONTENT = ContentRef(sha256="c" * 64, size=7)
DEADLINE = datetime(2099, 1, 1, tzinfo=UTC)


@workflow.defn(name="RequestWorkflow")
class StandInRequest:
    """Ends at once, waits for a decision if the plan has a rule, or does what the session says.

    A session that is a number puts the deadline that many minutes later.
    """

    @workflow.init
    def __init__(self, run: Run) -> None:
        self._run = run
        self._open = False
        self._decided: Decision | None = None

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """Run."""
        request = run.request
        match request.session:
            case "fails":
                raise ApplicationError("No deployment could answer.", type="RequestFailed", non_retryable=True)
            case "breaks":
                raise ApplicationError("a secret in a stack trace", non_retryable=True)
            case "lingers":
                await asyncio.Future[None]()
            case "starts over" if run.carried is None:
                workflow.continue_as_new(Run(request=request, carried=Carried(masked=request.input)))
        if request.plan.approval is not None:
            deadline = DEADLINE if request.session != "hurries" else DEADLINE - timedelta(days=1)
            if request.session and request.session.isdigit():
                deadline = DEADLINE + timedelta(minutes=int(request.session))
            approval = Approval(
                request_id=request.id,
                content=CONTENT,
                rule=request.plan.approval,
                requested_by=request.user,
                opened_at=workflow.now(),
                deadline=deadline,
            )
            workflow.upsert_memo({"approval": approval})
            workflow.upsert_search_attributes(
                [
                    attributes.STATUS.value_set(Status.WAITING.value),
                    attributes.APPROVERS.value_set(list(request.plan.approval.approvers)),
                    attributes.APPROVAL_DEADLINE.value_set(deadline),
                    attributes.COST_USD.value_set(0.0012),
                ]
            )
            self._open = True
            await workflow.wait_condition(lambda: self._decided is not None)
        workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.COMPLETED.value)])
        await workflow.wait_condition(workflow.all_handlers_finished)
        return Answer(
            request_id=request.id,
            status=Status.COMPLETED,
            decided_by=self._decided.actor if self._decided else None,
            attempts=1,
        )

    @workflow.update
    async def decide(self, decision: Decision) -> DecisionReceipt:
        """Take a decision."""
        self._decided = decision
        return DecisionReceipt(
            request_id=self._run.request.id,
            decision=decision.decision,
            actor=decision.actor,
            content_sha256=decision.content_sha256,
            decided_at=workflow.now(),
        )

    @decide.validator
    def _check(self, decision: Decision) -> None:
        if not self._open:
            raise ApplicationError("nothing is open", "not_open", type="DecisionRefused")
        if decision.content_sha256 != CONTENT.sha256:
            raise ApplicationError("other content waits", "other_content", type="DecisionRefused")

    @workflow.query
    def progress(self) -> Progress:
        """Where it stands."""
        return Progress(
            request_id=self._run.request.id,
            status=Status.WAITING if self._open else Status.RUNNING,
            step="approve",
            spent=Usage(),
            attempts=1,
            events=(),
        )


@workflow.defn(name="IngestWorkflow")
class StandInIngest:
    """Counts the documents."""

    @workflow.run
    async def run(self, run: IngestRun) -> Ingested:
        """Run."""
        if run.collection == "lingers":
            await asyncio.Future[None]()
        return Ingested(sources=len(run.documents), passages=1)
