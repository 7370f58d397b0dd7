"""Workflows that are under way go on after a deploy: histories of every path replay on today's code, without a server.

`python -m tests.workflows.record_histories` records them anew; its docstring says when that is right.
"""

import pytest
from temporalio import workflow
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from holdfast import loop
from holdfast.contracts import Answer, ContentRef, Run
from tests.workflows.recorded import EDIT, MARKERS, load, names, readable
from worker import workflow_runner
from workflows.batches import BatchWorkflow
from workflows.connection import DATA_CONVERTER
from workflows.ingest import IngestWorkflow
from workflows.notifications import NotificationWorkflow
from workflows.request import BUGS, RequestWorkflow

RUNNERS = {"sandboxed": SandboxedWorkflowRunner(), "as tests": workflow_runner(sandbox=True), "as production": None}

PATHS = {
    "approve",
    "batch",
    "batch_again",
    "batch_cancel",
    "batch_expire",
    "batch_fallback",
    "batches",
    "broken",
    "cancel",
    "cancel_waiting",
    "chain",
    "condition",
    "condition_unmet",
    "deny",
    "documents",
    "edit",
    "escalated",
    "expire",
    "fail",
    "fallback",
    "ingest",
    "invalid",
    "nonsense",
    "notification",
    "notified",
    "notified_cancel",
    "plain",
    "private",
    "quorum",
    "quorum_cancel",
    "quorum_edit",
    "quorum_reject",
    "recall",
    "refuse",
    "reject",
    "repair",
    "retry",
    "signal",
    "start_over_1",
    "start_over_2",
    "start_over_tools_1",
    "start_over_tools_2",
    "team",
    "team_cancel",
    "team_delegate",
    "team_delegate_cancel",
    "team_held",
    "timeout",
    "timeout_approve",
    "tool_approve",
    "tool_cancel",
    "tool_edit",
    "tool_reject",
    "tools",
    "tools_cancel",
    "tools_repaired",
    "tools_repeated",
    "tools_tainted",
    "undelivered",
    "wait",
}
"""Paths that must have a history, so that a test that finds none does not pass."""


def replayer(runner: WorkflowRunner | None = None, *, traced: bool = False) -> Replayer:
    """A replayer of the shipped workflows."""
    return Replayer(
        workflows=[RequestWorkflow, IngestWorkflow, BatchWorkflow, NotificationWorkflow],
        data_converter=DATA_CONVERTER,
        workflow_runner=runner or UnsandboxedWorkflowRunner(),
        interceptors=[TracingInterceptor()] if traced else [],
    )


def test_every_path_has_a_recorded_history() -> None:
    assert set(names()) >= PATHS


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
@pytest.mark.parametrize("name", names())
async def test_a_recorded_history_replays(name: str, runner: WorkflowRunner | None) -> None:
    await replayer(runner).replay_workflow(load(name))


@pytest.mark.parametrize("name", names())
async def test_a_history_recorded_without_tracing_replays_with_it(name: str) -> None:
    await replayer(traced=True).replay_workflow(load(name))


@pytest.mark.parametrize("name", names())
def test_a_history_holds_no_text_of_a_request_and_no_personal_data(name: str) -> None:
    text = readable(load(name)).lower()
    assert [marker for marker in MARKERS if marker.lower() in text] == []


def test_text_in_a_payload_of_a_history_would_be_found() -> None:
    history = load("edit")
    accepted = next(
        event for event in history.events if event.HasField("workflow_execution_update_accepted_event_attributes")
    ).workflow_execution_update_accepted_event_attributes
    accepted.accepted_request.input.args.payloads[0].data = f'{{"payload_text": "{EDIT}"}}'.encode()
    assert EDIT in readable(history)
    assert EDIT not in history.to_json(), "base64 hides it, which is why `readable` exists"


@pytest.mark.parametrize("name", names())
def test_a_history_names_no_machine_and_no_path(name: str) -> None:
    history = load(name)
    for event in history.events:
        for _, attributes in event.ListFields():
            identity = getattr(attributes, "identity", "")
            assert identity in ("", "recorder", "history-service"), event
    text = readable(history)
    assert "site-packages" not in text
    assert ".py" not in text


FIRST = loop.ChooseDeployment((), ())


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class RoutesTwice(RequestWorkflow):
    """Has one step more."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """As shipped."""
        return await super().run(run)

    async def _begin(self) -> loop.LoopTick:
        tick = await super()._begin()
        await self._choose(FIRST)
        return tick


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class RoutesFirst(RequestWorkflow):
    """Has the same steps in another order."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._chosen: loop.LoopTick | None = None

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """As shipped."""
        return await super().run(run)

    async def _begin(self) -> loop.LoopTick:
        self._chosen = await super()._choose(FIRST)
        return await super()._begin()

    async def _choose(self, command: loop.ChooseDeployment) -> loop.LoopTick:
        return self._chosen or await super()._choose(command)


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class ForgetsTheDeadline(RequestWorkflow):
    """Waits for people without a timer."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """As shipped."""
        return await super().run(run)

    async def _ask(self, content: ContentRef) -> loop.LoopTick:
        self._open(self._about_output(content))
        await workflow.wait_condition(lambda: self._desk.verdict is not None)
        return loop.Approved(content)


@pytest.mark.parametrize(
    ("changed", "name"),
    [(RoutesTwice, "plain"), (RoutesFirst, "plain"), (RoutesFirst, "repair"), (ForgetsTheDeadline, "approve")],
)
async def test_a_change_of_the_steps_is_found_by_replay(changed: type[RequestWorkflow], name: str) -> None:
    with pytest.raises(workflow.NondeterminismError):
        await Replayer(
            workflows=[changed], data_converter=DATA_CONVERTER, workflow_runner=UnsandboxedWorkflowRunner()
        ).replay_workflow(load(name))
