"""What the loop does about each kind of call that a model may ask for, and at each limit of tools."""

import dataclasses

import pytest

from holdfast import loop
from holdfast.contracts import (
    ApprovalRule,
    CallCount,
    Cause,
    ContentRef,
    Escalation,
    FinishReason,
    LimitReached,
    Limits,
    Origin,
    PlannedCall,
    Status,
    Taint,
    ToolReturned,
    Violation,
)
from holdfast.errors import LimitExceeded

ANN = ApprovalRule(approvers=("ann",))


def ref(number: int) -> ContentRef:
    return ContentRef(sha256=f"{number:064x}", size=number)


def planned(
    key: str,
    *,
    digest: str = "",
    problem: str = "",
    effects: bool = False,
    asks: bool = False,
    tainting: Origin | None = None,
) -> PlannedCall:
    return PlannedCall(
        key=key,
        id=f"call_{key}",
        name="refund",
        digest=digest or f"digest of {key}",
        problem=problem,
        side_effects=effects,
        rule=ANN if asks else None,
        tainting=tainting,
    )


def result(call: PlannedCall) -> ToolReturned:
    return ToolReturned(key=call.key, id=call.id, name=call.name, ok=True, tainting=call.tainting)


def asking_for_calls(
    limits: Limits | None = None,
    *,
    calls: int = 6,
    taint: Taint | None = None,
    tainted: tuple[Origin, ...] = (),
    escalation: Escalation | None = None,
) -> loop.LoopState:
    """A run whose model was asked its first question."""
    state = loop.LoopState(("a",), 1, calls, asks=False, escalation=escalation, uses_tools=True, tainted=tainted)
    state = dataclasses.replace(state, limits=limits or Limits(), taint=taint or Taint())
    return walk(state, loop.Began(), loop.DeploymentChosen("a", "first"))[0]


def walk(state: loop.LoopState, *ticks: loop.LoopTick) -> tuple[loop.LoopState, loop.LoopCommand | None]:
    command = None
    for tick in ticks:
        state, (command,) = loop.step(state, tick)
    return state, command


ASKS = loop.ModelReplied(ref(1), FinishReason.TOOL_CALLS)


def told_of(command: loop.LoopCommand | None) -> dict[str, str]:
    """What the model is told of the calls that were not made."""
    assert isinstance(command, loop.Transcribe)
    return {result.key: result.problem for result in command.results if result.problem}


def test_a_reply_with_calls_is_looked_at_its_calls_are_made_at_once_and_the_next_question_follows() -> None:
    calls = (planned("1.0"), planned("1.1"))
    state, command = walk(asking_for_calls(), ASKS)
    assert command == loop.Vet(ref(1), 1, loop.MAX_LOOKED_AT)
    state, command = walk(state, loop.CallsPlanned(calls))
    assert command == loop.CallTools(calls)
    state, command = walk(state, loop.ToolsReturned((result(calls[1]), result(calls[0]))))
    assert command == loop.Transcribe(ref(1), (result(calls[0]), result(calls[1])))
    state, command = walk(state, loop.Told())
    assert command == loop.CallModel("a", 2, last_resort=True)
    assert (state.iterations, state.tool_calls, state.calls) == (2, 2, 2)


def test_calls_of_an_agent_without_tools_are_an_answer_to_its_client() -> None:
    state = loop.LoopState(("a",), 0, 5, asks=False)
    _, command = walk(state, loop.Began(), loop.DeploymentChosen("a", "first"), ASKS)
    assert command == loop.Check(ref(1), FinishReason.TOOL_CALLS)


def test_a_reply_in_which_no_calls_are_found_is_validated() -> None:
    _, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned(()))
    assert command == loop.Check(ref(1), FinishReason.TOOL_CALLS)


def test_a_call_that_cannot_be_made_is_explained_to_the_model_and_the_others_are_made() -> None:
    calls = (planned("1.0", problem="There is no tool 'lookup_ordr'."), planned("1.1"))
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned(calls))
    assert command == loop.CallTools(calls[1:])
    _, command = walk(state, loop.ToolsReturned((result(calls[1]),)))
    assert told_of(command) == {"1.0": "There is no tool 'lookup_ordr'."}


def test_fifty_calls_at_once_are_eight_made_and_the_others_explained() -> None:
    calls = tuple(planned(f"1.{position}") for position in range(50))
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned(calls, left_out=7))
    assert command == loop.CallTools(calls[:8])
    _, command = walk(state, loop.ToolsReturned(tuple(result(call) for call in calls[:8])))
    assert len(told_of(command)) == 42
    assert "at most 8 calls" in told_of(command)["1.8"]
    assert isinstance(command, loop.Transcribe)
    assert [result.key for result in command.results] == [call.key for call in calls]
    assert command.notice.startswith("7 more calls")


