"""Answers the very same input again without a run: from the ledger's exact answers, kept in memory while they are hot.

An answer serves a tenant's own repetitions only, of the same version of the agent, until it is older than
`ledger.recall_for`. Whatever makes the tenant's answers void, such as new documents, begins a new epoch in the ledger;
the epoch is read at most once a second, so that a void answer is served for one second at most.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.contracts import Answer, AnswerDocument, Status
from holdfast.errors import ContentMissing
from holdfast.ledger import Ledger

STALE = 1.0
"""Seconds for which a tenant's epoch is believed."""
_OVERHEAD = 2_000
"""Bytes of an entry beside its text."""


@dataclass(frozen=True)
class EdgeAnswer:
    """An answer that can be given again as it is."""

    document: AnswerDocument
    answer: Answer
    """How the repetition ends, but for its id."""
    size: int
    """Bytes of memory, about."""
    expires_at: datetime

    def ended(self, request_id: str) -> Answer:
        """The ending of one repetition."""
        return self.answer.model_copy(update={"request_id": request_id})


class EdgeAnswers:
    """Finds answers.

    Args:
        ledger: Has the answers and the epochs.
        recall_for: Greatest age of an answer.
        max_bytes: Memory for all tenants together; the longest unused answers go first.
        clock: Seconds that never go backward.
        now: The present, UTC.
    """

    def __init__(
        self,
        ledger: Ledger,
        recall_for: timedelta,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._recall_for = recall_for
        self._max_bytes = max_bytes
        self._clock = clock
        self._now = now
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, int, str, str], EdgeAnswer] = OrderedDict()
        self._epochs: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def find(self, tenant: str, plan_version: str, input_sha256: str) -> EdgeAnswer | None:
        """The answer that the tenant was given for the identical input, if it may serve again."""
        # The epoch is read before the answer: one that is void by then is kept under an epoch nobody asks for again.
        key = (tenant, await self._epoch(tenant), plan_version, input_sha256)
        if (kept := self._kept.get(key)) is not None:
            if kept.expires_at > self._now():
                self._kept.move_to_end(key)
                return kept
            self._drop(key)
        found = await self._read(tenant, plan_version, input_sha256)
        if found is not None and key not in self._kept:
            self._kept[key] = found
            self._bytes += found.size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))
        return found

    def forget(self, tenant: str) -> None:
        """Look the tenant's epoch up again before anything of it is served."""
        self._epochs.pop(tenant, None)

    async def _epoch(self, tenant: str) -> int:
        now = self._clock()
        known = self._epochs.get(tenant)
        if known is not None and now - known[1] < STALE:
            return known[0]
        epoch = await self._ledger.answers.epoch(tenant)
        self._epochs[tenant] = (epoch, now)
        self._epochs.move_to_end(tenant)
        if len(self._epochs) > 10_000:
            self._epochs.popitem(last=False)
        return epoch

    async def _read(self, tenant: str, plan_version: str, input_sha256: str) -> EdgeAnswer | None:
        exact = await self._ledger.answers.recall_input(
            tenant, plan_version, input_sha256, ttl=self._recall_for, now=self._now()
        )
        if exact is None or exact.document is None or exact.created_at is None:
            return None
        try:
            text = await self._ledger.contents.get(tenant, exact.document)
        except ContentMissing:
            return None
        document = AnswerDocument.model_validate_json(text)
        return EdgeAnswer(
            document=document,
            answer=Answer(
                request_id="",
                status=Status.COMPLETED,
                document=exact.document,
                content_sha256=exact.content.sha256,
                recalled=True,
            ),
            # Text and objects; Python keeps a character in one to four bytes.
            size=3 * len(text) + _OVERHEAD,
            expires_at=exact.created_at + self._recall_for,
        )

    def _drop(self, key: tuple[str, int, str, str]) -> None:
        self._bytes -= self._kept.pop(key).size
