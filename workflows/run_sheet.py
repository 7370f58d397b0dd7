"""The run sheet: a request's milestones, shown live in the Web UI and to the query `progress`."""

from datetime import datetime
from decimal import Decimal

from holdfast.contracts import Event, EventKind, Request, Status, Usage

_MARKS = {
    EventKind.STEP_STARTED: "…",
    EventKind.STEP_FINISHED: "✓",
    EventKind.STEP_FAILED: "✗",
    EventKind.APPROVAL_OPENED: "?",
    EventKind.DECISION_ACCEPTED: "✓",
    EventKind.DECISION_REFUSED: "✗",
    EventKind.APPROVAL_ESCALATED: "?",
    EventKind.APPROVAL_REMINDED: "?",
    EventKind.TOOL_STARTED: "…",
    EventKind.TOOL_FINISHED: "✓",
    EventKind.TOOL_FAILED: "✗",
    EventKind.FINISHED: "■",
}


MOST_SHOWN = 200
"""Lines of the sheet in the Web UI, the latest ones: it is written anew for each of them."""
MOST_KEPT = 1_000
"""Events that the query `progress` gives, the latest ones."""


class RunSheet:
    """Collects events in order and renders them as Markdown."""

    def __init__(self, request: Request, *, told: int = 0) -> None:
        self._request = request
        self._told = told
        self.events: list[Event] = []
        """The latest ones."""

    def tell(self, kind: EventKind, name: str, summary: str, at: datetime) -> None:
        """Add one line."""
        self._told += 1
        self.events.append(Event(sequence=self._told, kind=kind, name=name, summary=summary, at=at))
        del self.events[:-MOST_KEPT]

    @property
    def step(self) -> str:
        """The step under way, or the last one."""
        return self.events[-1].name if self.events else "start"

    @property
    def told(self) -> int:
        """How many events there are, those of earlier runs included."""
        return self._told

    def markdown(self, status: Status, spent: Usage, attempts: int) -> str:
        """The sheet as the Web UI shows it in the run's current details."""
        lines = [
            f"**{self._request.plan.agent}** for {self._request.user}: **{status.value}**, {attempts} model calls, "
            f"{spent.total_tokens} tokens, {money(spent)}",
            "",
            "| | time (UTC) | step | what happened |",
            "|---|---|---|---|",
        ]
        shown = self.events[-MOST_SHOWN:]
        if len(shown) < self._told:
            lines.append(f"| | | | {self._told - len(shown)} earlier lines are not shown |")
        lines += [f"| {_MARKS[e.kind]} | {e.clock} | {e.name} | {_cell(e.summary)} |" for e in shown]
        return "\n".join(lines)


def money(usage: Usage) -> str:
    """A price for people: four decimals, six under a cent, or a word when it is unknown."""
    cost = usage.cost_usd
    if cost is None:
        return "unpriced"
    return f"${cost:.6f}" if 0 < cost < Decimal("0.01") else f"${cost:.4f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
