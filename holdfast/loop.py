"""The agent loop as a pure reducer: what to do next, and when to stop.

No clock, no I/O, no engine: `step(state, tick) -> (state, commands)`. Every cap on iterations and every way a run can
end is here and nowhere else, which is what lets Hypothesis prove that each run ends and none exceeds a cap. Token and
money ceilings are enforced by the ledger inside the attempt's transaction; the loop hears of a refusal as
`BudgetDenied`.
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from holdfast.contracts import AtLimit, Cause, ContentRef, Escalation, Fallbacks, FinishReason, Status, Violation

MAX_WAITS = 1_000
"""Times a run may sleep for a provider or a budget; far beyond what a deadline of days admits."""
MAX_BUDGET_QUESTIONS = 3
"""Times a run may ask people to let it go past a budget."""
SHORT_REST = timedelta(seconds=5)
"""Wait for a throttled deployment when nobody said how long."""


@dataclass(frozen=True)
class LoopState:
    """Where a run stands."""

    deployments: tuple[str, ...]
    """In the order to try them."""
    max_repairs: int
    max_calls: int
    """Most times a model is called by the loop; the ledger caps attempts, retries included, at the same number."""
    asks: bool
    """Whether a person must agree before delivery."""
    fallbacks: Fallbacks = field(default_factory=Fallbacks)
    escalation: Escalation | None = None
    rests: bool = True
    """Whether a throttled deployment is come back to; false in runs of the first walk, which gave it up."""
    may_extend: bool = False
    """Whether there are people who can let the run go past a budget."""
    excluded: tuple[str, ...] = ()
    """Deployments given up on."""
    resting: tuple[str, ...] = ()
    """Deployments without room at the moment."""
    cause: Cause | None = None
    """Why the next deployment is not the first choice."""
    deployment: str | None = None
    answered_by: str | None = None
    """The deployment whose reply `output` or `content` is."""
    turn: int = 0
    """Which question to the model this is: 1 the first, one more for each repair and each second opinion."""
    calls: int = 0
    repairs: int = 0
    mending: bool = False
    """Whether the next call is to mend `output`."""
    waits: int = 0
    budget_questions: int = 0
    denial: str = ""
    """What the budget said that a cheaper deployment is looked for."""
    output: ContentRef | None = None
    finish_reason: FinishReason = FinishReason.STOP
    violations: tuple[Violation, ...] = ()
    best: ContentRef | None = None
    """Valid content that was not sure enough; delivered if no better deployment can answer."""
    best_deployment: str | None = None
    content: ContentRef | None = None
    ended: bool = False


# Ticks: what happened.


@dataclass(frozen=True)
class Began:
    """The input is ready. `recalled` is an earlier answer to the identical question."""

    recalled: ContentRef | None = None


@dataclass(frozen=True)
class DeploymentChosen:
    """Routing is done; `None` when nothing is left to try."""

    deployment: str | None
    reason: str


@dataclass(frozen=True)
class ModelReplied:
    """A model answered."""

    output: ContentRef
    finish_reason: FinishReason


@dataclass(frozen=True)
class ModelFailed:
    """A deployment could not answer, its own retries included."""

    deployment: str
    reason: str
    retry_after: timedelta | None = None
    """How long the provider asked to wait, if that is what stands in the way."""
    cause: Cause = Cause.OUTAGE
    called: bool = True
    """Whether a call went out; one that found no room before it was sent does not count."""


@dataclass(frozen=True)
class Waited:
    """The wait that a provider or a budget asked for is over."""


@dataclass(frozen=True)
class Checked:
    """The reply was validated; `content` is what may be delivered when it is valid."""

    content: ContentRef | None
    violations: tuple[Violation, ...] = ()
    confidence: float | None = None
    """How sure the reply is, 0 to 1, if the agent asks for it and it could be told."""


@dataclass(frozen=True)
class Approved:
    """A person, or the rule's default, released the content."""

    content: ContentRef


@dataclass(frozen=True)
class Rejected:
    """A person, or the rule's default, withheld the content."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """A guard refused the input."""

    reason: str


@dataclass(frozen=True)
class BudgetDenied:
    """The ledger refused to open another attempt."""

    reason: str
    action: AtLimit = AtLimit.BLOCK
    wait: timedelta | None = None
    """Until the budget's next period, if there is one."""


@dataclass(frozen=True)
class BudgetExtended:
    """A person let the run go past its budgets."""


@dataclass(frozen=True)
class BudgetKept:
    """A person, or the rule's default, did not."""

    reason: str


@dataclass(frozen=True)
class DeadlinePassed:
    """The request's own deadline passed, or would pass in a wait that stands in the way."""

    reason: str = "The request's deadline passed; raise `limits.deadline` and ask again."


@dataclass(frozen=True)
class StepFailed:
    """A step other than a model call failed for good."""

    step: str
    reason: str


