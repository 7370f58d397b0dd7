"""The part of a run that ends it: delivers what there is, closes the books, and tells what the whole of it came to."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import approval, loop
    from holdfast.contracts import (
        Answer,
        Approval,
        DecisionKind,
        DecisionReceipt,
        Delivered,
        DeliverInput,
        EventKind,
        FinishReason,
        Run,
        Status,
        Step,
    )
    from workflows import attributes
    from workflows.beginning import Beginning
    from workflows.noting import NOTES_SINCE
    from workflows.people import answer_tick
    from workflows.run_sheet import money

AFTERWARDS = timedelta(minutes=50)
"""How long after its deadline a request is still being closed; the engine ends the run an hour after it."""


class Ending(Beginning):
    """Closes a request, however it ends."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._left_undone: set[int] = set()
        """Questions of which it is noted that what was approved is not done."""

    async def _decided_answer(self) -> loop.LoopTick | None:
        """What was decided on the answer, once that is in the history; `None` if nothing was, or in older walks."""
        question, verdict = self._desk.question, self._desk.verdict
        if question is None or question.kind != "output" or self._request.walk < NOTES_SINCE:
            return None
        if verdict is None or isinstance(verdict, approval.Lapse):
            return None
        await workflow.wait_condition(lambda: not self._telling)
        return answer_tick(verdict)

    async def _leave_undone(self) -> str:
        """Note of all that was approved, but that the request ends before it is done; in words for its reason."""
        question, asked = self._desk.question, list(self._state.agreed.values())
        if question is not None and isinstance(self._desk.verdict, approval.Release):
            asked.append(question)
        told = [_undone(one, self._state.decisions) for one in asked]
        for one, words in zip(asked, told, strict=True):
            if one.round not in self._left_undone:
                # Before it is noted: a note is made even if the run is cancelled meanwhile.
                self._left_undone.add(one.round)
                await self._note(one, "closed", reason=f"The request ended first. {words}")
        return " ".join(told)

    async def _end(self, finish: loop.Finish) -> Answer:
        if finish.status is not Status.COMPLETED and (undone := await self._leave_undone()):
            finish = replace(finish, reason=f"{finish.reason} {undone}" if finish.reason else undone)
        state = self._state
        receipt = self._output_receipt
        delivered = await steps.local(
            Step.DELIVER,
            DeliverInput(
                request=self._request,
                status=finish.status,
                reason=finish.reason,
                content=finish.content,
                passages=state.passages,
                masked=state.masked,
                private=state.private,
                # What a chat client's limit cut off is an answer to that client only.
                recallable=self._recallable
                and not (state.recalled or (receipt is not None and receipt.decision is DecisionKind.EDIT))
                and self._loop.finish_reason is FinishReason.STOP,
                deployment=self._loop.answered_by,
                recalled=state.recalled,
                decided_by=receipt.actor if receipt else None,
                finish_reason=self._loop.finish_reason,
                **self._beside_the_answer(finish),
            ),
            Delivered,
            finish.status.value,
            self._remaining() + AFTERWARDS,
        )
        # A request that is cancelled between its delivery and the report of it was delivered.
        status = self._status = delivered.status
        as_finished = status is finish.status
        reason = finish.reason if as_finished else None
        content = finish.content if as_finished else self._loop.content
        self._keep(spent=delivered.usage, attempts=delivered.attempts)
        self._publish(delivered)
        self._tell(EventKind.FINISHED, status, reason or self._account(delivered.attempts))
        await self._send(delivered.deliveries)
        return Answer(
            request_id=self._request.id,
            status=status,
            reason=reason,
            document=delivered.document,
            content_sha256=content.sha256 if content else None,
            deployment=self._loop.answered_by,
            recalled=state.recalled,
            usage=self._spent,
            attempts=delivered.attempts,
            finish_reason=self._loop.finish_reason,
            decided_by=receipt.actor if receipt else None,
            tool_calls=self._loop.tool_calls,
            delegates=self._delegates,
            limit=finish.limit if as_finished else None,
            tainted=self._loop.tainted,
            decisions=self._decisions,
        )

    @property
    def _output_receipt(self) -> DecisionReceipt | None:
        """The decision on the answer itself, if people were asked about it."""
        question = self._desk.question
        return self._desk.receipt if question is not None and question.kind == "output" else None

    def _beside_the_answer(self, finish: loop.Finish) -> dict[str, Any]:
        """What most requests leave at its default; what is unset is left out of a history."""
        state = self._state
        given: dict[str, Any] = {}
        if state.delegates:
            given["delegated"] = state.delegated
            given["delegates"] = self._delegates
        if self._loop.tool_calls:
            given["tool_calls"] = self._loop.tool_calls
        if finish.limit is not None:
            given["limit"] = finish.limit
        if state.decisions:
            given["decisions"] = state.decisions
        if self._loop.tainted:
            given["tainted"] = self._loop.tainted
        return given

    @property
    def _delegates(self) -> tuple[str, ...]:
        return tuple(delegate.request_id for delegate in self._state.delegates)

    def _publish(self, delivered: Delivered) -> None:
        """Set the search attributes of the ending."""
        updates: list[SearchAttributeUpdate[Any]] = [
            attributes.STATUS.value_set(delivered.status),
            attributes.TOKENS.value_set(self._spent.total_tokens),
        ]
        if self._spent.cost_usd is not None:
            updates.append(attributes.COST_USD.value_set(float(self._spent.cost_usd)))
        if self._loop.answered_by:
            updates.append(attributes.MODEL.value_set(self._loop.answered_by))
        workflow.upsert_search_attributes(updates)

    def _account(self, attempts: int) -> str:
        """What it took, in one line."""
        calls = "1 model call" if attempts == 1 else f"{attempts} model calls"
        made = self._loop.tool_calls
        tools = f", {made} tool call{'s' if made > 1 else ''}" if made else ""
        return f"{calls}{tools}, {self._spent.total_tokens} tokens, {money(self._spent)}"


def _undone(question: Approval, decisions: Sequence[DecisionReceipt]) -> str:
    """That something was approved and is not done."""
    by = next((one.actor for one in reversed(decisions) if one.round == question.round and one.final), approval.NOBODY)
    who = "The rule's default" if by == approval.NOBODY else by
    match question.kind:
        case "tool":
            return f"{who} had approved the call of {question.subject!r}, but it was not made."
        case "budget":
            return f"{who} had let it go past its budget, but it did not."
    return f"{who} had approved the answer, but it was not delivered."
