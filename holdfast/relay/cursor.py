"""One follower's place in a stream. Pure: it decides what the follower is given next, whatever the events come from."""

from holdfast.contracts import StreamEvent
from holdfast.errors import RelayGap

_MAXIMUM = 2**51


class Cursor:
    """Turns events as they were stored, possibly twice or overlapping, into each character once.

    Args:
        request_id: Whose stream, for messages.
        attempt: The attempt of the follower's last event; 0 when it has none.
        offset: How many characters of that attempt the follower has.
    """

    __slots__ = ("attempt", "ended", "offset", "request_id")

    def __init__(self, request_id: str, attempt: int = 0, offset: int = 0) -> None:
        self.request_id = request_id
        # A client names its own position; Redis refuses numbers beyond 64 bits, and Lua loses digits beyond 53.
        self.attempt = max(0, min(attempt, _MAXIMUM))
        self.offset = max(0, min(offset, _MAXIMUM))
        self.ended = False

    def take(self, event: StreamEvent) -> tuple[StreamEvent, ...]:
        """Advance over an event.

        Returns:
            What the follower has not had yet: nothing, the event or the end of its text, and before it `began` if the
            event is the first of its attempt and another kind.

        Raises:
            RelayGap: Characters before the event are missing.
        """
        if event.attempt < self.attempt:
            return ()
        fresh = event.attempt > self.attempt
        offset, ended = (0, False) if fresh else (self.offset, self.ended)
        if event.offset > offset and not ended:
            raise RelayGap(
                f"Characters {offset} to {event.offset} of attempt {event.attempt} of request {self.request_id} are "
                "no longer in the relay: read the final answer instead."
            )
        self.attempt, self.offset, self.ended = event.attempt, offset, ended
        due: tuple[StreamEvent, ...] = (_began(event),) if fresh else ()
        if ended or event.kind == "began":
            return due
        if event.kind != "text":
            if event.offset == offset:
                self.ended = True
                due += (event,)
        elif event.end > offset:
            self.offset = event.end
            due += (event if event.offset == offset else _rest(event, offset),)
        return due

    def check_complete(self) -> None:
        """Check, when the request was closed, that the follower has all of the last attempt.

        Raises:
            RelayGap: The attempt neither ended nor failed, so nobody knows what is missing.
        """
        if self.attempt and not self.ended:
            raise RelayGap(
                f"Request {self.request_id} was closed in the middle of attempt {self.attempt}: "
                "read the final answer instead."
            )


def _began(event: StreamEvent) -> StreamEvent:
    if event.kind == "began":
        return event
    return StreamEvent(request_id=event.request_id, attempt=event.attempt, offset=0, kind="began")


def _rest(event: StreamEvent, offset: int) -> StreamEvent:
    text = event.text[offset - event.offset :]
    return StreamEvent(request_id=event.request_id, attempt=event.attempt, offset=offset, kind="text", text=text)