def test_calls_beyond_the_limit_of_tool_calls_are_refused_and_the_model_has_to_answer() -> None:
    calls = (planned("1.0"), planned("1.1"))
    state, command = walk(asking_for_calls(Limits(tool_calls=1)), ASKS, loop.CallsPlanned(calls))
    assert command == loop.CallTools(calls[:1])
    state, command = walk(state, loop.ToolsReturned((result(calls[0]),)))
    assert "used up" in told_of(command)["1.1"]
    assert isinstance(command, loop.Transcribe)
    assert "answer with what you have" in command.notice
    state, command = walk(state, loop.Told())
    assert isinstance(command, loop.CallModel)
    assert command.final
    _, command = walk(state, ASKS)
    assert isinstance(command, loop.Finish)
    assert command.status is Status.DENIED
    assert command.limit == LimitReached(limit="tool_calls", value="2", bound="1")
    assert "`limits.tool_calls`" in (command.reason or "")


def test_the_same_call_is_made_three_times_and_a_reply_of_nothing_else_must_be_answered() -> None:
    state, command = asking_for_calls(calls=20), None
    for turn in (1, 2, 3):
        call = planned(f"{turn}.0", digest="same")
        state, command = walk(state, ASKS, loop.CallsPlanned((call,)))
        assert command == loop.CallTools((call,))
        state, command = walk(state, loop.ToolsReturned((result(call),)), loop.Told())
        assert isinstance(command, loop.CallModel)
        assert not command.final
    state, command = walk(state, ASKS, loop.CallsPlanned((planned("4.0", digest="same"),)))
    assert "asked for 4 times" in told_of(command)["4.0"]
    state, command = walk(state, loop.Told())
    assert isinstance(command, loop.CallModel)
    assert command.final
    _, command = walk(state, ASKS)
    assert isinstance(command, loop.Finish)
    assert command.limit == LimitReached(limit="repetitions", value="4", bound="3")


def test_a_repeated_call_beside_a_new_one_does_not_end_the_calling() -> None:
    state = dataclasses.replace(asking_for_calls(), repeated=(CallCount(digest="same", count=3),))
    again, other = planned("1.0", digest="same"), planned("1.1")
    state, command = walk(state, ASKS, loop.CallsPlanned((again, other)))
    assert command == loop.CallTools((other,))
    _, command = walk(state, loop.ToolsReturned((result(other),)), loop.Told())
    assert isinstance(command, loop.CallModel)
    assert not command.final


def test_a_call_put_off_to_the_next_reply_is_no_repetition() -> None:
    limits = Limits(calls_at_once=1, repetitions=1)
    first, second = planned("1.0"), planned("1.1", digest="put off")
    state, _ = walk(asking_for_calls(limits), ASKS, loop.CallsPlanned((first, second)))
    state, _ = walk(state, loop.ToolsReturned((result(first),)), loop.Told())
    again = planned("2.0", digest="put off")
    _, command = walk(state, ASKS, loop.CallsPlanned((again,)))
    assert command == loop.CallTools((again,))


def test_the_last_iteration_is_told_and_has_to_be_an_answer() -> None:
    state, command = walk(asking_for_calls(Limits(iterations=2)), ASKS, loop.CallsPlanned((planned("1.0"),)))
    state, command = walk(state, loop.ToolsReturned((result(planned("1.0")),)))
    assert isinstance(command, loop.Transcribe)
    assert "answer with what you have" in command.notice
    state, command = walk(state, loop.Told())
    assert isinstance(command, loop.CallModel)
    assert command.final
    _, command = walk(state, ASKS)
    assert isinstance(command, loop.Finish)
    assert command.status is Status.DENIED
    assert command.limit == LimitReached(limit="iterations", value="3", bound="2")


def test_the_last_model_call_has_to_be_an_answer_because_nobody_could_be_told_of_results() -> None:
    state = asking_for_calls(calls=3)
    state, command = walk(state, loop.ModelReplied(ref(1), FinishReason.TOOL_CALLS, attempts=2))
    state, command = walk(state, loop.CallsPlanned((planned("1.0"),)), loop.ToolsReturned((result(planned("1.0")),)))
    assert isinstance(command, loop.Transcribe)
    assert "answer with what you have" in command.notice
    state, command = walk(state, loop.Told())
    assert isinstance(command, loop.CallModel)
    assert command.final


def test_calls_that_people_have_to_agree_to_wait_and_are_then_made_at_once() -> None:
    free, first, second = planned("1.0"), planned("1.1", asks=True), planned("1.2", asks=True)
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned((first, free, second)))
    assert command == loop.CallTools((free,))
    state, command = walk(state, loop.ToolsReturned((result(free),)))
    assert command == loop.AskAboutCall(first)
    edited = first.model_copy(update={"digest": "other", "arguments": ref(7)})
    state, command = walk(state, loop.CallReleased(edited))
    assert command == loop.AskAboutCall(second)
    state, command = walk(state, loop.CallReleased(second))
    assert command == loop.CallTools((edited, second))
    assert state.tool_calls == 3


