"""Commands: what the loop wants done next. Each is answered by one tick."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast.contracts import (
    Cause,
    ContentRef,
    FinishReason,
    LimitReached,
    PlannedCall,
    Status,
    ToolReturned,
    Violation,
)


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
    final: bool = False
    """Whether the model has to answer without calling tools."""


@dataclass(frozen=True)
class Wait:
    """Sleep durably before a deployment is called again."""

    duration: timedelta
    reason: str = ""


@dataclass(frozen=True)
class Vet:
    """Look at the calls that a reply asks for: are they known and valid, and who has to agree to them?"""

    output: ContentRef
    turn: int
    most: int
    """Calls beyond this many are left out."""


@dataclass(frozen=True)
class CallTools:
    """Make these calls of tools and delegates, all at once."""

    calls: tuple[PlannedCall, ...]


@dataclass(frozen=True)
class AskAboutCall:
    """Hold a call for a decision."""

    call: PlannedCall


@dataclass(frozen=True)
class Transcribe:
    """Put a reply and what came of its calls into what the model is shown next."""

    output: ContentRef
    results: tuple[ToolReturned, ...]
    """One for each call that was looked at, in the reply's order."""
    notice: str = ""
    """What the model is told beside them."""


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
    limit: LimitReached | None = None
    """Which limit ended it, if one did."""


LoopCommand = (
    ChooseDeployment
    | CallModel
    | Wait
    | Vet
    | CallTools
    | AskAboutCall
    | Transcribe
    | Check
    | AskHuman
    | AskForBudget
    | Finish
)
