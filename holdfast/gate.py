"""What stands before a deployment: its own limits, and the breaker that its failures open.

Nothing is recorded or sent before the gate lets a call through, so a call that is held back here costs nothing and
counts as no attempt.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Literal

from holdfast.breaker import Cause, Verdict
from holdfast.contracts import Usage
from holdfast.errors import Outcome, ProviderError, Throttled, Unavailable
from holdfast.health import Health
from holdfast.limits import Admitted, Dimension, Limiter, Scope, TooLarge, Wait

log = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=2)
"""A shorter wait is sat out here, before another deployment is asked."""

PATIENCE_ALONE = timedelta(seconds=75)
"""A shorter wait is sat out here when there is no other deployment; it is longer than any window of a minute. Few
calls stand here at a time (`Line`), and one that went back to the engine's queue might be far behind there when its
turn comes, while everyone behind it here waits for it."""

SHORTEST_WAIT = timedelta(milliseconds=20)
"""Least time before the gate is asked again."""


_BY: Mapping[Dimension, Literal["requests", "tokens", "concurrency"]] = {
    Dimension.REQUESTS: "requests",
    Dimension.TOKENS: "tokens",
    Dimension.CONCURRENCY: "concurrency",
}


_HOPELESS: Mapping[Cause | None, Outcome] = {
    Cause.BILLING: Outcome.BILLING,
    Cause.AUTHENTICATION: Outcome.AUTHENTICATION,
}
"""What no wait of seconds mends: the request goes elsewhere or ends, as if the provider had refused it again."""


@dataclass(frozen=True)
class Guarded:
    """What the gate knows of a deployment."""

    name: str
    health_key: str
    scopes: tuple[Scope, ...] = ()
    """Whose limits a call counts in."""


class Line:
    """Calls of this process that stand before one deployment for want of room.

    Whoever hands out calls looks here first. A call that stands here is past the engine's queue: no higher tier and no
    tenant with a larger claim can go before it any more.
    """

    def __init__(self) -> None:
        self.length = 0
        self.when_shorter: list[Callable[[], None]] = []
        """Called whenever somebody has left it."""
        self._stirred = asyncio.Event()
        self._dispersed = False

    async def wait(self, duration: timedelta) -> bool:
        """Stand until there may be room, at most for so long; false when the line is dispersed."""
        stirred = self._stirred
        with suppress(TimeoutError):
            async with asyncio.timeout(duration.total_seconds()):
                await stirred.wait()
        return not self._dispersed

    def stir(self) -> None:
        """Let everyone look again: a call of this process has ended, and gave back what it did not use."""
        self._stirred.set()
        self._stirred = asyncio.Event()

    def disperse(self) -> None:
        """Send everyone away, for good: this process is about to end."""
        self._dispersed = True
        self.stir()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Stand in it."""
        self.length += 1
        try:
            yield
        finally:
            self.length -= 1
            for tell in self.when_shorter:
                tell()


@dataclass(frozen=True)
class Entry:
    """Permission to make one call; goes back through `Gate.leave`."""

    deployment: Guarded
    admitted: Admitted


