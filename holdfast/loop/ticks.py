"""Ticks: what happened to a run, as the loop hears of it."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast.contracts import (
    AtLimit,
    Cause,
    ContentRef,
    FinishReason,
    LimitReached,
    Origin,
    PlannedCall,
    ToolReturned,
    Violation,
)


@dataclass(frozen=True)
class Began:
    """The input is ready, or a run goes on that started over; then the loop takes up what was under way."""

    recalled: ContentRef | None = None
    """An earlier answer to the identical question."""
    tainted: tuple[Origin, ...] = ()
    """Origins of the outside text that the model will be shown from the beginning."""


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
    attempts: int = 0
    """Model calls of the request so far as the ledger counts them, retries included; 0 when that is not known."""


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
class CallsPlanned:
    """The calls that a reply asks for were looked at; nothing of them was done yet."""

    calls: tuple[PlannedCall, ...]
    """In the reply's order."""
    left_out: int = 0
    """How many more it asked for than were looked at."""


@dataclass(frozen=True)
class ToolsReturned:
    """The calls that were to be made are over; each of them has its result."""

    results: tuple[ToolReturned, ...]


@dataclass(frozen=True)
class CallReleased:
    """People, or the rule's default, let a call be made, perhaps with other arguments."""

    call: PlannedCall


@dataclass(frozen=True)
class CallWithheld:
    """People, or the rule's default, refused a call. The model is told, and the run goes on."""

    key: str
    reason: str


@dataclass(frozen=True)
class Told:
    """What came of the calls of the last reply is in the transcript that the model is shown next."""


@dataclass(frozen=True)
class Checked:
    """The reply was validated; `content` is what may be delivered when it is valid."""

    content: ContentRef | None
    violations: tuple[Violation, ...] = ()
    confidence: float | None = None
    """How sure the reply is, 0 to 1, if the agent asks for it and it could be told."""
    must_ask: bool | None = None
    """Whether this content needs a person's agreement; `None` leaves it to the agent's rule."""


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
    limit: LimitReached | None = None
    """Which limit it was."""


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

    reason: str = ""
    """Instead of what is said of every deadline."""
    after: timedelta | None = None
    """Time since submission that has passed, or would have; `None` is the deadline itself."""


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
    | CallsPlanned
    | ToolsReturned
    | CallReleased
    | CallWithheld
    | Told
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
