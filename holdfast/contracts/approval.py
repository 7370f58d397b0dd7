"""A question to people, and their decision."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from holdfast.contracts.base import Contract
from holdfast.contracts.content import ContentRef, Sha256
from holdfast.contracts.plan import ApprovalRule


class DecisionKind(StrEnum):
    """What a person may say."""

    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"


class Approval(Contract):
    """An open question: may this content leave?"""

    request_id: str
    content: ContentRef
    """Exactly what the approver sees; a decision must name its digest."""
    passages: ContentRef | None = None
    """The passages behind the content's citation markers."""
    rule: ApprovalRule
    """Who may decide and what happens otherwise."""
    requested_by: str
    """The user who asked the question."""
    opened_at: AwareDatetime
    deadline: AwareDatetime
    kind: Literal["output", "budget"] = "output"
    """What is asked for: that the content may leave, or that the request may go past a budget as the content says."""
    round: int = Field(default=1, ge=1)
    """1 for the first question; an edit that has to be approved again would raise it."""


class Decision(Contract):
    """One person's answer to an approval."""

    decision: DecisionKind
    actor: str = Field(min_length=1, max_length=128)
    """Who decided. The gateway sets it from the API key; a signal sent by an operator states it."""
    content_sha256: Sha256
    """Digest of the content that was shown to the actor."""
    payload: ContentRef | None = None
    """For `edit`: the text to deliver instead, in the content store."""
    payload_text: str | None = Field(default=None, max_length=100_000)
    """For `edit` by a signal from an operator's shell: the text itself. The gateway always uses `payload`."""
    reason: str | None = Field(default=None, max_length=2_000)
    """Free text for the audit."""


class DecisionReceipt(Contract):
    """What became of a decision that was accepted."""

    request_id: str
    decision: DecisionKind
    actor: str
    content_sha256: Sha256
    """Digest of the content that will be delivered (the edited one after an edit), or was rejected."""
    decided_at: AwareDatetime
