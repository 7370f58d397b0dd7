"""Asking models: which deployment, how often, and what follows when none can answer now."""

from dataclasses import replace
from datetime import timedelta

from holdfast.contracts import AtLimit, Cause, Status
from holdfast.errors import LimitExceeded
from holdfast.loop.commands import AskForBudget, CallModel, ChooseDeployment, Wait
from holdfast.loop.ending import settle_for_best, stop_at
from holdfast.loop.limits import limit_reached
from holdfast.loop.state import LoopState, Reaction, candidates, still_open
from holdfast.loop.ticks import BudgetDenied, ModelFailed

MAX_WAITS = 1_000
"""Times a run may sleep for a provider or a budget; far beyond what a deadline of days admits."""
MAX_BUDGET_QUESTIONS = 3
"""Times a run may ask people to let it go past a budget."""
SHORT_REST = timedelta(seconds=5)
"""Wait for a throttled deployment when nobody said how long."""


def choose(state: LoopState) -> Reaction:
    """Look for a deployment."""
    state = replace(state, deployment=None)
    return state, (ChooseDeployment(candidates(state), (*state.excluded, *state.resting), state.cause),)


def call(state: LoopState) -> Reaction:
    """Ask the chosen deployment, within the run's model calls."""
    deployment = state.deployment
    if deployment is None:
        raise ValueError("No deployment is chosen; nothing can be called.")
    if state.calls >= state.max_calls:
        return stop_at(state, limit_reached("attempts", state.calls + 1, state.max_calls))
    state = replace(state, calls=state.calls + 1)
    command = CallModel(
        deployment,
        state.turn,
        last_resort=not set(still_open(state)) - {deployment},
        previous=state.output if state.mending else None,
        violations=state.violations if state.mending else (),
        final=without_calls(state) is not None,
    )
    return state, (command,)


def ask_on(state: LoopState) -> Reaction:
    """Ask the deployment at hand again, or another one if there is none any more or it cannot be asked now."""
    gone = state.deployment in (None, *state.excluded, *state.resting)
    return choose(state) if gone else call(state)


def without_calls(state: LoopState) -> LimitExceeded | None:
    """The limit because of which the question under way has to be answered without calling tools, if there is one.

    Results that no further question could show to the model would be useless, so the last model call counts as well.
    """
    if not state.uses_tools:
        return None
    limits = state.limits
    if state.iterations >= limits.iterations:
        return limit_reached("iterations", state.iterations + 1, limits.iterations)
    if state.tool_calls >= limits.tool_calls:
        return limit_reached("tool_calls", state.tool_calls + 1, limits.tool_calls)
    if state.calls >= state.max_calls:
        return limit_reached("attempts", state.calls + 1, state.max_calls)
    if state.final:
        most = max((asked.count for asked in state.repeated), default=limits.repetitions + 1)
        return limit_reached("repetitions", most, limits.repetitions)
    return None


def ask_somebody_else(state: LoopState, cause: Cause) -> LoopState:
    """The same question to somebody else: a new turn, because the old one has its reply."""
    gone = () if state.deployment is None else (state.deployment,)
    excluded = tuple(dict.fromkeys((*state.excluded, *gone)))
    return replace(state, excluded=excluded, cause=cause, turn=state.turn + 1, mending=False)


def after_failure(state: LoopState, failure: ModelFailed) -> Reaction:
    """Another deployment, a wait, or the end."""
    if not failure.called:
        state = replace(state, calls=state.calls - 1)
    throttled = failure.cause is Cause.THROTTLED and state.rests
    if throttled:
        moved = replace(state, resting=(*state.resting, failure.deployment), cause=state.cause or failure.cause)
    else:
        moved = replace(state, excluded=(*state.excluded, failure.deployment), cause=failure.cause)
    for asking in (moved, replace(moved, cause=Cause.OUTAGE)):
        if still_open(asking):
            return choose(asking)
    duration = failure.retry_after or (SHORT_REST if moved.resting else None)
    if duration is not None:
        # Whoever only lacked room is asked again; one that failed is not, unless it said when it is back.
        alone = not moved.resting or moved.resting == (failure.deployment,)
        waiting = replace(state if alone else moved, resting=(), deployment=state.deployment if alone else None)
        return wait(waiting, duration, "as the provider asked")
    return settle_for_best(state, Status.FAILED, f"No deployment could answer; the last was {failure.reason}")


def wait(state: LoopState, duration: timedelta, reason: str) -> Reaction:
    """Sleep, a bounded number of times."""
    if state.waits >= MAX_WAITS:
        return settle_for_best(state, Status.FAILED, f"The request waited {MAX_WAITS} times without getting a turn.")
    return replace(state, waits=state.waits + 1), (Wait(duration, reason),)


def nobody_left(state: LoopState, reason: str) -> Reaction:
    """Routing found nobody."""
    if state.resting:
        return wait(replace(state, resting=()), SHORT_REST, "for a deployment with room")
    if state.cause is Cause.BUDGET:
        reason = f"{state.denial} And {reason}".removeprefix(" And ")
        return settle_for_best(state, Status.DENIED, reason, state.denied)
    return settle_for_best(state, Status.FAILED, reason)


def after_denial(state: LoopState, denial: BudgetDenied) -> Reaction:
    """What the budget says happens at its limit."""
    state = replace(state, calls=max(0, state.calls - 1), denial=denial.reason, denied=denial.limit)
    if denial.action is AtLimit.DEGRADE and state.deployment:
        cheaper = replace(state, excluded=(*state.excluded, state.deployment), cause=Cause.BUDGET)
        if still_open(cheaper):
            return choose(cheaper)
    if denial.action is AtLimit.QUEUE and denial.wait is not None:
        return wait(state, denial.wait, "until the budget's next period")
    if denial.action is AtLimit.ASK and state.may_extend and state.budget_questions < MAX_BUDGET_QUESTIONS:
        return replace(state, budget_questions=state.budget_questions + 1), (AskForBudget(denial.reason),)
    return settle_for_best(state, Status.DENIED, denial.reason, denial.limit)
