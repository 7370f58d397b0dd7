"""The loop's promises about tools, for any sequence of replies, results, decisions, failures and fresh starts.

A witness beside the loop writes down what was really done and compares that, not the loop's own counters, with the
limits. The second machine has the run start over, through JSON, at any moment.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from holdfast import loop
from holdfast.contracts import (
    ApprovalRule,
    AtLimit,
    Carried,
    Cause,
    ContentRef,
    Escalation,
    Fallbacks,
    FinishReason,
    LimitReached,
    Limits,
    Origin,
    Plan,
    PlannedCall,
    Request,
    Taint,
    ToolReturned,
    Violation,
)
from tests.holdfast.loop_witness import Witness

COUNTED_FROM_COMMANDS = ("deployment", "calls", "tool_calls", "budget_questions")
"""What differs after a fresh start until the command that was not carried out is given again."""
SETTINGS = settings(max_examples=150, stateful_step_count=70, deadline=None)
DENIAL = LimitReached(limit="tokens", value="60000", bound="50000")
ANN = ApprovalRule(approvers=("ann",))
ORIGINS: tuple[Origin, ...] = ("web", "mcp", "delegates")


def ref(number: int) -> ContentRef:
    return ContentRef(sha256=f"{number:064x}", size=number)


contents = st.integers(0, 50).map(ref)
origins = st.sampled_from([None, None, *ORIGINS])


def one_in(number: int) -> st.SearchStrategy[bool]:
    """Whether something happens that would crowd out the rest if it happened more often."""
    return st.sampled_from([False] * (number - 1) + [True])


plans = st.builds(
    Plan,
    agent=st.just("helper"),
    version=st.just("0" * 16),
    deployments=st.sampled_from([("a",), ("a", "b")]),
    instructions=st.just(ref(0)),
    approval=st.none() | st.just(ANN),
    fallbacks=st.builds(Fallbacks, outage=st.sampled_from([(), ("c",)]), content_policy=st.sampled_from([(), ("d",)])),
    escalation=st.none() | st.just(Escalation(below=0.7, to=("e",))),
    budget_approval=st.none() | st.just(ANN),
    toolbox=st.just(ref(1)),
    taint=st.builds(
        Taint,
        trust=st.sampled_from([(), ("web",), ("web", "mcp")]),
        side_effects=st.sampled_from(["refuse", "refuse", "allow"]),
    ),
)
limits = st.builds(
    Limits,
    attempts=st.sampled_from([1, 3, 5, 8, 12, 12]),
    repairs=st.integers(0, 2),
    iterations=st.sampled_from([1, 2, 3, 5, 8, 8]),
    tool_calls=st.sampled_from([0, 1, 3, 6, 12, 20, 20]),
    calls_at_once=st.integers(1, 3),
    repetitions=st.integers(1, 3),
)
requests = st.builds(
    Request,
    id=st.just("req_00000001"),
    tenant=st.just("acme"),
    user=st.just("bob"),
    plan=plans,
    input=st.just(ref(2)),
    limits=limits,
    submitted_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    walk=st.just(3),
)


@st.composite
def calls(draw: st.DrawFn, turn: int) -> tuple[PlannedCall, ...]:
    """What a model may ask for in one reply: too much, the unknown, the same again, things with effects."""
    planned = []
    for position in range(draw(st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 6]))):
        digest = draw(st.sampled_from("tuvwxyz"))
        planned.append(
            PlannedCall(
                key=f"{turn}.{position}",
                id=draw(st.sampled_from(["call_1", f"call_{position}"])),
                name=f"tool_{digest}",
                kind=draw(st.sampled_from(["tool", "tool", "delegate"])),
                digest=digest,
                problem="unknown tool" if draw(one_in(8)) else "",
                side_effects=draw(st.booleans()),
                tainting=draw(origins),
                rule=ANN if draw(one_in(4)) else None,
            )
        )
    return tuple(planned)


class Runs(RuleBasedStateMachine):
    """Runs of agents with tools, one after another, in a world that may do anything."""

    witness: Witness | None = None

    @initialize(request=requests, tainted=origins)
    def begin(self, request: Request, tainted: Origin | None) -> None:
        self.witness = Witness(request, tainted={tainted} if tainted else set())
        self.carried = Carried(masked=request.input)
        self.state = loop.resume(request, self.carried)
        self.feed(loop.Began(tainted=(tainted,) if tainted else ()))

    @property
    def seen(self) -> Witness:
        assert self.witness is not None
        return self.witness

    def feed(self, tick: loop.LoopTick) -> None:
        self.state, (command,) = loop.step(self.state, tick)
        self.seen.look_at(command)

    @rule(data=st.data())
    def the_world_goes_on(self, data: st.DataObject) -> None:
        """The only rule, because Hypothesis leaves some out of each example, and a run waits for one answer."""
        self.answer(data)

    def answer(self, data: st.DataObject) -> None:
        match self.seen.command:
            case loop.Finish():
                with pytest.raises(ValueError, match="has ended"):
                    loop.step(self.state, loop.DeadlinePassed())
                self.begin(data.draw(requests), data.draw(origins))
            case _ if data.draw(one_in(60)):
                late = data.draw(st.booleans())
                self.feed(loop.DeadlinePassed() if late else loop.StepFailed("vet", "it broke"))
                assert isinstance(self.seen.command, loop.Finish)
            case loop.ChooseDeployment() as command:
                self.routing_is_done(data, command)
            case loop.CallModel() as command:
                self.a_model_is_called(data, command)
            case loop.Wait():
                self.feed(loop.Waited())
            case loop.AskForBudget():
                self.seen.budget_questions += 1
                self.feed(loop.BudgetKept("no") if data.draw(one_in(4)) else loop.BudgetExtended())
            case loop.Vet(turn=turn):
                planned = data.draw(calls(turn))
                self.seen.reply = planned or None
                self.feed(loop.CallsPlanned(planned, data.draw(st.sampled_from([0, 0, 7]))))
            case loop.CallTools() as command:
                self.tools_return(data, command)
            case loop.AskAboutCall() as command:
                self.people_decide_on_a_call(data, command)
            case loop.Transcribe():
                self.seen.told += 1
                self.seen.reply = None
                self.feed(loop.Told())
            case loop.Check():
                self.a_reply_is_validated(data)
            case loop.AskHuman() as command:
                self.people_decide_on_an_answer(data, command)

    def routing_is_done(self, data: st.DataObject, command: loop.ChooseDeployment) -> None:
        left = [name for name in command.candidates if name not in command.excluded]
        choice = data.draw(st.sampled_from(left)) if left and not data.draw(one_in(40)) else None
        self.feed(loop.DeploymentChosen(choice, "because"))

    def a_model_is_called(self, data: st.DataObject, command: loop.CallModel) -> None:
        match data.draw(st.sampled_from(["asks"] * 8 + ["answers", "answers", "fails", "denied"])):
            case "asks":
                self.seen.sent += 1
                if data.draw(one_in(6)) and self.seen.sent < self.seen.request.limits.attempts:
                    self.seen.sent += 1
                self.feed(loop.ModelReplied(data.draw(contents), FinishReason.TOOL_CALLS, self.seen.sent))
                if command.final:
                    assert isinstance(self.seen.command, loop.Finish | loop.AskHuman), "it had to answer"
            case "answers":
                self.seen.sent += 1
                reason = data.draw(st.sampled_from([reason for reason in FinishReason if reason != "tool_calls"]))
                self.feed(loop.ModelReplied(data.draw(contents), reason))
            case "fails":
                wait = data.draw(st.sampled_from([None, timedelta(seconds=9)]))
                cause = data.draw(st.sampled_from([cause for cause in Cause if cause is not Cause.BUDGET]))
                called = data.draw(st.booleans())
                self.seen.sent += called
                self.feed(loop.ModelFailed(command.deployment, "down", wait, cause, called=called))
            case _:
                wait = data.draw(st.sampled_from([None, timedelta(hours=1)]))
                self.feed(loop.BudgetDenied("too dear", data.draw(st.sampled_from(AtLimit)), wait, DENIAL))

    def tools_return(self, data: st.DataObject, command: loop.CallTools) -> None:
        results = [
            ToolReturned(key=call.key, id=call.id, name=call.name, ok=data.draw(st.booleans()), tainting=call.tainting)
            for call in data.draw(st.permutations(command.calls))
        ]
        self.seen.made |= {call.key: call for call in command.calls}
        self.seen.results |= {result.key: result for result in results}
        self.seen.tainted |= {result.tainting for result in results if result.tainting}
        self.feed(loop.ToolsReturned(tuple(results)))

    def people_decide_on_a_call(self, data: st.DataObject, command: loop.AskAboutCall) -> None:
        call = command.call
        if data.draw(one_in(4)):
            self.seen.refused.add(call.key)
            self.feed(loop.CallWithheld(call.key, "not this one"))
            assert not isinstance(self.seen.command, loop.Finish), "a refused call is a result, not the end"
            return
        if data.draw(one_in(3)):
            problem = "no such order" if data.draw(one_in(4)) else ""
            call = call.model_copy(update={"digest": data.draw(st.sampled_from("txyz")), "problem": problem})
        self.seen.approved[call.key] = call
        self.feed(loop.CallReleased(call))

    def a_reply_is_validated(self, data: st.DataObject) -> None:
        if data.draw(one_in(3)):
            self.feed(loop.Checked(None, (Violation(path="/x", message="is missing"),)))
            return
        content, must_ask = data.draw(contents), data.draw(st.sampled_from([None, True, False]))
        self.seen.valid.add(content)
        if not (self.seen.request.plan.approval is not None if must_ask is None else must_ask):
            self.seen.free.add(content)
        self.feed(loop.Checked(content, (), data.draw(st.sampled_from([None, 0.2, 0.2, 0.9])), must_ask))

    def people_decide_on_an_answer(self, data: st.DataObject, command: loop.AskHuman) -> None:
        if data.draw(one_in(4)):
            self.feed(loop.Rejected("Rejected by ann: no"))
            return
        content = data.draw(st.none() | contents) or command.content
        self.seen.valid.add(content)
        self.seen.agreed.add(content)
        self.feed(loop.Approved(content))

    def teardown(self) -> None:
        """A model that never stops asking for something new, and people who always agree: the run ends all the same."""
        if self.witness is None:
            return
        limits = self.seen.request.limits
        most = 40 + limits.attempts * (12 + 4 * limits.calls_at_once)
        for number in range(most):
            if isinstance(self.seen.command, loop.Finish):
                return
            self.feed(self.most_stubborn(self.seen.command, number))
        raise AssertionError("the run does not end")

    def most_stubborn(self, command: loop.LoopCommand | None, number: int) -> loop.LoopTick:
        match command:
            case loop.ChooseDeployment(candidates=names, excluded=excluded):
                return loop.DeploymentChosen(next((name for name in names if name not in excluded), None), "first")
            case loop.CallModel():
                self.seen.sent += 1
                return loop.ModelReplied(ref(number), FinishReason.TOOL_CALLS)
            case loop.Wait():
                return loop.Waited()
            case loop.Vet(turn=turn):
                call = PlannedCall(key=f"{turn}.0", id="1", name="more", digest=f"new {number}", rule=ANN)
                self.seen.reply = (call,)
                return loop.CallsPlanned((call,))
            case loop.AskAboutCall(call=call):
                self.seen.approved[call.key] = call
                return loop.CallReleased(call)
            case loop.CallTools(calls=calls):
                results = tuple(ToolReturned(key=call.key, id=call.id, name=call.name, ok=True) for call in calls)
                self.seen.made |= {call.key: call for call in calls}
                self.seen.results |= {result.key: result for result in results}
                return loop.ToolsReturned(results)
            case loop.Transcribe():
                self.seen.told += 1
                self.seen.reply = None
                return loop.Told()
            case loop.Check():
                return loop.Checked(None, (Violation(path="", message="no"),))
            case loop.AskForBudget():
                self.seen.budget_questions += 1
                return loop.BudgetExtended()
            case loop.AskHuman(content=content):
                self.seen.agreed.add(content)
                return loop.Approved(content)
            case _:
                raise AssertionError(command)


class RestartedRuns(Runs):
    """The same, with a history that may grow too long at any moment."""

    def answer(self, data: st.DataObject) -> None:
        if not isinstance(self.seen.command, loop.Finish) and data.draw(one_in(3)):
            self.start_over()
        else:
            super().answer(data)

    def start_over(self) -> None:
        before, command = self.state, cast(loop.LoopCommand, self.seen.command)
        handed = loop.carry(before, command, self.carried).model_dump_json()
        self.carried = Carried.model_validate_json(handed)
        self.state = loop.resume(self.seen.request, self.carried)
        assert self.state.calls == before.calls - isinstance(command, loop.CallModel), "nothing is counted twice"
        assert self.state.tool_calls == len(self.seen.made)
        assert self.state.budget_questions == self.seen.budget_questions
        counted = replace(self.state, **{name: getattr(before, name) for name in COUNTED_FROM_COMMANDS})
        assert counted == before
        self.feed(loop.Began())
        if isinstance(command, loop.ChooseDeployment | loop.CallModel | loop.Wait | loop.AskForBudget):
            assert isinstance(self.seen.command, loop.ChooseDeployment)
            assert self.state.turn == before.turn
        elif isinstance(command, loop.Check):
            # A reply that was said to ask for calls, and in which none were found, may be looked at once more.
            assert isinstance(self.seen.command, loop.Check | loop.Vet)
        else:
            assert self.seen.command == command, "what was not carried out is commanded again"


def test_no_sequence_of_replies_results_and_decisions_passes_a_limit_and_every_run_ends() -> None:
    run_state_machine_as_test(Runs, settings=SETTINGS)


def test_no_limit_is_passed_and_nothing_is_made_twice_by_a_run_that_starts_over() -> None:
    run_state_machine_as_test(RestartedRuns, settings=SETTINGS)


@pytest.mark.parametrize("questions", range(1, loop.MAX_BUDGET_QUESTIONS + 1))
def test_a_question_about_a_budget_that_is_open_at_a_fresh_start_is_asked_again_and_counts_once(questions: int) -> None:
    plan = Plan(agent="helper", version="0", deployments=("a",), instructions=ref(0), budget_approval=ANN)
    request = Request(
        id="req_00000001",
        tenant="acme",
        user="bob",
        plan=plan,
        input=ref(2),
        limits=Limits(),
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        walk=3,
    )
    denied = loop.BudgetDenied("too dear", AtLimit.ASK)
    state = replace(loop.resume(request, Carried(masked=ref(2))), budget_questions=questions - 1)
    for _ in range(2):
        for tick in (loop.Began(), loop.DeploymentChosen("a", "first"), denied):
            state, (command,) = loop.step(state, tick)
        assert command == loop.AskForBudget("too dear")
        assert state.budget_questions == questions
        state = loop.resume(request, loop.carry(state, command, Carried(masked=ref(2))))
