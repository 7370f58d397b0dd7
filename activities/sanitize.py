"""`sanitize`: normalise, mask personal data, refuse."""

import asyncio

from temporalio import activity

from holdfast.contracts import Conversation, Sanitized, SanitizeInput
from holdfast.guards import Sanitizer
from holdfast.ledger import Ledger

INLINE_BYTES = 2_000
"""Up to this size masking takes about a millisecond, less than a hop to a thread is worth."""


class Sanitize:
    """Reads the input from the content store and keeps what was masked in the vault, out of every history."""

    def __init__(self, sanitizer: Sanitizer, ledger: Ledger) -> None:
        self._sanitizer = sanitizer
        self._ledger = ledger

    @activity.defn(name="sanitize")
    async def sanitize(self, given: SanitizeInput) -> Sanitized:
        """Make the input safe to show."""
        contents = self._ledger.contents
        text = await contents.get(given.tenant, given.input)
        around = Conversation()
        if given.conversation is not None:
            around = Conversation.model_validate_json(await contents.get(given.tenant, given.conversation))
        if given.input.size <= INLINE_BYTES and given.conversation is None:
            clean, _ = self._sanitizer.sanitize_all(text, around, given.guards)
        else:
            clean, around = await asyncio.to_thread(self._sanitizer.sanitize_all, text, around, given.guards)
        if clean.mapping:
            await self._ledger.vault.save(given.tenant, given.request_id, clean.mapping)
        masked = given.input
        if clean.masked != text:
            masked = await contents.put(given.tenant, clean.masked)
        conversation = None
        if given.conversation is not None:
            conversation = await contents.put(given.tenant, around.model_dump_json())
        return Sanitized(masked=masked, placeholders=clean.counts, refusal=clean.refusal, conversation=conversation)
