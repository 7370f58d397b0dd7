"""The shapes that cross a room's door: frozen, typed, documented, and small enough for a workflow history.

Nothing here does I/O, and nothing here imports another part of Holdfast, so workflows may import all of it.
"""

from holdfast.contracts.answer import Answer, AnswerDocument, Citation, Status
from holdfast.contracts.approval import Approval, Decision, DecisionKind, DecisionReceipt
from holdfast.contracts.base import Contract
from holdfast.contracts.batch import BatchNews, BatchRun, BatchStand, Enqueued
from holdfast.contracts.content import ContentRef
from holdfast.contracts.conversation import AssistantTurn, Conversation, ToolCall, ToolOffer, Turn
from holdfast.contracts.event import Event, EventKind
from holdfast.contracts.plan import ApprovalRule, Escalation, Fallbacks, Guards, Plan, Strategy
from holdfast.contracts.request import CURRENT_WALK, Limits, Request
from holdfast.contracts.run import Carried, Ingested, IngestRun, Progress, Run, SourceText, Unreadable
from holdfast.contracts.spending import AtLimit, SpendScopes
from holdfast.contracts.steps import (
    Cause,
    Delivered,
    DeliverInput,
    Extended,
    ExtendInput,
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
from holdfast.contracts.stream import StreamEvent, StreamKind
from holdfast.contracts.usage import FinishReason, Usage

__all__ = [
    "CURRENT_WALK",
    "Answer",
    "AnswerDocument",
    "Approval",
    "ApprovalRule",
    "AssistantTurn",
    "AtLimit",
    "BatchNews",
    "BatchRun",
    "BatchStand",
    "Carried",
    "Cause",
    "Citation",
    "ContentRef",
    "Contract",
    "Conversation",
    "Decision",
    "DecisionKind",
    "DecisionReceipt",
    "DeliverInput",
    "Delivered",
    "Enqueued",
    "Escalation",
    "Event",
    "EventKind",
    "ExtendInput",
    "Extended",
    "Fallbacks",
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
    "SpendScopes",
    "Status",
    "Step",
    "Strategy",
    "StreamEvent",
    "StreamKind",
    "ToolCall",
    "ToolOffer",
    "Turn",
    "Unreadable",
    "Usage",
    "ValidateInput",
    "Validated",
    "Violation",
]
