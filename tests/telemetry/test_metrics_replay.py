"""Replaying a workflow records nothing, so nothing is counted twice."""

import inspect
import subprocess
import sys
from collections.abc import Sequence

import pytest
from temporalio import workflow
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from holdfast import loop
from holdfast.contracts import Answer, Run, Status
from holdfast.telemetry import Metrics
from tests.telemetry.measured import record_everything
from tests.workflows.recorded import load
from workflows.connection import DATA_CONVERTER
from workflows.ingest import IngestWorkflow
from workflows.notifications import NotificationWorkflow
from workflows.request import BUGS, RequestWorkflow

METHODS = [name for name, _ in inspect.getmembers(Metrics, inspect.isfunction) if not name.startswith("_")]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every record that anything in this process makes."""
    found: list[str] = []
    for name in METHODS:
        monkeypatch.setattr(Metrics, name, lambda *_, _name=name, **__: found.append(_name))
    return found


async def replay(workflows: Sequence[type], name: str) -> None:
    """Run a recorded history through the workflows' code again, in this process."""
    await Replayer(
        workflows=workflows, data_converter=DATA_CONVERTER, workflow_runner=UnsandboxedWorkflowRunner()
    ).replay_workflow(load(name))


@pytest.mark.parametrize(
    "name", ["plain", "retry", "fallback", "repair", "approve", "notified", "notification", "ingest"]
)
async def test_replaying_a_history_records_nothing(recorded: list[str], name: str) -> None:
    await replay([RequestWorkflow, IngestWorkflow, NotificationWorkflow], name)
    assert recorded == []


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class Records(RequestWorkflow):
    """Does what no workflow may."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)

    @workflow.run
    async def run(self, run: Run) -> Answer:
        """As shipped."""
        return await super().run(run)

    async def _begin(self) -> loop.LoopTick:
        Metrics().request_ended("plain", Status.RUNNING)
        return await super()._begin()


async def test_a_workflow_that_recorded_would_be_found(recorded: list[str]) -> None:
    await replay([Records], "plain")
    assert recorded == ["request_ended"]
    recorded.clear()
    record_everything(Metrics())
    assert set(recorded) == set(METHODS)


def test_workflows_do_not_even_load_what_records() -> None:
    script = (
        "import sys, workflows.request, workflows.ingest, workflows.notifications\n"
        "import workflows.steps, workflows.connection\n"
        "print([name for name in sys.modules if name.startswith('holdfast.telemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")
