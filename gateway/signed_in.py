"""Ends what goes on for people who are signed in no longer: a stream of events is a call that was checked long ago.

All sessions with something open are asked about together, on a clock and only while there are any; a session that is
signed out of through this gateway is told at once. While the ledger does not answer, nobody counts as signed in.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.sse import encode
from holdfast.errors import Unavailable
from holdfast.ledger import BrowserSessions

logger = logging.getLogger("holdfast.gateway")

LOOK_EVERY = timedelta(seconds=2)


@dataclass
class Watched:
    """A session with something open."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once what is open has to end."""
    ended: bool = False
    """Whether the session has ended; otherwise nobody could tell."""
    readers: int = 0


class SignedIn:
    """The sessions with something open.

    Args:
        sessions: The ledger's record of sessions.
        every: How often to look.
    """

    def __init__(self, sessions: BrowserSessions, every: timedelta = LOOK_EVERY) -> None:
        self._sessions = sessions
        self._every = every.total_seconds()
        self._watched: dict[str, Watched] = {}
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self, session_id: str) -> AsyncIterator[Watched]:
        """Watch a session for the duration of the block."""
        watched = self._watched.setdefault(session_id, Watched())
        watched.readers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="watch sessions")
        try:
            yield watched
        finally:
            watched.readers -= 1
            if not watched.readers and self._watched.get(session_id) is watched:
                del self._watched[session_id]
            if not self._watched and self._task is not None:
                self._task.cancel()
                self._task = None

    def end(self, session_id: str) -> None:
        """End what is open for a session that was signed out of here."""
        self._end(session_id, ended=True)

    def _end(self, session_id: str, *, ended: bool) -> None:
        # Taken out, so that a reader that comes now is asked about anew.
        if (watched := self._watched.pop(session_id, None)) is not None:
            watched.ended = ended
            watched.over.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            asked = tuple(self._watched)
            try:
                found = await self._sessions.still_open(asked, datetime.now(UTC))
            except Exception as error:
                # Whatever it is, a stream that nobody checks any longer must not go on.
                if not isinstance(error, Unavailable):
                    logger.error("sessions cannot be looked at: %s", type(error).__name__, exc_info=error)
                for session_id in asked:
                    self._end(session_id, ended=False)
            else:
                for session_id in asked:
                    if session_id not in found:
                        self._end(session_id, ended=True)


class WhileSignedIn(Response):
    """A response that ends when its reader's session does, with the event `signed-out` as its last.

    Args:
        response: What is sent until then; a stream of events.
        signed_in: Watches the session.
        session_id: Whose.
    """

    def __init__(self, response: Response, signed_in: SignedIn, session_id: str) -> None:
        self._response = response
        self._signed_in = signed_in
        self._session_id = session_id
        super().__init__(status_code=response.status_code)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        begun = closed = False

        async def pass_on(message: Message) -> None:
            nonlocal begun, closed
            begun = begun or message["type"] == "http.response.start"
            closed = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async with self._signed_in.watching(self._session_id) as watched:
            sending = asyncio.ensure_future(self._response(scope, receive, pass_on))
            over = asyncio.create_task(watched.over.wait())
            try:
                await asyncio.wait((sending, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, over):
                    task.cancel()
                await asyncio.gather(sending, over, return_exceptions=True)
            if sending.done() and not sending.cancelled():
                sending.result()
                return
        if closed:
            return
        if not begun:
            await send({"type": "http.response.start", "status": 200, "headers": self._response.raw_headers})
        last = encode(json.dumps({}), event="signed-out") if watched.ended else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})
