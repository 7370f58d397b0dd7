"""What a relay of streamed text promises, whatever carries it.

A position is (attempt, offset): the ledger's ordinal of a model call, and how many characters of its text are known. A
newer attempt voids the text of all older ones, so a retry never adds to what a dead call had sent.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from holdfast.contracts import StreamEvent


class Relay(Protocol):
    """Passes stream events from publishers to followers, stores them for those who come later, and orders attempts."""

    async def publish(self, event: StreamEvent) -> None:
        """Add an event to its request's stream. Never fails and never waits: no model call may depend on it.

        Dropped without a word: events of an attempt below the highest seen, of an attempt that has ended or failed, and
        of a closed request; and characters that are already there.
        """

    def follow(self, request_id: str, *, attempt: int = 0, offset: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """Yield what comes after a position: first what is stored, then live events, until the request is closed.

        Every attempt newer than the position begins with `began`, and its text starts at offset 0. Text may come in
        other pieces than it was published in. Never an event of an older attempt than one already yielded; never a
        character twice; never one left out.

        A follower learns of a close only while the stream is stored. Who follows late looks first whether the request
        is already over, and who follows ends the following, with `aclose`, when the request is.

        Args:
            request_id: Whose stream.
            attempt: The attempt of the last event that is known; 0 when none is.
            offset: How much of its text is known: `end` of the last event that is known.

        Raises:
            RelayGap: A character is missing: dropped because the stream is larger than its bound, lost with the relay's
                store, or not published before the request was closed.
        """
        ...

    async def close(self, request_id: str) -> None:
        """Say that the request is over: followers end after what is stored, which is kept for a while longer.

        Never fails, like `publish`.
        """

    async def aclose(self) -> None:
        """Pass on what is still under way, within a bound, and let go of connections. Followers end."""
