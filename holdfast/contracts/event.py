"""Milestones of a request, in the order they happened."""

from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime

from holdfast.contracts.base import Contract


class EventKind(StrEnum):
    """What happened."""

    STEP_STARTED = "step_started"
    STEP_FINISHED = "step_finished"
    STEP_FAILED = "step_failed"
    APPROVAL_OPENED = "approval_opened"
    DECISION_ACCEPTED = "decision_accepted"
    DECISION_REFUSED = "decision_refused"
    APPROVAL_ESCALATED = "approval_escalated"
    APPROVAL_REMINDED = "approval_reminded"
    TOOL_STARTED = "tool_started"
    TOOL_FINISHED = "tool_finished"
    TOOL_FAILED = "tool_failed"
    FINISHED = "finished"


class Event(Contract):
    """One line of a request's run sheet. Derived from workflow state, so replay yields the same line."""

    sequence: int
    """Position in the request, from 1."""
    kind: EventKind
    name: str
    """The step or decision concerned."""
    summary: str
    """One line for a person; never contains the request's text."""
    at: AwareDatetime

    @property
    def clock(self) -> str:
        """Time of day in UTC, to the second."""
        return datetime.strftime(self.at, "%H:%M:%S")
