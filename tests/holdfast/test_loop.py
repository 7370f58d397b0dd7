"""The loop's promises: every run ends, and none exceeds a cap, whatever the models, people and providers do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import loop
from holdfast.contracts import (
    AtLimit,
    Cause,
    ContentRef,
    Escalation,
    Fallbacks,
    FinishReason,
    Status,
    Violation,
)


def ref(number: int) -> ContentRef:
    return ContentRef(sha256=f"{number:064x}", size=number)


contents = st.integers(0, 50).map(ref)
violations = st.lists(st.builds(Violation, path=st.just(""), message=st.text(max_size=9)), min_size=1, max_size=2)


names = st.sampled_from(["a", "b", "c", "d", "e"])
lists = st.lists(names, max_size=3, unique=True).map(tuple)


@dataclass(frozen=True)
class Setup:
    deployments: tuple[str, ...]
    repairs: int
    calls: int
    asks: bool
    fallbacks: Fallbacks
    escalation: Escalation | None
    may_extend: bool
    rests: bool

    @property
    def known(self) -> set[str]:
        fallbacks, rule = self.fallbacks, self.escalation
        lists = (fallbacks.outage, fallbacks.context_window, fallbacks.content_policy, fallbacks.budget)
        return {*self.deployments, *(name for names in lists for name in names), *(rule.to if rule else ())}

    def state(self) -> loop.LoopState:
        return loop.LoopState(
            self.deployments,
            self.repairs,
            self.calls,
            asks=self.asks,
            fallbacks=self.fallbacks,
            escalation=self.escalation,
            may_extend=self.may_extend,
            rests=self.rests,
        )


setups = st.builds(
    Setup,
    st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")]),
    st.integers(0, 4),
    st.integers(1, 8),
    st.booleans(),
    st.builds(Fallbacks, outage=lists, context_window=lists, content_policy=lists, budget=lists),
    st.none() | st.builds(Escalation, below=st.just(0.7), to=lists.filter(bool)),
    st.booleans(),
    st.booleans(),
)
minutes = st.none() | st.just(timedelta(seconds=90))


def answers(command: loop.LoopCommand, draw: st.DataObject) -> loop.LoopTick:
    """Anything the world may say to a command."""
    if draw.draw(st.integers(0, 30)) == 0:
        endings: list[loop.LoopTick] = [loop.DeadlinePassed(), loop.StepFailed("step", "it broke")]
        return draw.draw(st.sampled_from(endings))
    match command:
        case loop.ChooseDeployment(candidates=candidates, excluded=excluded):
            left = [name for name in candidates if name not in excluded]
            choice = draw.draw(st.sampled_from([*left, None]))
            return loop.DeploymentChosen(choice, "because")
        case loop.CallModel(deployment=deployment):
            return draw.draw(
                st.one_of(
                    st.builds(loop.ModelReplied, contents, st.sampled_from(FinishReason)),
                    st.builds(loop.ModelFailed, st.just(deployment), st.just("down"), minutes, st.sampled_from(Cause)),
                    st.just(
                        loop.ModelFailed(deployment, "no room", timedelta(seconds=9), Cause.THROTTLED, called=False)
                    ),
                    st.builds(loop.BudgetDenied, st.just("too dear"), st.sampled_from(AtLimit), minutes),
                )
            )
        case loop.Wait():
            return loop.Waited()
        case loop.Check():
            return draw.draw(
                st.one_of(
                    st.builds(loop.Checked, contents, confidence=st.sampled_from([None, 0.2, 0.9])),
                    violations.map(lambda found: loop.Checked(None, tuple(found))),
                )
            )
        case loop.AskHuman():
            return draw.draw(st.one_of(st.builds(loop.Approved, contents), st.just(loop.Rejected("no"))))
        case loop.AskForBudget():
            verdicts: list[loop.LoopTick] = [loop.BudgetExtended(), loop.BudgetKept("no")]
            return draw.draw(st.sampled_from(verdicts))
        case _:
            raise AssertionError(command)


@given(setups, st.data(), st.one_of(st.none(), contents))
def test_every_run_ends_within_its_caps(setup: Setup, data: st.DataObject, recalled: ContentRef | None) -> None:
    state = setup.state()
    tick: loop.LoopTick = loop.Began(recalled)
    replies = repairs = asked = questions = waits = 0
    # A wait is the one thing that may repeat without using anything up but time; see the test of its own bound.
    while waits < 40:
        state, (command,) = loop.step(state, tick)
        if isinstance(command, loop.Finish):
            break
        if isinstance(command, loop.CallModel):
            repairs += bool(command.violations)
            assert command.deployment in setup.known
            assert command.deployment not in state.excluded
        asked += isinstance(command, loop.AskHuman)
        questions += isinstance(command, loop.AskForBudget)
        waits += isinstance(command, loop.Wait)
        tick = answers(command, data)
        replies += isinstance(tick, loop.ModelReplied) or (isinstance(tick, loop.ModelFailed) and tick.called)
        assert replies <= setup.calls
        assert repairs <= setup.calls
        assert questions <= loop.MAX_BUDGET_QUESTIONS
    else:
        return
    assert state.repairs <= setup.repairs
    if command.status is Status.COMPLETED:
        assert command.content is not None
        assert asked == setup.asks
    with pytest.raises(ValueError, match="has ended"):
        loop.step(state, loop.DeadlinePassed())


@settings(max_examples=20)
@given(setups, st.sampled_from([Cause.THROTTLED, Cause.OUTAGE]))
def test_a_run_that_only_ever_waits_ends_too(setup: Setup, cause: Cause) -> None:
    state, tick = setup.state(), cast(loop.LoopTick, loop.Began())
    for _ in range((loop.MAX_WAITS + 2) * 12):
        state, (command,) = loop.step(state, tick)
        match command:
            case loop.Finish(status=status):
                assert status in (Status.FAILED, Status.DENIED)
                return
            case loop.ChooseDeployment(candidates=candidates, excluded=excluded):
                tick = loop.DeploymentChosen(next((name for name in candidates if name not in excluded), None), "")
            case loop.CallModel(deployment=deployment):
                tick = loop.ModelFailed(deployment, "no room", timedelta(seconds=1), cause, called=False)
            case loop.Wait():
                tick = loop.Waited()
            case _:
                raise AssertionError(command)
    raise AssertionError("the run did not end")


def test_a_throttled_deployment_is_come_back_to() -> None:
    state = loop.LoopState(("a", "b"), 0, 5, asks=False)
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    full = loop.ModelFailed("a", "a: 429", timedelta(seconds=9), Cause.THROTTLED)
    state, (command,) = loop.step(state, full)
    assert command == loop.ChooseDeployment(("a", "b"), ("a",), Cause.THROTTLED)
    state, _ = loop.step(state, loop.DeploymentChosen("b", "a is full"))
    state, (command,) = loop.step(state, loop.ModelFailed("b", "b: 500"))
    assert command == loop.Wait(loop.SHORT_REST, "as the provider asked")
    _, (command,) = loop.step(state, loop.Waited())
    assert isinstance(command, loop.ChooseDeployment)
    assert command.excluded == ("b",)


def test_a_refusing_model_is_followed_by_the_content_policy_list_under_a_new_turn() -> None:
    state = loop.LoopState(("a",), 0, 5, asks=False, fallbacks=Fallbacks(content_policy=("frank",)))
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    state, (command,) = loop.step(state, loop.ModelReplied(ref(1), FinishReason.REFUSAL))
    assert command == loop.ChooseDeployment(("frank",), ("a",), Cause.CONTENT_POLICY)
    _, (command,) = loop.step(state, loop.DeploymentChosen("frank", "a refused"))
    assert command == loop.CallModel("frank", 2, last_resort=True)


def test_an_unsure_reply_is_delivered_when_no_better_deployment_can_answer() -> None:
    state = loop.LoopState(("small",), 0, 5, asks=False, escalation=Escalation(below=0.7, to=("large",)))
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("small", "first"))
    state, _ = loop.step(state, loop.ModelReplied(ref(1), FinishReason.STOP))
    state, (command,) = loop.step(state, loop.Checked(ref(1), confidence=0.4))
    assert command == loop.ChooseDeployment(("large",), ("small",), Cause.UNSURE)
    state, _ = loop.step(state, loop.DeploymentChosen("large", "small was unsure"))
    state, (command,) = loop.step(state, loop.ModelFailed("large", "large: 500"))
    assert command == loop.Finish(Status.COMPLETED, None, ref(1))
    assert state.answered_by == "small"


def test_a_sure_reply_is_not_asked_again() -> None:
    state = loop.LoopState(("small",), 0, 5, asks=False, escalation=Escalation(below=0.7, to=("large",)))
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("small", "first"))
    state, _ = loop.step(state, loop.ModelReplied(ref(1), FinishReason.STOP))
    _, (command,) = loop.step(state, loop.Checked(ref(1), confidence=0.9))
    assert command == loop.Finish(Status.COMPLETED, None, ref(1))


def test_a_refusal_is_not_asked_and_paid_again() -> None:
    state = loop.LoopState(("a",), 2, 5, asks=False)
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    state, _ = loop.step(state, loop.ModelReplied(ref(1), FinishReason.REFUSAL))
    said = Violation(path="", message="The model refused to answer.")
    _, (command,) = loop.step(state, loop.Checked(None, (said,)))
    assert isinstance(command, loop.Finish)
    assert command.status is Status.FAILED
    assert "content_policy" in (command.reason or "")


def test_a_denial_without_a_cheaper_deployment_still_names_the_budget() -> None:
    state = loop.LoopState(("a",), 0, 5, asks=False, fallbacks=Fallbacks(budget=("cheap",)))
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    state, _ = loop.step(state, loop.BudgetDenied("The budget of ann is 10 USD.", AtLimit.DEGRADE))
    _, (command,) = loop.step(state, loop.DeploymentChosen(None, "cheap costs too much"))
    assert isinstance(command, loop.Finish)
    assert command.status is Status.DENIED
    assert command.reason == "The budget of ann is 10 USD. And cheap costs too much"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (AtLimit.BLOCK, loop.Finish(Status.DENIED, "too dear")),
        (AtLimit.DEGRADE, loop.ChooseDeployment(("cheap",), ("a",), Cause.BUDGET)),
        (AtLimit.QUEUE, loop.Wait(timedelta(hours=3), "until the budget's next period")),
        (AtLimit.ASK, loop.AskForBudget("too dear")),
    ],
)
def test_at_a_budgets_limit_the_run_does_what_the_budget_says(action: AtLimit, expected: loop.LoopCommand) -> None:
    state = loop.LoopState(("a",), 0, 5, asks=False, fallbacks=Fallbacks(budget=("cheap",)), may_extend=True)
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    _, commands = loop.step(state, loop.BudgetDenied("too dear", action, timedelta(hours=3)))
    assert commands == (expected,)


def test_nothing_is_delivered_before_a_person_agreed() -> None:
    state = loop.LoopState(("a",), 0, 1, asks=True)
    state, commands = loop.step(state, loop.Began(ref(1)))
    assert commands == (loop.AskHuman(ref(1)),)
    _, commands = loop.step(state, loop.Rejected("Rejected by ann: wrong"))
    assert commands == (loop.Finish(Status.REJECTED, "Rejected by ann: wrong", None),)


def test_a_repair_shows_the_model_its_reply_and_what_is_wrong_with_it() -> None:
    state = loop.LoopState(("a",), 1, 5, asks=False)
    problem = Violation(path="/x", message="is missing")
    state, _ = loop.step(state, loop.Began())
    state, _ = loop.step(state, loop.DeploymentChosen("a", "first"))
    state, _ = loop.step(state, loop.ModelReplied(ref(1), FinishReason.STOP))
    state, (command,) = loop.step(state, loop.Checked(None, (problem,)))
    assert command == loop.CallModel("a", 2, last_resort=True, previous=ref(1), violations=(problem,))
    state, _ = loop.step(state, loop.ModelReplied(ref(2), FinishReason.STOP))
    _, (command,) = loop.step(state, loop.Checked(None, (problem,)))
    assert isinstance(command, loop.Finish)
    assert command.status is Status.FAILED
    assert "1 repairs" in (command.reason or "")


def test_a_failed_deployment_is_not_tried_twice_while_others_are_left() -> None:
    state = loop.LoopState(("a", "b"), 0, 5, asks=False)
    state, _ = loop.step(state, loop.Began())
    state, (command,) = loop.step(state, loop.DeploymentChosen("a", "first"))
    assert isinstance(command, loop.CallModel)
    assert not command.last_resort
    state, (command,) = loop.step(state, loop.ModelFailed("a", "a: 503", timedelta(seconds=90)))
    assert command == loop.ChooseDeployment(("a", "b"), ("a",), Cause.OUTAGE)
    state, (command,) = loop.step(state, loop.DeploymentChosen("b", "a failed"))
    assert isinstance(command, loop.CallModel)
    assert command.last_resort
    _, (command,) = loop.step(state, loop.ModelFailed("b", "b: 429", timedelta(seconds=90)))
    assert command == loop.Wait(timedelta(seconds=90), "as the provider asked")
