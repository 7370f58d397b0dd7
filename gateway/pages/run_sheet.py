"""A request as its page shows it: what has happened, what is under way, what it cost, and how it ended."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.context import Gateway
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.pages.payload import Node, Segment, node_of, segments
from gateway.pages.questions import agreed, spent, text_of
from gateway.pages.rendering import money, people
from holdfast.approval import is_named
from holdfast.contracts import AnswerDocument, DecisionReceipt, Event, EventKind, Progress, Usage
from holdfast.contracts.tools import Delegated, ToolLine

MOST_EVENTS = 1_000
"""Of a request's approvals, the latest, that are read to see who was asked."""
MOST_SHOWN = 20_000
"""Characters of one argument or result on the page."""

_WORDS = {
    "sanitize": "Check and mask the input",
    "recall": "Look for an earlier answer",
    "retrieve": "Search the documents",
    "equip": "Get the tools ready",
    "route": "Choose a model",
    "generate": "Ask the model",
    "vet": "Look at the calls",
    "transcribe": "Pass on the results",
    "validate": "Check the reply",
    "approve": "Ask people",
    "extend": "Go past a budget",
    "deliver": "Deliver",
}


_KEY = re.compile(r"\A\d+\.\d+(?:: |\Z)")
_DIGEST = re.compile(r",? (?:content|catalog) [0-9a-f]{12}\Z")
_WAITING = re.compile(r"\Awaiting for (.+) until")
_ONE = re.compile(r"(?<![\d.,])1 (call|result|tool|passage|citation|token)s\b")
_MONEY = re.compile(r"(?<= tokens, )\$(\d+\.\d+)\Z")


@dataclass
class Entry:
    """One line of the timeline: a step from its start to its end, or something that happened at once."""

    kind: str
    """`running`, `done`, `failed`, `people` or `end`."""
    name: str
    """The step, as the engine calls it."""
    title: str
    summary: str
    at: datetime
    ended: datetime | None = None


@dataclass(frozen=True)
class Call:
    """A call of a tool or a delegate, with its texts."""

    line: ToolLine
    withheld: bool
    """Whether its arguments are not for whoever reads this."""
    arguments: str | None
    tree: Node | None
    result: str | None
    cut: bool

    @property
    def summary(self) -> str:
        """What came of it; that it was not made, its state says."""
        return self.line.summary.removeprefix("not made; ")


@dataclass(frozen=True)
class Sheet:
    """Everything that the page shows."""

    execution: Execution
    entries: Sequence[Entry]
    told: bool
    """Whether a worker could tell what has happened."""
    asked: str | None
    document: AnswerDocument | None
    tree: Node | None
    prose: Sequence[Segment]
    calls: Sequence[Call]
    delegates: Sequence[Delegated]
    decisions: Sequence[DecisionReceipt]
    usage: Usage
    attempts: int
    tool_calls: int
    """Those that were made; `calls` has the others too."""
    tainted: Sequence[str]
    reader_decides: bool
    """Whether what waits can be decided by whoever reads this."""
    trace: str | None

    @property
    def live(self) -> bool:
        """Whether something may still happen."""
        return not self.execution.status.is_final

    @property
    def agreed(self) -> int:
        """How many people have approved what waits."""
        return agreed(self.execution.approval) if self.execution.approval else 0


async def sheet_of(gateway: Gateway, execution: Execution, caller: Caller) -> Sheet:
    """Gather a request for its page.

    Args:
        gateway: Where.
        execution: The request.
        caller: Who reads.
    """
    execution, document = await gateway.complete(execution)
    progress = await gateway.progress(execution)
    finished = await gateway.ledger.requests.get(execution.tenant, execution.request_id)
    asked = finished.input if finished else execution.approval.asked if execution.approval else None
    asked = asked or (progress.asked if progress else None)
    text = document.text if document else ""
    approval = execution.approval
    decides = approval is not None and is_named(approval.approvers, caller.user, caller.roles)
    lines = progress.tools if progress else ()
    seen = await _seen(gateway, execution, caller, lines)
    return Sheet(
        execution=execution,
        entries=timeline(progress.events if progress else ()),
        told=progress is not None,
        asked=await text_of(gateway, execution.tenant, asked),
        document=document,
        tree=node_of(text),
        prose=segments(text, [citation.marker for citation in document.citations] if document else ()),
        # What waits for a decision is shown to those who are asked, and to others once it is released.
        calls=await asyncio.gather(
            *(_call(gateway, execution, line, withheld=_withheld(line, decides=decides, seen=seen)) for line in lines)
        ),
        delegates=progress.delegates if progress else (),
        decisions=progress.decisions if progress else (),
        usage=_latest(await spent(gateway, execution), progress),
        attempts=execution.answer.attempts if execution.answer else progress.attempts if progress else 0,
        tool_calls=execution.answer.tool_calls if execution.answer else progress.tool_calls if progress else 0,
        tainted=progress.tainted if progress else execution.answer.tainted if execution.answer else (),
        reader_decides=decides,
        trace=gateway.links.trace(execution.request_id) if execution.traced else None,
    )


