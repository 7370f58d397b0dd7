"""`sanitize`: normalise, mask personal data, refuse."""

import asyncio

from temporalio import activity

from holdfast.contracts import Sanitized, SanitizeInput
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
        text = await self._ledger.contents.get(given.tenant, given.input)
        if given.input.size <= INLINE_BYTES:
            clean = self._sanitizer.sanitize(text, given.guards)
        else:
            clean = await asyncio.to_thread(self._sanitizer.sanitize, text, given.guards)
        if clean.mapping:
            await self._ledger.vault.save(given.tenant, given.request_id, clean.mapping)
        masked = given.input
        if clean.masked != text:
            masked = await self._ledger.contents.put(given.tenant, clean.masked)
        return Sanitized(masked=masked, placeholders=clean.counts, refusal=clean.refusal)
