"""The reducer itself: each tick to what follows from it."""

from dataclasses import replace

from holdfast.contracts import Cause, ContentRef, FinishReason, Status
from holdfast.loop import asking, calling
from holdfast.loop.commands import AskHuman, Check
from holdfast.loop.ending import finish, release, settle_for_best, stop_at
from holdfast.loop.limits import limit_reached, on_record
from holdfast.loop.state import LoopState, Reaction, still_open
from holdfast.loop.ticks import (
    Approved,
    Began,
    BudgetDenied,
    BudgetExtended,
    BudgetKept,
    CallReleased,
    CallsPlanned,
    CallWithheld,
    Checked,
    DeadlinePassed,
    DeploymentChosen,
    LoopTick,
    ModelFailed,
    ModelReplied,
    Refused,
    Rejected,
    StepFailed,
    Told,
    ToolsReturned,
    Waited,
)


def step(state: LoopState, tick: LoopTick) -> Reaction:
    """What follows from what happened.

    Raises:
        ValueError: The run has ended, or the tick does not fit the state; a fault of the interpreter.
    """
    if state.ended:
        raise ValueError(f"The run has ended; {type(tick).__name__} came too late.")
    match tick:
        case Began():
            return _begin(state, tick)
        case DeploymentChosen(deployment=None, reason=reason):
            return asking.nobody_left(state, reason)
        case DeploymentChosen(deployment=str(deployment)):
            first = replace(state, turn=max(state.turn, 1), iterations=max(state.iterations, 1))
            return asking.call(replace(first, deployment=deployment))
        case Waited():
            return asking.call(state) if state.deployment is not None else asking.choose(state)
        case ModelReplied():
            return _after_reply(state, tick)
        case ModelFailed():
            return asking.after_failure(state, tick)
        case CallsPlanned() | ToolsReturned() | CallReleased() | CallWithheld() | Told():
            return _about_calls(state, tick)
        case Checked(content=content) if content is not None:
            return _after_valid(state, content, tick)
        case Checked(violations=violations):
            return _repair(replace(state, unread=False, violations=violations))
        case Approved(content=content):
            return finish(replace(state, content=content), Status.COMPLETED, None, content)
        case Rejected(reason=reason):
            return finish(state, Status.REJECTED, reason)
        case Refused(reason=reason):
            return finish(state, Status.REFUSED, reason)
        case BudgetDenied():
            return asking.after_denial(state, tick)
        case BudgetExtended():
            return asking.call(state)
        case BudgetKept(reason=reason):
            return settle_for_best(state, Status.DENIED, reason, state.denied)
        case DeadlinePassed():
            return _expire(state, tick)
        case StepFailed(step=name, reason=reason):
            return finish(state, Status.FAILED, f"{name}: {reason}")
    raise ValueError(f"{type(tick).__name__} does not fit the state of the run.")


def _begin(state: LoopState, began: Began) -> Reaction:
    """Answer from an earlier answer, take up what was under way before the run started over, or ask a model."""
    state = replace(state, tainted=tuple(dict.fromkeys((*state.tainted, *began.tainted))))
    if began.recalled is not None:
        return release(state, began.recalled)
    if state.content is not None:
        return state, (AskHuman(state.content),)
    if state.has_calls_under_way:
        return calling.go_on(state)
    if state.unread:
        return _read(state)
    return asking.choose(state)


def _after_reply(state: LoopState, reply: ModelReplied) -> Reaction:
    state = replace(state, output=reply.output, finish_reason=reply.finish_reason, answered_by=state.deployment)
    if state.uses_tools:
        # What the engine repeated counts here too, so that the last call there is gets to answer.
        state = replace(state, calls=max(state.calls, reply.attempts))
    if reply.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL) and state.deployment:
        elsewhere = asking.ask_somebody_else(state, Cause.CONTENT_POLICY)
        if still_open(elsewhere):
            return asking.choose(elsewhere)
    return _read(replace(state, unread=True))


def _read(state: LoopState) -> Reaction:
    if state.output is None:
        raise ValueError("There is no reply to read.")
    if state.finish_reason is FinishReason.TOOL_CALLS and state.uses_tools:
        return calling.read(state, state.output)
    return state, (Check(state.output, state.finish_reason),)


def _about_calls(state: LoopState, tick: CallsPlanned | ToolsReturned | CallReleased | CallWithheld | Told) -> Reaction:
    match tick:
        case CallsPlanned():
            return calling.plan(state, tick)
        case ToolsReturned():
            return calling.after_results(state, tick)
        case CallReleased():
            return calling.after_release(state, tick)
        case CallWithheld():
            return calling.after_withholding(state, tick)
        case Told():
            return calling.after_telling(state)


def _after_valid(state: LoopState, content: ContentRef, checked: Checked) -> Reaction:
    rule, confidence = state.escalation, checked.confidence
    state = replace(state, unread=False)
    if rule is not None and confidence is not None and confidence < rule.below and state.calls < state.max_calls:
        unsure = replace(
            asking.ask_somebody_else(state, Cause.UNSURE),
            best=content,
            best_deployment=state.answered_by,
            best_must_ask=checked.must_ask,
            best_finish_reason=state.finish_reason,
        )
        if still_open(unsure):
            return asking.choose(unsure)
    return release(state, content, checked.must_ask)


def _repair(state: LoopState) -> Reaction:
    refused = state.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL)
    if refused and state.rests:
        # The same question to the same model is refused again, and paid again.
        what = state.violations[0].message if state.violations else "The model refused to answer."
        return settle_for_best(
            state, Status.FAILED, f"{what} Another model may answer: name one in `fallbacks.content_policy`."
        )
    if state.repairs >= state.max_repairs:
        first = state.violations[0].message if state.violations else "no reason was given"
        reached = limit_reached("repairs", state.repairs, state.max_repairs)
        return stop_at(state, reached, Status.FAILED, f", first problem: {first}")
    return asking.ask_on(replace(state, repairs=state.repairs + 1, turn=state.turn + 1, mending=True))


def _expire(state: LoopState, passed: DeadlinePassed) -> Reaction:
    bound = state.limits.deadline
    reached = limit_reached("deadline", passed.after or bound, bound)
    return finish(state, Status.EXPIRED, passed.reason or str(reached), limit=on_record(reached))
