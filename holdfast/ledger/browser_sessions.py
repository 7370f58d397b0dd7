"""Who is signed in at which browser: one row for each session, so that every gateway knows at once when one is over.

The row has a digest of what the browser holds, which cannot be turned back into it: whoever reads the ledger can use
nobody's session.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from holdfast.ledger.database import Database
from holdfast.ledger.schema import browser_sessions

MOST_AT_ONCE = 500
"""Sessions asked about in one statement; databases bound how many values one may have."""


class SessionOwner(NamedTuple):
    """Whose session it is."""

    tenant: str
    user: str


class BrowserSessions:
    """Sessions by the digest of what the browser holds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        table = browser_sessions
        open_now = (table.c.ended_at.is_(None), table.c.expires_at > bindparam("now"))
        this = table.c.session_sha256 == bindparam("of_session")
        self._insert = insert(table)
        self._prune = delete(table).where(table.c.expires_at <= bindparam("now"))
        self._owner = select(table.c.tenant, table.c.user).where(this, *open_now)
        self._end = update(table).where(this, *open_now).values(ended_at=bindparam("now"))
        some = table.c.session_sha256.in_(bindparam("some", expanding=True))
        self._open = select(table.c.session_sha256).where(some, *open_now)

    async def open(self, session_sha256: str, owner: SessionOwner, now: datetime, expires_at: datetime) -> None:
        """Begin a session, and forget those whose time is over.

        Args:
            session_sha256: Digest of what the browser holds.
            owner: Who signed in.
            now: The present.
            expires_at: When it ends by itself.

        Raises:
            Unavailable: The database does not answer; nobody is signed in.
        """
        row = {
            "session_sha256": session_sha256,
            "tenant": owner.tenant,
            "user": owner.user,
            "opened_at": now,
            "expires_at": expires_at,
        }

        def unit(connection: Connection) -> None:
            connection.execute(self._prune, {"now": now})
            connection.execute(self._insert, row)

        await self._database.write(unit)

    async def owner(self, session_sha256: str, now: datetime) -> SessionOwner | None:
        """Whose session it is; `None` when it has ended, its time is over, or nobody opened it.

        Raises:
            Unavailable: The database does not answer.
        """
        key = {"of_session": session_sha256, "now": now}
        row = await self._database.read(lambda reading: reading.execute(self._owner, key).one_or_none())
        return None if row is None else SessionOwner(row.tenant, row.user)

    async def still_open(self, digests: Iterable[str], now: datetime) -> frozenset[str]:
        """Those of the sessions that have not ended.

        Raises:
            Unavailable: The database does not answer.
        """
        asked = sorted(set(digests))
        parts = [asked[start : start + MOST_AT_ONCE] for start in range(0, len(asked), MOST_AT_ONCE)]

        def unit(reading: Connection) -> frozenset[str]:
            found = [reading.execute(self._open, {"some": part, "now": now}).scalars() for part in parts]
            return frozenset(digest for part in found for digest in part)

        return await self._database.read(unit)

    async def end(self, session_sha256: str, now: datetime) -> bool:
        """End a session for every gateway; one that has ended stays as it is.

        Returns:
            Whether it was open.

        Raises:
            Unavailable: The database does not answer; the session is still open.
        """
        key = {"of_session": session_sha256, "now": now}
        return await self._database.write(lambda connection: connection.execute(self._end, key).rowcount == 1)
