"""`deliver`: the one place where placeholders become personal data again, and where a request is closed."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from temporalio import activity

from holdfast.contracts import (
    Answer,
    AnswerDocument,
    AssistantTurn,
    Delivered,
    DeliverInput,
    FinishReason,
    Status,
    Usage,
)
from holdfast.guards import restore
from holdfast.ledger import FinishedRequest, Ledger, Reuse
from holdfast.notify import Notifier
from holdfast.preparation import PASSAGES
from holdfast.relay import Relay
from holdfast.telemetry import Metrics
from holdfast.validation import cite


class Deliver:
    """Writes the answer document, the exact answer, the final row and notifications in one transaction."""

    def __init__(
        self, ledger: Ledger, relay: Relay, metrics: Metrics | None = None, notifier: Notifier | None = None
    ) -> None:
        self._ledger = ledger
        self._relay = relay
        self._metrics = metrics or Metrics()
        self._notifier = notifier

    @activity.defn(name="deliver")
    async def deliver(self, given: DeliverInput) -> Delivered:
        """Close the request, whatever its ending. Closing it again changes nothing."""
        request = given.request
        delivers = given.status is Status.COMPLETED and given.content is not None
        document = await self._document(given) if delivers else None
        reuse = None
        if delivers and given.recallable and given.masked and given.content:
            reuse = Reuse(given.masked.sha256, given.content, given.passages, input_sha256=request.input.sha256)
        now = datetime.now(UTC)
        finished = await self._ledger.finish(
            FinishedRequest(
                tenant=request.tenant,
                user=request.user,
                agent=request.plan.agent,
                plan_version=request.plan.version,
                submitted_at=request.submitted_at,
                finished_at=now,
                # What agents say to each other is no turn of their user's conversation.
                session=None if request.parent else request.session,
                tier=request.tier,
                answer=Answer(
                    request_id=request.id,
                    status=given.status,
                    reason=given.reason,
                    content_sha256=given.content.sha256 if given.content else None,
                    deployment=given.deployment,
                    recalled=given.recalled,
                    finish_reason=given.finish_reason,
                    decided_by=given.decided_by,
                    tool_calls=given.tool_calls,
                    delegates=given.delegates,
                    limit=given.limit,
                    tainted=given.tainted,
                ),
                input=request.input,
                delegated=None if given.delegated == Usage() else given.delegated,
            ),
            document=document,
            reuse=reuse,
            # A run that is broken off while it masks results of tools does not hear that there is something to forget.
            forget_vault=given.private or request.plan.toolbox is not None,
            deliveries=self._notifier.of_end(
                request,
                given.status,
                now,
                content_sha256=given.content.sha256 if given.content else None,
                decided_by=given.decided_by,
            )
            if self._notifier
            else (),
        )
        await self._relay.close(request.id)
        answer = finished.answer
        self._metrics.request_ended(request.plan.agent, answer.status)
        ended = Delivered(
            status=answer.status, document=answer.document, usage=finished.own_usage, attempts=answer.attempts
        )
        # What is unset is left out of the history.
        return ended.model_copy(update={"deliveries": finished.deliveries}) if finished.deliveries else ended

    async def _document(self, given: DeliverInput) -> str:
        contents, request = self._ledger.contents, given.request
        if given.content is None:
            raise AssertionError("Only content can be delivered.")
        text = await contents.get(request.tenant, given.content)
        passages = PASSAGES.validate_json(await contents.get(request.tenant, given.passages)) if given.passages else ()
        mapping = await self._ledger.vault.load(request.tenant, request.id) if given.private else {}
        if given.finish_reason is FinishReason.TOOL_CALLS and request.chat:
            return _tool_calls(text, mapping)
        citations = () if request.plan.output_schema else cite(text, passages)
        if mapping:
            # In JSON a restored value must stay one string, whatever characters it holds.
            text = _restored_json(text, mapping) if request.plan.output_schema else restore(text, mapping)
        return AnswerDocument(text=text, citations=citations).model_dump_json()


def _tool_calls(text: str, mapping: dict[str, str]) -> str:
    try:
        turn = AssistantTurn.model_validate_json(text)
    except ValidationError:  # some servers say that a reply asks for calls, and there are none in it
        turn = AssistantTurn(text=text)
    calls = tuple(
        call.model_copy(update={"arguments": _restored_arguments(call.arguments, mapping)}) for call in turn.tool_calls
    )
    return AnswerDocument(text=restore(turn.text, mapping), tool_calls=calls).model_dump_json()


def _restored_arguments(arguments: str, mapping: dict[str, str]) -> str:
    """Arguments with values put back; what the model wrote that is no JSON is passed on as it is, restored as text."""
    try:
        return _restored_json(arguments, mapping) if mapping else arguments
    except ValueError:
        return restore(arguments, mapping)


def _restored_json(text: str, mapping: dict[str, str]) -> str:
    def within(value: Any) -> Any:
        if isinstance(value, str):
            return restore(value, mapping)
        if isinstance(value, list):
            return [within(item) for item in value]
        if isinstance(value, dict):
            return {restore(key, mapping): within(item) for key, item in value.items()}
        return value

    return json.dumps(within(json.loads(text)), ensure_ascii=False)