def _withheld(line: ToolLine, *, decides: bool, seen: set[str]) -> bool:
    """Whether a reader may not see what a call asks for: people are asked about it, or did not agree to it."""
    if line.state == "asking":
        return not decides
    return _not_agreed(line) and line.name not in seen


def _not_agreed(line: ToolLine) -> bool:
    # What nobody was asked about and was refused all the same is told without arguments.
    return line.state == "refused" and line.arguments is not None


async def _seen(gateway: Gateway, execution: Execution, caller: Caller, lines: Sequence[ToolLine]) -> set[str]:
    """Tools whose refused calls a caller may see, who was among those asked whenever people were asked about one."""
    if not any(_not_agreed(line) for line in lines):
        return set()
    told = await gateway.ledger.approval_events.list(
        execution.tenant, None, None, MOST_EVENTS, request_id=execution.request_id
    )
    named: dict[tuple[str, int], bool] = {}
    for event in told:
        if event.kind == "tool":
            question = (event.subject, event.round)
            named[question] = named.get(question, False) or is_named(event.approvers, caller.user, caller.roles)
    return {tool for tool, _ in named} - {tool for (tool, _), by_name in named.items() if not by_name}


def timeline(events: Sequence[Event]) -> list[Entry]:
    """Lines of a run sheet, the start and the end of a step as one."""
    entries: list[Entry] = []
    for event in events:
        match event.kind:
            case EventKind.STEP_STARTED | EventKind.TOOL_STARTED:
                entries.append(Entry("running", event.name, _title(event), _summary(event), event.at))
            case EventKind.STEP_FINISHED | EventKind.STEP_FAILED | EventKind.TOOL_FINISHED | EventKind.TOOL_FAILED:
                failed = event.kind in (EventKind.STEP_FAILED, EventKind.TOOL_FAILED)
                entry = _begun(entries, event)
                entry.kind, entry.ended = "failed" if failed else "done", event.at
                entry.summary = _summary(event) or entry.summary
            case EventKind.FINISHED:
                for entry in entries:
                    entry.kind = "done" if entry.kind == "running" else entry.kind
                entries.append(Entry("end", event.name, event.name.capitalize(), _summary(event), event.at))
            case _:
                entries.append(Entry("people", event.name, _title(event), _summary(event), event.at))
    return entries


def _begun(entries: list[Entry], event: Event) -> Entry:
    for entry in reversed(entries):
        if entry.name == event.name and entry.kind == "running":
            return entry
    entries.append(Entry("done", event.name, _title(event), _summary(event), event.at))
    return entries[-1]


def _title(event: Event) -> str:
    match event.kind:
        case EventKind.APPROVAL_OPENED:
            return "People are asked"
        case EventKind.DECISION_ACCEPTED:
            return "Decision"
        case EventKind.DECISION_REFUSED:
            return "Decision refused"
        case EventKind.APPROVAL_ESCALATED:
            return "Handed to the next people"
        case EventKind.APPROVAL_REMINDED:
            return "Reminded"
        case EventKind.TOOL_STARTED | EventKind.TOOL_FINISHED | EventKind.TOOL_FAILED:
            return f"Call {event.name}"
    return _WORDS.get(event.name, event.name)


def _summary(event: Event) -> str:
    """What the run sheet says of an event, without what is there for programs: keys of calls and digests."""
    told = event.summary
    match event.kind:
        case EventKind.TOOL_STARTED | EventKind.TOOL_FINISHED | EventKind.TOOL_FAILED:
            told = _KEY.sub("", told)
        case EventKind.APPROVAL_OPENED | EventKind.DECISION_ACCEPTED:
            told = _WAITING.sub(
                lambda found: f"waiting for {people(found[1].split(', '))} until", _DIGEST.sub("", told)
            )
        case EventKind.STEP_FINISHED:
            told = _ONE.sub(r"1 \1", _DIGEST.sub("", told))
    return _MONEY.sub(lambda found: money(Decimal(found[1])), told)


def _latest(usage: Usage, progress: Progress | None) -> Usage:
    """What the run says it has spent, delegates included, if that is more than the ledger has of it alone."""
    if progress is None or progress.spent.total_tokens < usage.total_tokens:
        return usage
    return progress.spent


async def _call(gateway: Gateway, execution: Execution, line: ToolLine, *, withheld: bool) -> Call:
    arguments, result = await asyncio.gather(
        text_of(gateway, execution.tenant, None if withheld else line.arguments),
        text_of(gateway, execution.tenant, line.result),
    )
    return Call(
        line,
        withheld,
        arguments[:MOST_SHOWN] if arguments else None,
        node_of(arguments) if arguments else None,
        result[:MOST_SHOWN] if result else None,
        cut=len(result or "") > MOST_SHOWN,
    )