def test_a_refused_call_is_a_result_for_the_model() -> None:
    call = planned("1.0", asks=True)
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned((call,)), loop.CallWithheld("1.0", "too much"))
    assert told_of(command) == {"1.0": "A person refused this call: too much"}
    _, command = walk(state, loop.Told())
    assert isinstance(command, loop.CallModel)
    assert not command.final


def test_a_call_that_was_edited_into_a_repetition_is_not_made() -> None:
    state = dataclasses.replace(asking_for_calls(), repeated=(CallCount(digest="same", count=3),))
    call = planned("1.0", asks=True)
    edited = call.model_copy(update={"digest": "same"})
    _, command = walk(state, ASKS, loop.CallsPlanned((call,)), loop.CallReleased(edited))
    assert "asked for 4 times" in told_of(command)["1.0"]


def test_a_tainted_run_makes_no_call_with_effects_that_no_person_approves() -> None:
    bare, asked, harmless = planned("1.0", effects=True), planned("1.1", effects=True, asks=True), planned("1.2")
    state = asking_for_calls(tainted=("web",))
    state, command = walk(state, ASKS, loop.CallsPlanned((bare, asked, harmless)))
    assert command == loop.CallTools((harmless,))
    state, command = walk(state, loop.ToolsReturned((result(harmless),)))
    assert command == loop.AskAboutCall(asked)
    _, command = walk(state, loop.CallReleased(asked), loop.ToolsReturned((result(asked),)))
    assert list(told_of(command)) == ["1.0"]
    assert "read text from outside (web)" in told_of(command)["1.0"]


@pytest.mark.parametrize("taint", [Taint(trust=("web",)), Taint(side_effects="allow")])
def test_an_agents_file_may_trust_an_origin_or_allow_effects(taint: Taint) -> None:
    call = planned("1.0", effects=True)
    _, command = walk(asking_for_calls(taint=taint, tainted=("web",)), ASKS, loop.CallsPlanned((call,)))
    assert command == loop.CallTools((call,))


def test_results_taint_what_the_model_asks_for_afterwards_and_not_what_it_asked_for_with_them() -> None:
    reads, refunds = planned("1.0", tainting="web"), planned("1.1", effects=True)
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned((reads, refunds)))
    assert command == loop.CallTools((reads, refunds))
    state, _ = walk(state, loop.ToolsReturned((result(reads), result(refunds))))
    assert state.untrusted == ("web",)
    assert not state.conditions_hold
    _, command = walk(state, loop.Told(), ASKS, loop.CallsPlanned((planned("2.0", effects=True),)))
    assert list(told_of(command)) == ["2.0"]


def test_a_call_refused_for_taint_uses_up_no_place_among_those_made_at_once() -> None:
    dangerous, harmless = planned("1.0", effects=True), planned("1.1")
    state = asking_for_calls(Limits(calls_at_once=1), tainted=("web",))
    _, command = walk(state, ASKS, loop.CallsPlanned((dangerous, harmless)))
    assert command == loop.CallTools((harmless,))


def test_taint_is_looked_at_again_when_a_planned_call_is_about_to_be_made() -> None:
    call = planned("1.0", effects=True)
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned((call,)))
    assert command == loop.CallTools((call,))
    _, command = walk(state, loop.Began(tainted=("web",)))
    assert "read text from outside (web)" in told_of(command)["1.0"]


def test_what_a_person_approved_is_made_in_a_tainted_run_though_no_rule_asks_for_it_as_edited() -> None:
    call = planned("1.0", effects=True, asks=True)
    edited = call.model_copy(update={"digest": "smaller", "rule": None})
    state = asking_for_calls(tainted=("web",))
    _, command = walk(state, ASKS, loop.CallsPlanned((call,)), loop.CallReleased(edited))
    assert command == loop.CallTools((edited,))


def test_what_the_model_is_shown_from_the_beginning_taints_the_run() -> None:
    state = loop.LoopState(("a",), 0, 5, asks=False, uses_tools=True)
    state, _ = walk(state, loop.Began(tainted=("documents",)))
    assert state.untrusted == ("documents",)