LoopTick = (
    Began
    | DeploymentChosen
    | ModelReplied
    | ModelFailed
    | Waited
    | Checked
    | Approved
    | Rejected
    | Refused
    | BudgetDenied
    | BudgetExtended
    | BudgetKept
    | DeadlinePassed
    | StepFailed
)

# Commands: what to do.


@dataclass(frozen=True)
class ChooseDeployment:
    """Route among the candidates that are not excluded."""

    candidates: tuple[str, ...]
    excluded: tuple[str, ...]
    """Given up on, or without room at the moment."""
    cause: Cause | None = None


@dataclass(frozen=True)
class CallModel:
    """Ask a model. With `violations`, ask it to mend `previous`."""

    deployment: str
    turn: int
    last_resort: bool
    """Whether no other deployment is left, so that waiting beats giving up."""
    previous: ContentRef | None = None
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Sleep durably before a deployment is called again."""

    duration: timedelta
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """Validate a reply."""

    output: ContentRef
    finish_reason: FinishReason


@dataclass(frozen=True)
class AskHuman:
    """Hold the content for a decision."""

    content: ContentRef


@dataclass(frozen=True)
class AskForBudget:
    """Ask people whether the run may go past a budget."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """End the run."""

    status: Status
    reason: str | None = None
    content: ContentRef | None = None


LoopCommand = ChooseDeployment | CallModel | Wait | Check | AskHuman | AskForBudget | Finish


def step(state: LoopState, tick: LoopTick) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    """What follows from what happened.

    Raises:
        ValueError: The run has ended, or the tick does not fit the state; a fault of the interpreter.
    """
    if state.ended:
        raise ValueError(f"The run has ended; {type(tick).__name__} came too late.")
    match tick:
        case Began(recalled=content) if content is not None:
            return _release(state, content)
        case Began():
            return _choose(state)
        case DeploymentChosen(deployment=None, reason=reason):
            return _nobody_left(state, reason)
        case DeploymentChosen(deployment=str(deployment)):
            return _call(replace(state, deployment=deployment, turn=max(state.turn, 1)))
        case Waited():
            return _call(state) if state.deployment is not None else _choose(state)
        case ModelReplied():
            return _after_reply(state, tick)
        case ModelFailed():
            return _after_failure(state, tick)
        case Checked(content=content) if content is not None:
            return _after_valid(state, content, tick.confidence)
        case Checked(violations=violations):
            return _repair(replace(state, violations=violations))
        case Approved(content=content):
            return _finish(replace(state, content=content), Status.COMPLETED, None, content)
        case Rejected(reason=reason):
            return _finish(state, Status.REJECTED, reason)
        case Refused(reason=reason):
            return _finish(state, Status.REFUSED, reason)
        case BudgetDenied():
            return _after_denial(state, tick)
        case BudgetExtended():
            return _call(state)
        case BudgetKept(reason=reason):
            return _settle_for_best(state, Status.DENIED, reason)
        case DeadlinePassed(reason=reason):
            return _finish(state, Status.EXPIRED, reason)
        case StepFailed(step=name, reason=reason):
            return _finish(state, Status.FAILED, f"{name}: {reason}")
    raise ValueError(f"{type(tick).__name__} does not fit the state of the run.")


def candidates(state: LoopState) -> tuple[str, ...]:
    """Deployments that may be asked for the reason at hand, given up ones included, in order."""
    general = (*state.deployments, *state.fallbacks.outage)
    match state.cause:
        case None:
            names = state.deployments
        case Cause.CONTEXT_WINDOW:
            names = state.fallbacks.context_window or general
        case Cause.CONTENT_POLICY:
            names = state.fallbacks.content_policy
        case Cause.BUDGET:
            names = state.fallbacks.budget or general
        case Cause.UNSURE:
            names = state.escalation.to if state.escalation else ()
        case _:
            names = general
    return tuple(dict.fromkeys(names))


def _open(state: LoopState) -> tuple[str, ...]:
    """Candidates that can still be asked now."""
    closed = {*state.excluded, *state.resting}
    return tuple(name for name in candidates(state) if name not in closed)


def _choose(state: LoopState) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    state = replace(state, deployment=None)
    return state, (ChooseDeployment(candidates(state), (*state.excluded, *state.resting), state.cause),)


def _call(state: LoopState) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if state.deployment is None:
        raise ValueError("No deployment is chosen; nothing can be called.")
    if state.calls >= state.max_calls:
        return _settle_for_best(
            state, Status.DENIED, f"The request's {state.max_calls} model calls are used up; raise `limits.attempts`."
        )
    call = CallModel(
        state.deployment,
        state.turn,
        last_resort=not set(_open(state)) - {state.deployment},
        previous=state.output if state.mending else None,
        violations=state.violations if state.mending else (),
    )
    return replace(state, calls=state.calls + 1), (call,)


def _after_reply(state: LoopState, reply: ModelReplied) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    state = replace(state, output=reply.output, finish_reason=reply.finish_reason, answered_by=state.deployment)
    if reply.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL) and state.deployment:
        asking = _ask_again(state, Cause.CONTENT_POLICY)
        if _open(asking):
            return _choose(asking)
    return state, (Check(reply.output, reply.finish_reason),)


def _ask_again(state: LoopState, cause: Cause) -> LoopState:
    """The same question to somebody else: a new turn, because the old one has its reply."""
    gone = () if state.deployment is None else (state.deployment,)
    excluded = tuple(dict.fromkeys((*state.excluded, *gone)))
    return replace(state, excluded=excluded, cause=cause, turn=state.turn + 1, mending=False)


def _after_failure(state: LoopState, failure: ModelFailed) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if not failure.called:
        state = replace(state, calls=state.calls - 1)
    throttled = failure.cause is Cause.THROTTLED and state.rests
    if throttled:
        moved = replace(state, resting=(*state.resting, failure.deployment), cause=state.cause or failure.cause)
    else:
        moved = replace(state, excluded=(*state.excluded, failure.deployment), cause=failure.cause)
    for asking in (moved, replace(moved, cause=Cause.OUTAGE)):
        if _open(asking):
            return _choose(asking)
    wait = failure.retry_after or (SHORT_REST if moved.resting else None)
    if wait is not None:
        # Whoever only lacked room is asked again; one that failed is not, unless it said when it is back.
        alone = not moved.resting or moved.resting == (failure.deployment,)
        waiting = replace(state if alone else moved, resting=(), deployment=state.deployment if alone else None)
        return _wait(waiting, wait, "as the provider asked")
    return _settle_for_best(state, Status.FAILED, f"No deployment could answer; the last was {failure.reason}")


def _wait(state: LoopState, duration: timedelta, reason: str) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if state.waits >= MAX_WAITS:
        return _settle_for_best(state, Status.FAILED, f"The request waited {MAX_WAITS} times without getting a turn.")
    return replace(state, waits=state.waits + 1), (Wait(duration, reason),)


def _nobody_left(state: LoopState, reason: str) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if state.resting:
        return _wait(replace(state, resting=()), SHORT_REST, "for a deployment with room")
    if state.cause is Cause.BUDGET:
        return _settle_for_best(state, Status.DENIED, f"{state.denial} And {reason}".removeprefix(" And "))
    return _settle_for_best(state, Status.FAILED, reason)


def _after_denial(state: LoopState, denied: BudgetDenied) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    state = replace(state, calls=max(0, state.calls - 1))
    if denied.action is AtLimit.DEGRADE and state.deployment:
        cheaper = replace(state, excluded=(*state.excluded, state.deployment), cause=Cause.BUDGET, denial=denied.reason)
        if _open(cheaper):
            return _choose(cheaper)
    if denied.action is AtLimit.QUEUE and denied.wait is not None:
        return _wait(state, denied.wait, "until the budget's next period")
    if denied.action is AtLimit.ASK and state.may_extend and state.budget_questions < MAX_BUDGET_QUESTIONS:
        return replace(state, budget_questions=state.budget_questions + 1), (AskForBudget(denied.reason),)
    return _settle_for_best(state, Status.DENIED, denied.reason)


def _after_valid(
    state: LoopState, content: ContentRef, confidence: float | None
) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    rule = state.escalation
    if rule is not None and confidence is not None and confidence < rule.below and state.calls < state.max_calls:
        unsure = replace(_ask_again(state, Cause.UNSURE), best=content, best_deployment=state.answered_by)
        if _open(unsure):
            return _choose(unsure)
    return _release(state, content)


def _repair(state: LoopState) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    refused = state.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL)
    if refused and state.rests:
        # The same question to the same model is refused again, and paid again.
        what = state.violations[0].message if state.violations else "The model refused to answer."
        return _settle_for_best(
            state, Status.FAILED, f"{what} Another model may answer: name one in `fallbacks.content_policy`."
        )
    if state.repairs >= state.max_repairs:
        first = state.violations[0].message if state.violations else "no reason was given"
        return _settle_for_best(
            state, Status.FAILED, f"The reply is still invalid after {state.repairs} repairs, first problem: {first}"
        )
    return _call(replace(state, repairs=state.repairs + 1, turn=state.turn + 1, mending=True))


def _settle_for_best(state: LoopState, status: Status, reason: str) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    """End with the valid reply that was not sure enough, if there is one, or else as `status` says."""
    if state.best is not None:
        return _release(replace(state, best=None, answered_by=state.best_deployment), state.best)
    return _finish(state, status, reason)


def _release(state: LoopState, content: ContentRef) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    state = replace(state, content=content)
    if state.asks:
        return state, (AskHuman(content),)
    return _finish(state, Status.COMPLETED, None, content)


def _finish(
    state: LoopState, status: Status, reason: str | None, content: ContentRef | None = None
) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    return replace(state, ended=True), (Finish(status, reason, content),)
