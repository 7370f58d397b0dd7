"""The agent loop as a pure reducer: what to do next, and when to stop.

No clock, no I/O, no engine: `step(state, tick) -> (state, commands)`. Every cap on iterations and every way a run can
end is here and nowhere else, which is what lets Hypothesis prove that each run ends and none exceeds a cap. Token and
money ceilings are enforced by the ledger inside the attempt's transaction; the loop hears of a refusal as
`BudgetDenied`.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from holdfast.contracts import ContentRef, FinishReason, Status, Violation


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
    excluded: tuple[str, ...] = ()
    """Deployments given up on."""
    deployment: str | None = None
    turn: int = 0
    """Which question to the model this is: 1 the first, one more for each repair."""
    calls: int = 0
    repairs: int = 0
    output: ContentRef | None = None
    finish_reason: FinishReason = FinishReason.STOP
    violations: tuple[Violation, ...] = ()
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


@dataclass(frozen=True)
class Waited:
    """The wait that a provider asked for is over."""


@dataclass(frozen=True)
class Checked:
    """The reply was validated; `content` is what may be delivered when it is valid."""

    content: ContentRef | None
    violations: tuple[Violation, ...] = ()


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


@dataclass(frozen=True)
class DeadlinePassed:
    """The request's own deadline."""


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
    | DeadlinePassed
    | StepFailed
)

# Commands: what to do.


@dataclass(frozen=True)
class ChooseDeployment:
    """Route among the deployments that are not excluded."""

    excluded: tuple[str, ...]


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
    """Sleep durably before the deployment is called again."""

    duration: timedelta


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
class Finish:
    """End the run."""

    status: Status
    reason: str | None = None
    content: ContentRef | None = None


LoopCommand = ChooseDeployment | CallModel | Wait | Check | AskHuman | Finish


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
            return state, (ChooseDeployment(state.excluded),)
        case DeploymentChosen(deployment=None, reason=reason):
            return _finish(state, Status.FAILED, reason)
        case DeploymentChosen(deployment=str(deployment)):
            return _call(replace(state, deployment=deployment, turn=max(state.turn, 1)))
        case Waited():
            return _call(state)
        case ModelReplied(output=output, finish_reason=finish_reason):
            return replace(state, output=output, finish_reason=finish_reason), (Check(output, finish_reason),)
        case ModelFailed():
            return _after_failure(state, tick)
        case Checked(content=content) if content is not None:
            return _release(state, content)
        case Checked(violations=violations):
            return _repair(replace(state, violations=violations))
        case Approved(content=content):
            return _finish(replace(state, content=content), Status.COMPLETED, None, content)
        case Rejected(reason=reason):
            return _finish(state, Status.REJECTED, reason)
        case Refused(reason=reason):
            return _finish(state, Status.REFUSED, reason)
        case BudgetDenied(reason=reason):
            return _finish(state, Status.DENIED, reason)
        case DeadlinePassed():
            return _finish(
                state, Status.EXPIRED, "The request's deadline passed; raise `limits.deadline` and ask again."
            )
        case StepFailed(step=name, reason=reason):
            return _finish(state, Status.FAILED, f"{name}: {reason}")
    raise ValueError(f"{type(tick).__name__} does not fit the state of the run.")


def _call(state: LoopState) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if state.deployment is None:
        raise ValueError("No deployment is chosen; nothing can be called.")
    if state.calls >= state.max_calls:
        return _finish(
            state, Status.DENIED, f"The request's {state.max_calls} model calls are used up; raise `limits.attempts`."
        )
    repairing = state.turn > 1
    call = CallModel(
        state.deployment,
        state.turn,
        last_resort=len(set(state.deployments) - set(state.excluded)) <= 1,
        previous=state.output if repairing else None,
        violations=state.violations if repairing else (),
    )
    return replace(state, calls=state.calls + 1), (call,)


def _after_failure(state: LoopState, failure: ModelFailed) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    others = [d for d in state.deployments if d not in state.excluded and d != failure.deployment]
    if others:
        excluded = (*state.excluded, failure.deployment)
        return replace(state, excluded=excluded, deployment=None), (ChooseDeployment(excluded),)
    if failure.retry_after is not None:
        return state, (Wait(failure.retry_after),)
    return _finish(state, Status.FAILED, f"No deployment could answer; the last was {failure.reason}")


def _repair(state: LoopState) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    if state.repairs >= state.max_repairs:
        first = state.violations[0].message if state.violations else "no reason was given"
        return _finish(
            state, Status.FAILED, f"The reply is still invalid after {state.repairs} repairs, first problem: {first}"
        )
    return _call(replace(state, repairs=state.repairs + 1, turn=state.turn + 1))


def _release(state: LoopState, content: ContentRef) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    state = replace(state, content=content)
    if state.asks:
        return state, (AskHuman(content),)
    return _finish(state, Status.COMPLETED, None, content)


def _finish(
    state: LoopState, status: Status, reason: str | None, content: ContentRef | None = None
) -> tuple[LoopState, tuple[LoopCommand, ...]]:
    return replace(state, ended=True), (Finish(status, reason, content),)
