"""The loop's promises: every run ends, and none exceeds a cap, whatever the models, people and providers do."""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import loop
from holdfast.contracts import ContentRef, FinishReason, Status, Violation


def ref(number: int) -> ContentRef:
    return ContentRef(sha256=f"{number:064x}", size=number)


contents = st.integers(0, 50).map(ref)
violations = st.lists(st.builds(Violation, path=st.just(""), message=st.text(max_size=9)), min_size=1, max_size=2)


@dataclass(frozen=True)
class Setup:
    deployments: tuple[str, ...]
    repairs: int
    calls: int
    asks: bool


setups = st.builds(
    Setup,
    st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")]),
    st.integers(0, 4),
    st.integers(1, 8),
    st.booleans(),
)


def answers(command: loop.LoopCommand, draw: st.DataObject, setup: Setup) -> loop.LoopTick:
    """Anything the world may say to a command."""
    if draw.draw(st.integers(0, 30)) == 0:
        endings: list[loop.LoopTick] = [loop.DeadlinePassed(), loop.StepFailed("step", "it broke")]
        return draw.draw(st.sampled_from(endings))
    match command:
        case loop.ChooseDeployment(excluded=excluded):
            left = [name for name in setup.deployments if name not in excluded]
            choice = draw.draw(st.sampled_from([None, *left]))
            return loop.DeploymentChosen(choice, "because")
        case loop.CallModel(deployment=deployment):
            return draw.draw(
                st.one_of(
                    st.builds(loop.ModelReplied, contents, st.sampled_from(FinishReason)),
                    st.builds(
                        loop.ModelFailed,
                        st.just(deployment),
                        st.just("down"),
                        st.sampled_from([None, timedelta(seconds=90)]),
                    ),
                    st.just(loop.BudgetDenied("too dear")),
                )
            )
        case loop.Wait():
            return loop.Waited()
        case loop.Check():
            return draw.draw(
                st.one_of(
                    st.builds(loop.Checked, contents),
                    violations.map(lambda found: loop.Checked(None, tuple(found))),
                )
            )
        case loop.AskHuman():
            return draw.draw(st.one_of(st.builds(loop.Approved, contents), st.just(loop.Rejected("no"))))
        case _:
            raise AssertionError(command)


@given(setups, st.data(), st.one_of(st.none(), contents))
def test_every_run_ends_within_its_caps(setup: Setup, data: st.DataObject, recalled: ContentRef | None) -> None:
    state = loop.LoopState(setup.deployments, setup.repairs, setup.calls, asks=setup.asks)
    tick: loop.LoopTick = loop.Began(recalled)
    calls = repairs = asked = 0
    for _ in range(6 * setup.calls + 3 * len(setup.deployments) + 6):
        state, (command,) = loop.step(state, tick)
        if isinstance(command, loop.Finish):
            break
        if isinstance(command, loop.CallModel):
            calls += 1
            repairs += bool(command.violations)
            assert command.deployment in setup.deployments
            assert command.deployment not in state.excluded
        asked += isinstance(command, loop.AskHuman)
        tick = answers(command, data, setup)
    else:
        raise AssertionError("the run did not end")
    assert calls <= setup.calls
    assert repairs <= setup.repairs * max(1, len(setup.deployments))
    assert state.repairs <= setup.repairs
    if command.status is Status.COMPLETED:
        assert command.content is not None
        assert asked == setup.asks
    with pytest.raises(ValueError, match="has ended"):
        loop.step(state, loop.DeadlinePassed())


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
    assert command == loop.ChooseDeployment(("a",))
    state, (command,) = loop.step(state, loop.DeploymentChosen("b", "a failed"))
    assert isinstance(command, loop.CallModel)
    assert command.last_resort
    _, (command,) = loop.step(state, loop.ModelFailed("b", "b: 429", timedelta(seconds=90)))
    assert command == loop.Wait(timedelta(seconds=90))
