"""What a limiter is asked and what it answers; nothing here counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from holdfast.errors import HoldfastError


class Dimension(StrEnum):
    """What a scope limits."""

    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    CONCURRENCY = "concurrent calls"


@dataclass(frozen=True)
class Scope:
    """Something whose calls are limited together: a deployment, a credential, a tenant. `None` is without limit."""

    key: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    @property
    def limited(self) -> bool:
        """Whether there is anything to keep."""
        return not (self.requests_per_minute is None and self.tokens_per_minute is None and self.concurrency is None)


@dataclass(frozen=True)
class Admitted:
    """A call that may be sent, with what it holds until it is settled."""

    ticket: str
    call: str
    """Unique to this admission: a ticket that is admitted twice holds twice, because it may be sent twice."""
    scopes: tuple[Scope, ...]
    """Only those with a limit."""
    tokens: int
    at: int
    """When, in microseconds of the limiter's clock: the moment at which the tokens count in the window."""


@dataclass(frozen=True)
class Wait:
    """No room yet: nothing was taken, and the ticket has a place in line."""

    duration: timedelta
    """When to ask again. The place is kept until 30 s after that moment."""
    scope: str
    """Key of the scope that is waited for longest."""
    dimension: Dimension
    turn: timedelta
    """When the turn comes as things stand. Long waits are cut into several looks, so `duration` may be less: calls
    ahead give back what they did not use, and then the turn comes sooner."""


class TooLarge(HoldfastError):
    """A call that no amount of waiting lets through: alone it is more than a scope's limit.

    Args:
        scope: Key of the scope.
        limit: What it allows.
        needed: What the call needs.
    """

    def __init__(self, message: str, *, scope: str, limit: int, needed: int) -> None:
        super().__init__(message)
        self.scope = scope
        self.limit = limit
        self.needed = needed


class Limiter(Protocol):
    """Lets calls through within the limits of their scopes, all or nothing over the scopes."""

    async def admit(self, ticket: str, scopes: Sequence[Scope], tokens: int) -> Admitted | Wait:
        """Take what a call needs in every scope, or a place in line where there is no room.

        Args:
            ticket: Who asks; the same one at every look, unique among those that wait.
            scopes: What the call counts in, each key once. Scopes without limit cost nothing.
            tokens: What the call may use at worst, prompt and reply.

        Raises:
            TooLarge: The call alone is more than a limit.
            Unavailable: The limiter's store does not answer. Nothing may be sent without it.
        """
        ...

    async def settle(self, admitted: Admitted, actual_tokens: int | None) -> None:
        """Free the concurrency slots and correct the token count; a second time does nothing.

        What was not used is given back only while the reservation still counts in the window; what was used beyond it
        is charged always.

        Args:
            admitted: As returned by `admit`.
            actual_tokens: What was used; `None` when nobody knows, and then the reservation stands.

        Raises:
            Unavailable: The limiter's store does not answer. The slots then free themselves.
        """
        ...

    async def renew(self, admitted: Admitted) -> None:
        """Keep the slots of a call that is still running; those of a dead worker free themselves after `slot_ttl`."""
        ...

    async def withdraw(self, ticket: str, scopes: Sequence[Scope]) -> None:
        """Give a place in line back at once, when the call goes elsewhere instead of waiting."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
