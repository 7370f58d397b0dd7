"""The durable record: texts, idempotency keys, paid calls, budgets, exact answers, final rows."""

from holdfast.ledger.answers import Answers, ExactAnswer
from holdfast.ledger.approval_events import ApprovalEvent, ApprovalEvents
from holdfast.ledger.attempt import (
    Attempt,
    AttemptKey,
    AttemptState,
    Opened,
    Recorded,
    Settled,
    Totals,
)
from holdfast.ledger.attempts import Attempts
from holdfast.ledger.batch_lines import BatchLine, BatchLines, LineState
from holdfast.ledger.browser_sessions import BrowserSessions, SessionOwner
from holdfast.ledger.budgets import Budgets, CreditEntry
from holdfast.ledger.contents import Contents
from holdfast.ledger.database import Database
from holdfast.ledger.deliveries import Deliveries, Delivery, DeliveryState
from holdfast.ledger.ledger import Ledger, Reuse
from holdfast.ledger.requests import FinishedRequest, Requests
from holdfast.ledger.submissions import Claim, Submissions
from holdfast.ledger.tool_calls import Begun, CallState, RecordedCall, ToolCallKey, ToolCalls
from holdfast.ledger.usage import GroupBy, UsageLine
from holdfast.ledger.vault import Vault

__all__ = [
    "Answers",
    "ApprovalEvent",
    "ApprovalEvents",
    "Attempt",
    "AttemptKey",
    "AttemptState",
    "Attempts",
    "BatchLine",
    "BatchLines",
    "Begun",
    "BrowserSessions",
    "Budgets",
    "CallState",
    "Claim",
    "Contents",
    "CreditEntry",
    "Database",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "ExactAnswer",
    "FinishedRequest",
    "GroupBy",
    "Ledger",
    "LineState",
    "Opened",
    "Recorded",
    "RecordedCall",
    "Requests",
    "Reuse",
    "SessionOwner",
    "Settled",
    "Submissions",
    "ToolCallKey",
    "ToolCalls",
    "Totals",
    "UsageLine",
    "Vault",
]