def test_a_repair_in_the_middle_of_calls_is_followed_by_more_calls() -> None:
    call, problem = planned("1.0"), Violation(path="/x", message="is missing")
    state, _ = walk(asking_for_calls(), ASKS, loop.CallsPlanned((call,)), loop.ToolsReturned((result(call),)))
    state, command = walk(
        state, loop.Told(), loop.ModelReplied(ref(2), FinishReason.STOP), loop.Checked(None, (problem,))
    )
    assert command == loop.CallModel("a", 3, last_resort=True, previous=ref(2), violations=(problem,))
    call = planned("3.0")
    state, command = walk(state, ASKS, loop.CallsPlanned((call,)))
    assert command == loop.CallTools((call,))
    _, command = walk(state, loop.ToolsReturned((result(call),)), loop.Told())
    assert command == loop.CallModel("a", 4, last_resort=True)


def test_an_outage_in_the_middle_of_calls_is_answered_by_another_deployment() -> None:
    state = dataclasses.replace(asking_for_calls(), deployments=("a", "b"))
    call = planned("1.0")
    state, _ = walk(state, ASKS, loop.CallsPlanned((call,)), loop.ToolsReturned((result(call),)), loop.Told())
    state, command = walk(state, loop.ModelFailed("a", "a: 503"))
    assert command == loop.ChooseDeployment(("a", "b"), ("a",), Cause.OUTAGE)
    _, command = walk(state, loop.DeploymentChosen("b", "a is down"))
    assert command == loop.CallModel("b", 2, last_resort=True)


def test_an_unsure_answer_is_delivered_when_a_better_deployment_only_asks_for_calls() -> None:
    state = asking_for_calls(Limits(iterations=1), escalation=Escalation(below=0.7, to=("large",)))
    state, _ = walk(
        state,
        loop.ModelReplied(ref(5), FinishReason.STOP),
        loop.Checked(ref(5), confidence=0.3),
        loop.DeploymentChosen("large", "a was unsure"),
    )
    state, command = walk(state, ASKS)
    assert command == loop.Finish(Status.COMPLETED, None, ref(5))
    assert (state.answered_by, state.finish_reason) == ("a", FinishReason.STOP)


@pytest.mark.parametrize(
    ("must_ask", "expected"),
    [(True, loop.AskHuman(ref(1))), (False, loop.Finish(Status.COMPLETED, None, ref(1)))],
)
def test_people_are_asked_about_content_that_meets_the_condition(must_ask: bool, expected: loop.LoopCommand) -> None:
    state = dataclasses.replace(asking_for_calls(), asks=not must_ask)
    state, _ = walk(state, loop.ModelReplied(ref(1), FinishReason.STOP))
    _, command = walk(state, loop.Checked(ref(1), must_ask=must_ask))
    assert command == expected


@pytest.mark.parametrize(
    "tick",
    [
        loop.ToolsReturned((result(planned("1.0")),)),
        loop.ToolsReturned((result(planned("1.1")), result(planned("1.1")))),
        loop.ToolsReturned(()),
        loop.CallReleased(planned("1.2")),
        loop.CallWithheld("1.0", "no"),
        loop.Told(),
        loop.CallsPlanned((planned("1.3"),)),
    ],
)
def test_what_was_not_commanded_cannot_have_happened(tick: loop.LoopTick) -> None:
    calls = (planned("1.0", asks=True), planned("1.1"))
    state, command = walk(asking_for_calls(), ASKS, loop.CallsPlanned(calls))
    assert command == loop.CallTools(calls[1:])
    with pytest.raises(ValueError, match=r"[Cc]all|told"):
        loop.step(state, tick)


@pytest.mark.parametrize("keys", [("1.0", "1.0"), ("2.0",)])
def test_calls_without_keys_of_their_own_are_a_fault(keys: tuple[str, ...]) -> None:
    state, _ = walk(asking_for_calls(), ASKS)
    with pytest.raises(ValueError, match="keys of their own"):
        loop.step(state, loop.CallsPlanned(tuple(planned(key) for key in keys)))


def test_every_limit_is_told_in_the_same_words_with_its_value_and_its_bound() -> None:
    for limit in ("tokens", "cost_usd", "attempts", "repairs", "iterations", "tool_calls", "repetitions", "deadline"):
        error = loop.limit_reached(limit, 12, 11)
        assert isinstance(error, LimitExceeded)
        assert loop.on_record(error) == LimitReached(limit=limit, value="12", bound="11")
        assert str(error)


def test_endings_at_a_limit_name_it() -> None:
    problem = Violation(path="/x", message="is missing")
    replied = loop.ModelReplied(ref(1), FinishReason.STOP)
    used_up, invalid = asking_for_calls(calls=1), dataclasses.replace(asking_for_calls(), max_repairs=0)
    for ending, limit in [
        (walk(used_up, replied, loop.Checked(None, (problem,))), "attempts"),
        (walk(invalid, replied, loop.Checked(None, (problem,))), "repairs"),
        (walk(asking_for_calls(), loop.DeadlinePassed()), "deadline"),
    ]:
        finish = ending[1]
        assert isinstance(finish, loop.Finish)
        assert finish.limit is not None
        assert finish.limit.limit == limit
