"""The durable record: texts, idempotency keys, paid calls, exact answers, final rows, health of deployments."""

from holdfast.ledger.answers import Answers, ExactAnswer
from holdfast.ledger.attempts import (
    Attempt,
    AttemptKey,
    Attempts,
    AttemptState,
    Opened,
    Recorded,
    Settled,
    Totals,
)
from holdfast.ledger.contents import Contents
from holdfast.ledger.database import Database
from holdfast.ledger.health import Down, Health
from holdfast.ledger.ledger import Ledger, Reuse
from holdfast.ledger.requests import FinishedRequest, Requests
from holdfast.ledger.submissions import Claim, Submissions
from holdfast.ledger.vault import Vault

__all__ = [
    "Answers",
    "Attempt",
    "AttemptKey",
    "AttemptState",
    "Attempts",
    "Claim",
    "Contents",
    "Database",
    "Down",
    "ExactAnswer",
    "FinishedRequest",
    "Health",
    "Ledger",
    "Opened",
    "Recorded",
    "Requests",
    "Reuse",
    "Settled",
    "Submissions",
    "Totals",
    "Vault",
]
