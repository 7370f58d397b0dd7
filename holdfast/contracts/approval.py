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
    ESCALATE = "escalate"
    """Hands the question to the next people at once."""


class Vote(Contract):
    """One person's approval of a content that more people have to approve."""

    actor: str
    content_sha256: Sha256
    at: AwareDatetime
    reason: str | None = None


ApprovalKind = Literal["output", "budget", "tool"]
"""What is asked for: that the content may leave, that the request may go past a budget as the content says, or that a
tool may be called with the arguments in the content."""


class Approval(Contract):
    """An open question: may this content leave, this tool be called?"""

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
    kind: ApprovalKind = "output"
    round: int = Field(default=1, ge=1)
    """1 for the request's first question, 2 for its second."""
    subject: str = ""
    """Of a `tool` question: the tool."""
    why: str = ""
    """Why people are asked, in one line."""
    draft: ContentRef | None = None
    """What the model wrote, after somebody edited it and others still have to agree."""
    stage: int = Field(default=0, ge=0)
    """How often the question was escalated: 0 asks the rule's own approvers, 1 those of its first escalation."""
    votes: tuple[Vote, ...] = ()
    """Who has approved the content so far."""
    reminded: int = Field(default=0, ge=0)
    """Reminders of this stage whose time has come."""
    asked: ContentRef | None = None
    """What the user asked, masked, so that those who decide can see what the content answers."""
    transcript: ContentRef | None = None
    """What the model called before and was shown of the results, masked: a JSON array of `Turn`."""

    @property
    def approvers(self) -> tuple[str, ...]:
        """Users and roles that may decide now."""
        return self.rule.approvers if self.stage == 0 else self.rule.escalation[self.stage - 1].approvers


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
    roles: tuple[str, ...] = Field(default=(), max_length=100)
    """The actor's roles at the time of the decision, as the gateway or the operator's signal states them."""
    round: int | None = Field(default=None, ge=1)
    """Which of the request's questions was shown; needed only where the same content was asked about before."""


class DecisionReceipt(Contract):
    """What became of a decision that was accepted."""

    request_id: str
    decision: DecisionKind
    actor: str
    content_sha256: Sha256
    """Digest of the content that will be delivered (the edited one after an edit), or was rejected."""
    decided_at: AwareDatetime
    kind: ApprovalKind = "output"
    round: int = 1
    final: bool = True
    """Whether the question is settled; if not, more people have to agree, or others were asked."""
    missing: int = 0
    """How many more people have to approve."""
    reason: str | None = None


ApprovalHappening = Literal["opened", "voted", "edited", "approved", "rejected", "escalated", "reminded", "closed"]
"""`voted`: approved, and more people have to. `edited` settles a question where one person is enough, and else asks the
others anew. `closed`: the request ended before anybody decided."""


class NoteInput(Contract):
    """Something that happened to an approval, for the record and for whoever wants to be told."""

    tenant: str
    agent: str
    root: str | None = None
    approval: Approval
    """As it stands afterwards."""
    happening: ApprovalHappening
    sequence: int = Field(ge=1)
    """Position among what happened to this request's approvals: with the request id, the record's id."""
    actor: str = ""
    """Empty for what no person did."""
    reason: str | None = None
    content_sha256: Sha256
    at: AwareDatetime


class Noted(Contract):
    """It is on record."""

    deliveries: tuple[str, ...] = ()
    """Notifications to send, in the ledger."""


class NotifyRun(Contract):
    """The one argument of `NotificationWorkflow`."""

    tenant: str
    deliveries: tuple[str, ...] = Field(max_length=100)


class NotifyInput(Contract):
    """One notification to send."""

    tenant: str
    delivery: str


class Notified(Contract):
    """What became of it."""

    state: Literal["sent", "dead"]
    detail: str = ""
