"""Idempotency keys: the first submission under a key decides which request the key stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, select

from holdfast.errors import IdempotencyConflict
from holdfast.ledger.contents import Contents, digest_of
from holdfast.ledger.database import Database
from holdfast.ledger.schema import submissions


@dataclass(frozen=True)
class Claim:
    """Which request a key stands for."""

    request_id: str
    created: bool
    """Whether this submission was the first. If not, the first one's caller may have died before the run started, so
    start it all the same: the engine refuses a second run of the same id."""


class Submissions:
    """Idempotency keys by tenant."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self._insert = database.insert_once(submissions)
        self._select = select(submissions.c.request_id, submissions.c.body_sha256).where(
            submissions.c.tenant == bindparam("of_tenant"), submissions.c.idempotency_key == bindparam("key")
        )

    async def claim(
        self, tenant: str, key: str, *, body_sha256: str, request_id: str, texts: Sequence[str] = ()
    ) -> Claim:
        """Claim a key for a request, and store the texts that the request refers to, in one transaction.

        Args:
            tenant: The owner of the key.
            key: The client's idempotency key.
            body_sha256: Digest of the request body, to tell a repetition from a mistake.
            request_id: The id that the request gets if the key is new.
            texts: Input and plan texts to put in the content store.

        Raises:
            IdempotencyConflict: The key was used with another body; nothing is stored.
            InvalidInput: A text is not valid Unicode.
        """
        digested = [digest_of(text) for text in texts]
        row = {
            "tenant": tenant,
            "idempotency_key": key,
            "body_sha256": body_sha256,
            "request_id": request_id,
            "created_at": datetime.now(UTC),
        }

        def unit(connection: Connection) -> Claim:
            if connection.execute(self._insert, row).rowcount == 1:
                self._contents.add(connection, tenant, digested)
                return Claim(request_id, created=True)
            first = connection.execute(self._select, {"of_tenant": tenant, "key": key}).one()
            if first.body_sha256 != body_sha256:
                raise IdempotencyConflict(
                    f"The idempotency key was used for request {first.request_id} with a different body. "
                    "Send the same body again, or use a new key."
                )
            return Claim(first.request_id, created=False)

        claim = await self._database.write(unit)
        if claim.created:
            self._contents.remember(tenant, digested)
        return claim
