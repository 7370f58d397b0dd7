"""`note`: writes down what happened to an approval, and whom to tell of it, in one transaction."""

from temporalio import activity

from holdfast.contracts import Noted, NoteInput
from holdfast.ledger import ApprovalEvent, Ledger
from holdfast.notify import Notifier


class Note:
    """Keeps the rows of approvals."""

    def __init__(self, ledger: Ledger, notifier: Notifier) -> None:
        self._ledger = ledger
        self._notifier = notifier

    @activity.defn(name="note")
    async def note(self, given: NoteInput) -> Noted:
        """Put it on record. Doing so again changes nothing and names the same notifications."""
        question = given.approval
        event = ApprovalEvent(
            tenant=given.tenant,
            request_id=question.request_id,
            sequence=given.sequence,
            agent=given.agent,
            round=question.round,
            kind=question.kind,
            subject=question.subject,
            happening=given.happening,
            actor=given.actor or None,
            reason=given.reason,
            content_sha256=given.content_sha256,
            stage=question.stage,
            approvers=question.approvers,
            deadline=question.deadline,
            at=given.at,
        )
        deliveries = await self._ledger.approval_events.record(event, self._notifier.of_note(given))
        return Noted(deliveries=deliveries)
