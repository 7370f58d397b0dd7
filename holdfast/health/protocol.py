"""What health is asked and what it answers. A key names a credential and a model, for that is what fails together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from holdfast.breaker import Cause, Verdict
from holdfast.errors import Outcome


class Standing(StrEnum):
    """How a key stands."""

    CLOSED = "closed"
    """Calls go."""
    OPEN = "open"
    HALF_OPEN = "half_open"
    """A probe is under way, or may go now."""
    COOLING = "cooling"
    """It asked to be left alone for a while."""


@dataclass(frozen=True)
class Admission:
    """Whether a call may go."""

    verdict: Verdict
    until: datetime | None = None
    """Refused: when to ask again. Probing: by when to report."""
    reason: Cause | None = None


@dataclass(frozen=True)
class Condition:
    """What is known of a key."""

    state: Standing = Standing.CLOSED
    until: datetime | None = None
    reason: Cause | None = None
    first_token: timedelta | None = None
    """Exponentially weighted mean of the time to the first token; `None` until one was seen."""
    first_token_p95: timedelta | None = None
    """95th percentile of the last replies."""
    tokens_per_second: float | None = None
    """Exponentially weighted mean of the speed after the first token."""
    in_flight: int = 0
    """Calls that were admitted and have not been recorded."""


class Health(Protocol):
    """Watches over keys. Every admission that does not refuse is followed by one `record`, whatever happens."""

    async def admit(self, key: str, *, sole: bool = False) -> Admission:
        """Whether a call may go. Exactly one probe goes at a time, over all that share the state.

        Args:
            key: Credential and model.
            sole: There is no other deployment to turn to, so an open one is probed at once.

        Raises:
            Unavailable: The state cannot be read. Nothing may be sent without it.
        """
        ...

    async def record(
        self,
        key: str,
        outcome: Outcome,
        *,
        first_token: timedelta | None,
        duration: timedelta | None,
        output_tokens: int = 0,
        retry_after: timedelta | None = None,
        timed_out: bool = False,
    ) -> None:
        """How an admitted call ended; never raises for want of the store, because the reply is worth more.

        Args:
            key: As admitted.
            outcome: As classified.
            first_token: From sending to the first token; `None` when none came.
            duration: From sending to the end; `None` when unknown.
            output_tokens: How many came.
            retry_after: What the answer asks for.
            timed_out: We gave up waiting; such failures are counted apart.
        """
        ...

    async def look(self, keys: Sequence[str]) -> dict[str, Condition]:
        """What is known, at most a second old; what was last known when the store does not answer."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
