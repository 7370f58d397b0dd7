"""What one connection has sent without being asked, against what it may send; and why it ended."""

import asyncio

MAX_MESSAGE = 4 * 1024 * 1024
"""Most bytes of one message."""
MAX_UNASKED = 64 * 1024 * 1024
"""Most bytes between two requests of ours. Eight results under way at a time are half of it."""
LEAST_CHARGE = 1024
"""What the smallest message counts, for it costs time and not only room."""
REQUEST_CHARGE = 16 * 1024
"""What a request of the server's counts, for each has to be answered."""


class Watch:
    """One connection's account.

    Args:
        server: The server's name, for reasons.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.ended = asyncio.Event()
        """Set when the connection may not or cannot go on."""
        self.reason = ""
        """Why, in words without any of the server's."""
        self.changed = False
        """Whether the server said that its tools have changed."""
        self.junk = 0
        """Lines that were no messages."""
        self._unasked = 0

    def sent(self) -> None:
        """A request of ours goes out, so the server has reason to send."""
        self._unasked = 0

    def received(self, size: int, *, least: int = LEAST_CHARGE) -> bool:
        """Count what came.

        Returns:
            Whether the connection may go on; if not, it has been ended.
        """
        self._unasked += max(size, least)
        if self._unasked > MAX_UNASKED:
            self.end(f"it sent more than {MAX_UNASKED // 1024 // 1024} MB that nobody had asked for")
        return not self.ended.is_set()

    def end(self, reason: str) -> None:
        """End the connection; the first reason stays."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()
