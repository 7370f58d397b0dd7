"""The shapes that cross a room's door: frozen, typed, documented, and small enough for a workflow history.

Nothing here does I/O, and nothing here imports another part of Holdfast, so workflows may import all of it.
"""

from holdfast.contracts.answer import Answer, AnswerDocument, Citation, Status
from holdfast.contracts.approval import Approval, Decision, DecisionKind, DecisionReceipt
from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef
from holdfast.contracts.event import Event, EventKind
from holdfast.contracts.plan import ApprovalRule, Guards, Plan
from holdfast.contracts.request import Limits, Request
from holdfast.contracts.run import Carried, Ingested, IngestRun, Progress, Run, SourceText, Unreadable
from holdfast.contracts.steps import (
    Delivered,
    DeliverInput,
    Generated,
    GenerateInput,
    Passage,
    Recalled,
    RecallInput,
    Retrieved,
    RetrieveInput,
    Routed,
    RouteInput,
    Sanitized,
    SanitizeInput,
    Step,
    Validated,
    ValidateInput,
    Violation,
)
from holdfast.contracts.usage import FinishReason, Usage

__all__ = [
    "Answer",
    "AnswerDocument",
    "Approval",
    "ApprovalRule",
    "Carried",
    "Citation",
    "ContentRef",
    "Contract",
    "Decision",
    "DecisionKind",
    "DecisionReceipt",
    "DeliverInput",
    "Delivered",
    "Event",
    "EventKind",
    "FinishReason",
    "GenerateInput",
    "Generated",
    "Guards",
    "IngestRun",
    "Ingested",
    "Limits",
    "Passage",
    "Plan",
    "Progress",
    "RecallInput",
    "Recalled",
    "Request",
    "RetrieveInput",
    "Retrieved",
    "RouteInput",
    "Routed",
    "Run",
    "SanitizeInput",
    "Sanitized",
    "SourceText",
    "Status",
    "Step",
    "Unreadable",
    "Usage",
    "ValidateInput",
    "Validated",
    "Violation",
]
