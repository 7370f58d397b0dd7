"""Faults: what a bug, a broken dependency or a store that is away for a moment does to a request, and what it tells."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError

from holdfast import loop
from holdfast.configuration import reference
from holdfast.contracts import ContentRef, Decision, EventKind, Request, Status
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.ledger import Ledger
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.recorded import readable
from workflows.approval_desk import ApprovalDesk
from workflows.attributes import STATUS

SECRET = "the patient is called Zanzibarite"


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house without sandbox, so that a patch reaches workflow code."""
    async with open_house(tmp_path_factory.mktemp("house"), temporal_client, sandbox=False) as opened:
        yield opened


def breaking(work: Callable[..., Any], *failures: Exception) -> Callable[..., Any]:
    """The same function, failing first."""
    left: Iterator[Exception] = iter(failures)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if failure := next(left, None):
            raise failure
        return work(*args, **kwargs)

    return broken


def always(failure: Exception) -> Callable[..., Any]:
    """A function that only fails."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise failure

    return broken


async def status_in_lists(house: House, request_id: str) -> str | None:
    """What a query for requests of one status goes by."""
    description = await house.client.get_workflow_handle(request_id).describe()
    return description.typed_search_attributes.get(STATUS)


@pytest.mark.parametrize("bug", [ValueError, KeyError, ZeroDivisionError, AssertionError, RecursionError, TypeError])
async def test_a_bug_in_workflow_code_ends_the_run_instead_of_retrying_its_task_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    monkeypatch.setattr(loop, "step", always(bug("a bug")))
    reply = await house.ask("plain", "Find the bug.")
    assert reply["status"] == "failed"
    description = await house.client.get_workflow_handle(reply["id"]).describe()
    assert description.status is WorkflowExecutionStatus.FAILED
    history = await house.history(reply["id"])
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in [event.event_type for event in history.events]
    ending = history.events[-1].workflow_execution_failed_event_attributes.failure
    assert ending.application_failure_info.type == bug.__name__
    assert ending.stack_trace, "a bug is found by its trace"
    assert await status_in_lists(house, reply["id"]) == "failed"


async def test_a_bug_in_the_handler_of_a_signal_ends_the_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = await house.ask("held", "Find the bug.")
    monkeypatch.setattr(ApprovalDesk, "take_signal", always(KeyError("a bug")))
    said = Decision.model_validate({"decision": "approve", "actor": "ann", "content_sha256": "0" * 64})
    await house.client.get_workflow_handle(reply["id"]).signal("decide", said)
    await house.ended(reply["id"])
    assert (await house.show(reply["id"]))["status"] == "failed"


NONSENSE: list[tuple[list[Any], str]] = [
    ([{"decison": "approve", "actor": "ann", "content_sha256": "0" * 64}], "`decison`: Extra inputs"),
    ([{"decision": "approve", "actor": "ann"}], "`content_sha256`: Field required"),
    ([{"decision": SECRET, "actor": "ann", "content_sha256": "0" * 64}], "`decision`: Input should be 'approve'"),
    (["approve"], "`decision`: Input should be an object"),
    ([None], "`decision`: Input should be an object"),
    ([], "one argument, not 0"),
    ([{}, {}], "one argument, not 2"),
]


async def test_a_signal_that_is_no_decision_is_told_and_changes_nothing(house: House) -> None:
    reply = await house.ask("held", "Misspelt.")
    handle = house.client.get_workflow_handle(reply["id"])
    for arguments, _ in NONSENSE:
        await handle.signal("decide", args=arguments)
    progress = await house.progress(reply["id"])
    assert progress.status == "waiting"
    told = [event.summary for event in progress.events if event.kind is EventKind.DECISION_REFUSED]
    assert [reason in summary for (_, reason), summary in zip(NONSENSE, told, strict=True)] == [True] * len(told)
    assert SECRET not in " ".join(told)
    decided = await house.decide(reply["id"], "approve", by="ann")
    assert decided.status_code == 200, decided.text
    assert (await house.show(reply["id"]))["status"] == "completed"


async def test_an_update_that_is_no_decision_fails_alone(house: House) -> None:
    reply = await house.ask("held", "Misspelt.")
    handle = house.client.get_workflow_handle(reply["id"])
    for arguments, _ in NONSENSE:
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update("decide", args=arguments)
    assert (await house.show(reply["id"], wait=0))["status"] == "waiting"
    assert (await house.decide(reply["id"], "approve", by="ann")).status_code == 200
    assert (await house.show(reply["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("where", "what", "step"),
    [
        ("validator", "check", "validate"),
        ("sanitizer", "sanitize_all", "sanitize"),
        ("caller", "call", "generate"),
    ],
)
async def test_the_message_of_an_unexpected_exception_reaches_neither_history_nor_answer_nor_log(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    what: str,
    step: str,
) -> None:
    monkeypatch.setattr(getattr(house.services, where), what, always(TypeError(f"cannot read {SECRET!r}")))
    reply = await house.ask("plain", "Break.")
    assert reply["status"] == "failed"
    assert "TypeError" in reply["reason"]
    assert "reference" in reply["reason"], "the operator must find the place in the log"
    told = readable(await house.history(reply["id"]))
    assert step in told
    assert SECRET not in told + str(reply) + caplog.text
    assert await status_in_lists(house, reply["id"]) == "failed"
    reference_ = reply["reason"].rpartition("reference ")[2].rstrip(".")
    assert reference_ in caplog.text


async def test_the_message_of_a_failed_attempt_stays_out_of_the_history_of_one_that_succeeds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = house.services.caller
    monkeypatch.setattr(caller, "call", breaking(caller.call, ValueError(f"cannot read {SECRET!r}")))
    reply = await house.ask("plain", "Break once.")
    assert reply["status"] == "completed", reply
    told = readable(await house.history(reply["id"]))
    assert "ValueError in step 'generate'" in told, "the engine keeps the last failure of an attempt"
    assert SECRET not in told


async def test_a_text_that_is_gone_is_not_looked_for_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = house.services.ledger.contents
    looked_for: list[str] = []
    get = contents.get

    async def counted(tenant: str, wanted: ContentRef) -> str:
        looked_for.append(wanted.sha256)
        return await get(tenant, wanted)

    monkeypatch.setattr(contents, "get", counted)
    never_stored = reference("This text was never stored.")
    agent = house.configuration.agent("plain")
    request = Request(
        id="req_contentmissing",
        tenant="local",
        user="local",
        plan=agent.plan,
        input=never_stored,
        limits=agent.limits,
        submitted_at=datetime.now(UTC),
    )
    execution = await house.engine.wait(await house.engine.submit(request), timedelta(seconds=PATIENCE_SECONDS))
    assert execution.status is Status.FAILED
    assert execution.answer is not None
    assert execution.answer.reason is not None
    assert never_stored.sha256[:12] in execution.answer.reason
    assert looked_for == [never_stored.sha256]


async def test_a_deployment_that_no_worker_knows_is_tried_once(
    house: House, monkeypatch: pytest.MonkeyPatch, script: Callable[..., None]
) -> None:
    monkeypatch.delitem(house.services.caller._deployments, "sim")
    reply = await house.ask("fallback", "Who knows?")
    assert (reply["status"], reply["deployment"]) == ("completed", "spare")
    started = [
        event.activity_task_started_event_attributes.attempt
        for event in (await house.history(reply["id"])).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    ]
    assert started == [1, 1]


@pytest.mark.parametrize(
    ("part", "method"),
    [
        (lambda ledger: ledger.contents, "get"),
        (lambda ledger: ledger.budgets, "left"),
        (lambda ledger: ledger.attempts, "open"),
        (lambda ledger: ledger, "finish"),
    ],
    ids=["contents", "budgets", "attempts", "finish"],
)
async def test_a_ledger_that_is_away_for_a_moment_costs_time_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch, part: Callable[[Ledger], object], method: str
) -> None:
    away = part(house.services.ledger)
    gone = Unavailable("The ledger does not answer.")
    monkeypatch.setattr(away, method, breaking(getattr(away, method), gone, gone))
    reply = await house.ask("plain", f"Away: {method}.")
    assert reply["status"] == "completed", reply
    assert reply["attempts"] == house.simulator.bill()["requests"] == 1


async def test_a_request_whose_ending_cannot_be_stored_fails_and_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.services.ledger, "finish", always(ConfigurationError("The disk is full.")))
    reply = await house.ask("plain", "Deliver.")
    assert reply["status"] == "failed"
    assert reply["reason"] == "deliver: The disk is full."
    assert await status_in_lists(house, reply["id"]) == "failed"


async def test_a_settlement_that_fails_after_the_call_keeps_the_worst_case(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = house.services.ledger.attempts
    monkeypatch.setattr(attempts, "settle", breaking(attempts.settle, Unavailable("The ledger does not answer.")))
    reply = await house.ask("plain", "Settle later.")
    assert reply["status"] == "completed", reply
    bill = house.simulator.bill()
    assert reply["usage"]["total_tokens"] >= bill["prompt_tokens"] + bill["completion_tokens"]