class Gate:
    """Lets calls of this process through.

    Args:
        limiter: Keeps requests and tokens per minute and calls in flight.
        health: Keeps the breakers.
    """

    def __init__(self, limiter: Limiter, health: Health) -> None:
        self._limiter = limiter
        self._health = health
        self._lines: defaultdict[str, Line] = defaultdict(Line)

    def line(self, deployment: str) -> Line:
        """Who stands before a deployment."""
        return self._lines[deployment]

    async def enter(self, deployment: Guarded, ticket: str, tokens: int, *, sole: bool) -> Entry:
        """Ask to make a call.

        Args:
            deployment: Which is to be called.
            ticket: Names the call in line; the same at every look.
            tokens: The most it can use.
            sole: Whether no other deployment is left, so that a wait is worth more than going elsewhere.

        Raises:
            Throttled: There is no room, or the breaker is open; says for how long.
            ProviderError: `CONTEXT_LENGTH`, when the call alone is more than a minute's quota.
            Unavailable: The shared state does not answer, and no check is skipped.
        """
        admitted = await self._admitted(deployment, ticket, tokens, sole=sole)
        try:
            admission = await self._health.admit(deployment.health_key, sole=sole)
        except BaseException:
            await self._settle(deployment, admitted, 0)
            raise
        if admission.verdict is not Verdict.REFUSE:
            return Entry(deployment, admitted)
        await self._settle(deployment, admitted, 0)
        if (outcome := _HOPELESS.get(admission.reason)) is not None:
            raise ProviderError(
                f"Deployment {deployment.name!r} is not called until {admission.until:%H:%M:%S} UTC: its credit or its "
                "key was refused by the provider. Mend that, or wait.",
                outcome=outcome,
            )
        now = datetime.now(UTC)
        wait = max((admission.until or now) - now, timedelta(seconds=1))
        raise Throttled(
            f"Deployment {deployment.name!r} is not called for another {wait.total_seconds():.0f} s: "
            f"{admission.reason.value if admission.reason else 'its breaker is open'}.",
            wait=wait,
            by="breaker",
        )

    async def leave(
        self,
        entry: Entry,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        first_token: timedelta | None = None,
        duration: timedelta | None = None,
        retry_after: timedelta | None = None,
        timed_out: bool = False,
    ) -> None:
        """Tell how a call ended. What was not used becomes free again.

        Args:
            entry: From `enter`.
            outcome: How it ended; `CANCELLED` says nothing about the deployment.
            usage: What it used; `None` when nobody knows, and then the most stays counted.
            first_token: From dispatch to the first token.
            duration: From dispatch to the end.
            retry_after: What the provider asked for.
            timed_out: Whether we gave up waiting.
        """
        await self._settle(
            entry.deployment, entry.admitted, 0 if outcome.billed is False else usage.total_tokens if usage else None
        )
        await self._health.record(
            entry.deployment.health_key,
            outcome,
            first_token=first_token,
            duration=duration,
            output_tokens=usage.output_tokens if usage else 0,
            retry_after=retry_after,
            timed_out=timed_out,
        )

    async def turned_back(self, entry: Entry) -> None:
        """Tell that a call that was let through was not made."""
        await self._settle(entry.deployment, entry.admitted, 0)
        await self._health.record(entry.deployment.health_key, Outcome.CANCELLED, first_token=None, duration=None)

    async def renew(self, entry: Entry) -> None:
        """Keep the slots of a call under way; without the limiter's store they lapse, and the call goes on."""
        try:
            await self._limiter.renew(entry.admitted)
        except Unavailable as error:
            log.warning("The slot of a call of deployment %s is not renewed: %s", entry.deployment.name, error)

    async def _settle(self, deployment: Guarded, admitted: Admitted, tokens: int | None) -> None:
        try:
            await self._limiter.settle(admitted, tokens)
        except Unavailable as error:
            # A reply is worth more than a corrected count; the slots free themselves.
            log.warning("The limits of deployment %s are not corrected: %s", deployment.name, error)
        self.line(deployment.name).stir()

    async def _admitted(self, deployment: Guarded, ticket: str, tokens: int, *, sole: bool) -> Admitted:
        found = await self._ask(deployment, ticket, tokens)
        if isinstance(found, Admitted):
            return found
        line = self.line(deployment.name)
        with line.standing():
            deadline = monotonic() + (PATIENCE_ALONE if sole else PATIENCE).total_seconds()
            try:
                while isinstance(found, Wait):
                    wait = max(found.duration, SHORTEST_WAIT)
                    if monotonic() + wait.total_seconds() > deadline or not await line.wait(wait):
                        if not sole:
                            await self._limiter.withdraw(ticket, deployment.scopes)
                        raise _full(deployment, found)
                    found = await self._ask(deployment, ticket, tokens)
            except asyncio.CancelledError:
                # Everyone behind would wait until the place of a call that never comes lapses.
                await asyncio.shield(self._limiter.withdraw(ticket, deployment.scopes))
                raise
            return found

    async def _ask(self, deployment: Guarded, ticket: str, tokens: int) -> Admitted | Wait:
        try:
            return await self._limiter.admit(ticket, deployment.scopes, tokens)
        except TooLarge as error:
            raise ProviderError(str(error), outcome=Outcome.CONTEXT_LENGTH) from None


def _full(deployment: Guarded, wait: Wait) -> Throttled:
    return Throttled(
        f"Deployment {deployment.name!r} has no room for {wait.duration.total_seconds():.1f} s: "
        f"its limit of {wait.dimension} is used up.",
        wait=max(wait.duration, SHORTEST_WAIT),
        by=_BY[wait.dimension],
    )
