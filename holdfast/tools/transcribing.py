"""`transcribe`: a reply and what came of its calls become the next part of what the model is shown.

Here results lose their personal data, which gets placeholders that go on from those of the question, and their power to
pose as anything but data. What delegates cited is put behind the run's own passages, so that the answer can cite it.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.contracts import (
    AnswerDocument,
    AssistantTurn,
    Passage,
    ToolCall,
    ToolReturned,
    Transcribed,
    TranscribeInput,
    Turn,
)
from holdfast.guards import Sanitizer, normalise
from holdfast.ledger import Ledger
from holdfast.preparation import PASSAGES, TRANSCRIPT
from holdfast.tokens import count_message_tokens
from holdfast.tools.results import cut_to_tokens, shown_result
from holdfast.validation import renumbered

DELEGATE_TOKENS = 4_000
"""Longest answer of a delegate that is shown."""
MAX_UNREADABLE = 1_000
"""Characters shown again of arguments that are not JSON."""
_NO_RESULT = "The call was not made."
_NOTICE = "Note from the application, not from the user: {notice}"


@dataclass
class _Cited:
    """The run's passages, growing by those that delegates cite."""

    passages: list[Passage] = field(default_factory=list)
    places: dict[tuple[str, int, int, str], int] = field(default_factory=dict)
    grew: bool = False

    def number(self, passage: Passage) -> int:
        """Its number in the answer, counted from 1."""
        place = (passage.source, passage.start, passage.end, passage.text)
        if place not in self.places:
            self.passages.append(passage)
            self.places[place] = len(self.passages)
            self.grew = True
        return self.places[place]


@dataclass(frozen=True)
class Transcribing:
    """The step."""

    ledger: Ledger
    sanitizer: Sanitizer

    async def transcribe(self, given: TranscribeInput) -> Transcribed:
        """Append to the transcript. Doing it again comes to the same.

        Raises:
            ContentMissing: A text is gone.
        """
        contents, tenant = self.ledger.contents, given.tenant
        reply = AssistantTurn.model_validate_json(await contents.get(tenant, given.reply))
        earlier = await contents.get(tenant, given.transcript) if given.transcript else "[]"
        question = await contents.get(tenant, given.masked) if given.masked else ""
        cited = await self._cited(given)
        texts = [await self._text(tenant, returned, cited) for returned in given.results]
        private = False
        if given.guards.mask:
            known = await self.ledger.vault.load(tenant, given.request_id)
            masked, mapping, _ = await asyncio.to_thread(
                self.sanitizer.mask_more, texts, known, (question, earlier, reply.text)
            )
            # Not whether values were added: when this is done again, they are known already.
            texts, private = list(masked), bool(mapping)
            if mapping != known:
                await self.ledger.vault.save(tenant, given.request_id, mapping)
        before = TRANSCRIPT.validate_json(earlier)
        turns = (*before, *_turns(given, reply, texts, before))
        passages = given.passages
        if cited.grew:
            passages = await contents.put(tenant, PASSAGES.dump_json(tuple(cited.passages)).decode())
        return Transcribed(
            transcript=await contents.put(tenant, TRANSCRIPT.dump_json(turns).decode()),
            passages=passages,
            private=private,
            tokens=count_message_tokens(
                [*(turn.content for turn in turns), *(call.model_dump_json() for t in turns for call in t.tool_calls)]
            ),
        )

    async def _cited(self, given: TranscribeInput) -> _Cited:
        cited = _Cited()
        if given.passages:
            # Not by `number`: two equal passages keep their two numbers.
            cited.passages += PASSAGES.validate_json(await self.ledger.contents.get(given.tenant, given.passages))
            for number, passage in enumerate(cited.passages, start=1):
                cited.places.setdefault((passage.source, passage.start, passage.end, passage.text), number)
        return cited

    async def _text(self, tenant: str, returned: ToolReturned, cited: _Cited) -> str:
        """A result before it is masked."""
        if returned.result is None:
            return returned.problem or _NO_RESULT
        text = await self.ledger.contents.get(tenant, returned.result)
        if not returned.delegate:
            return text
        document = AnswerDocument.model_validate_json(text)
        numbers = {
            citation.marker: cited.number(
                Passage(source=citation.source, start=citation.start, end=citation.end, text=citation.quote, score=0.0)
            )
            for citation in document.citations
        }
        answer = renumbered(document.text, numbers) if numbers or cited.passages else document.text
        return cut_to_tokens(normalise(answer), DELEGATE_TOKENS)[0]


def _turns(given: TranscribeInput, reply: AssistantTurn, texts: Sequence[str], before: Sequence[Turn]) -> list[Turn]:
    """The reply's turn, then one for each result, then the notice.

    Every call in it has exactly one result: providers refuse a conversation in which one has none. Calls that were left
    out altogether are not shown.
    """
    by_position = {int(returned.key.partition(".")[2]): place for place, returned in enumerate(given.results)}
    used = {call.id for turn in before for call in turn.tool_calls}
    calls: list[ToolCall] = []
    results: list[Turn] = []
    for position, call in enumerate(reply.tool_calls):
        if position not in by_position:
            continue
        returned, text = given.results[by_position[position]], texts[by_position[position]]
        call_id = call.id
        if call_id in used:  # some models number their calls anew in every reply, or not at all
            call_id = f"call_{returned.key.replace('.', '_')}"
        used.add(call_id)
        calls.append(call.model_copy(update={"id": call_id, "arguments": _readable(call.arguments)}))
        # Why a delegate has no answer may quote what it read or wrote; why a call was not made is in our own words.
        foreign = returned.tainting if returned.result is not None else "delegates" if returned.delegate else None
        shown = shown_result(text, given.request_id, returned.key, foreign)
        results.append(Turn(role="tool", content=shown, tool_call_id=call_id))
    turns = [Turn(role="assistant", content=reply.text, tool_calls=tuple(calls)), *results]
    if given.notice:
        turns.append(Turn(role="user", content=_NOTICE.format(notice=given.notice)))
    return turns


def _readable(arguments: str) -> str:
    """Arguments as servers can read them again: some answer 400 to a conversation with broken ones."""
    try:
        if isinstance(json.loads(arguments), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    return json.dumps({"unreadable": arguments[:MAX_UNREADABLE]}, ensure_ascii=False) if arguments.strip() else "{}"
