"""The durable record: texts, idempotency keys, paid calls, budgets, exact answers, final rows."""

from holdfast.ledger.answers import Answers, ExactAnswer
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
from holdfast.ledger.budgets import Budgets, CreditEntry
from holdfast.ledger.contents import Contents
from holdfast.ledger.database import Database
from holdfast.ledger.ledger import Ledger, Reuse
from holdfast.ledger.requests import FinishedRequest, Requests
from holdfast.ledger.submissions import Claim, Submissions
from holdfast.ledger.usage import GroupBy, UsageLine
from holdfast.ledger.vault import Vault

__all__ = [
    "Answers",
    "Attempt",
    "AttemptKey",
    "AttemptState",
    "Attempts",
    "BatchLine",
    "BatchLines",
    "Budgets",
    "Claim",
    "Contents",
    "CreditEntry",
    "Database",
    "ExactAnswer",
    "FinishedRequest",
    "GroupBy",
    "Ledger",
    "LineState",
    "Opened",
    "Recorded",
    "Requests",
    "Reuse",
    "Settled",
    "Submissions",
    "Totals",
    "UsageLine",
    "Vault",
]
