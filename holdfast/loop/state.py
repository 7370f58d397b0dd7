"""Where a run stands, and what can be read off that."""

from dataclasses import dataclass, field

from holdfast.contracts import (
    CallCount,
    Cause,
    ContentRef,
    Escalation,
    Fallbacks,
    FinishReason,
    LimitReached,
    Limits,
    Origin,
    PlannedCall,
    Taint,
    ToolReturned,
    Violation,
)
from holdfast.loop.commands import LoopCommand


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
    uses_tools: bool = False
    """Whether the agent has tools or delegates of its own."""
    limits: Limits = field(default_factory=Limits)
    """For iterations and calls of tools; repairs and model calls are bounded by the two numbers above."""
    taint: Taint = field(default_factory=Taint)
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
    """Which question to the model this is: 1 the first, one more for each repair, each second opinion, and each time
    that results of tools are told."""
    calls: int = 0
    repairs: int = 0
    mending: bool = False
    """Whether the next call is to mend `output`."""
    waits: int = 0
    budget_questions: int = 0
    denial: str = ""
    """What the budget said when it denied a call."""
    denied: LimitReached | None = None
    """Which limit that was, if the ledger named it."""
    output: ContentRef | None = None
    """The last reply."""
    unread: bool = False
    """Whether nothing came of it yet: it is being validated, or its calls are being looked at."""
    finish_reason: FinishReason = FinishReason.STOP
    violations: tuple[Violation, ...] = ()
    best: ContentRef | None = None
    """Valid content that was not sure enough; delivered if no better deployment can answer."""
    best_deployment: str | None = None
    best_must_ask: bool | None = None
    """Whether it needs a person's agreement; `None` leaves it to the agent's rule."""
    best_finish_reason: FinishReason = FinishReason.STOP
    content: ContentRef | None = None
    iterations: int = 0
    """Questions that follow on results of tools, and the first one."""
    tool_calls: int = 0
    """Calls of tools and delegates made, those under way included."""
    repeated: tuple[CallCount, ...] = ()
    """How often each call was asked for, those refused for their repetition included."""
    tainted: tuple[Origin, ...] = ()
    """Origins of the outside text that the model was shown, trusted ones included."""
    final: bool = False
    """Whether the model has to answer without further calls, because it only repeated itself."""
    notice: str = ""
    """What the model is told beside the results of its last reply."""
    pending: tuple[PlannedCall, ...] = ()
    """Calls of the last reply that are to be made, or to be asked about first, in its order."""
    released: tuple[PlannedCall, ...] = ()
    """Those that people approved and that are still to be made."""
    returned: tuple[ToolReturned, ...] = ()
    """What came of the others."""
    ended: bool = False

    @property
    def untrusted(self) -> tuple[Origin, ...]:
        """Origins that taint the run; empty while it is not tainted."""
        return tuple(origin for origin in self.tainted if origin not in self.taint.trust)

    @property
    def conditions_hold(self) -> bool:
        """Whether conditions of approvals may be evaluated; in a tainted run they count as met."""
        return not self.untrusted or self.taint.skip_approvals

    @property
    def holds_back(self) -> bool:
        """Whether what has side effects needs a person's word."""
        return bool(self.untrusted) and self.taint.side_effects == "refuse"

    @property
    def has_calls_under_way(self) -> bool:
        """Whether the last reply asked for calls whose results the model was not told yet."""
        return bool(self.pending or self.released or self.returned)


Reaction = tuple[LoopState, tuple[LoopCommand, ...]]
"""What a tick leads to."""


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


def still_open(state: LoopState) -> tuple[str, ...]:
    """Candidates that can still be asked now."""
    closed = {*state.excluded, *state.resting}
    return tuple(name for name in candidates(state) if name not in closed)
