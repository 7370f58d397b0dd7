"""The ledger as one object: every store over one database, and the transaction that ends a request."""

from dataclasses import dataclass, replace

from holdfast.contracts import ContentRef
from holdfast.errors import InvalidInput
from holdfast.ledger.answers import Answers, ExactAnswer
from holdfast.ledger.attempts import Attempts
from holdfast.ledger.contents import CACHE_BYTES, Contents, digest_of
from holdfast.ledger.database import Database
from holdfast.ledger.health import Health
from holdfast.ledger.requests import FinishedRequest, Requests
from holdfast.ledger.submissions import Submissions
from holdfast.ledger.vault import Vault


@dataclass(frozen=True)
class Reuse:
    """Under what question an answer may be recalled, and what is then given again."""

    masked_sha256: str
    """Digest of the sanitized question."""
    content: ContentRef
    """The validated text, placeholders still in it."""
    passages: ContentRef | None = None


class Ledger:
    """The durable record of texts, spending, answers and health. Open it with `Ledger.open`."""

    def __init__(self, database: Database, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.database = database
        self.contents = Contents(database, cache_bytes=cache_bytes)
        self.vault = Vault(database)
        self.submissions = Submissions(database, self.contents)
        self.attempts = Attempts(database, self.contents)
        self.answers = Answers(database)
        self.requests = Requests(database)
        self.health = Health(database)

    @classmethod
    async def open(cls, url: str, *, cache_bytes: int = CACHE_BYTES) -> "Ledger":
        """Open the ledger, creating it the first time.

        Args:
            url: SQLAlchemy URL, e.g. `sqlite+aiosqlite:///var/holdfast.db`.
            cache_bytes: Bound of the in-process cache of texts.

        Raises:
            ConfigurationError: The URL names no usable database, or a newer version wrote it.
            Unavailable: The database does not answer.
        """
        return cls(await Database.open(url), cache_bytes=cache_bytes)

    async def finish(
        self,
        finished: FinishedRequest,
        *,
        document: str | None = None,
        reuse: Reuse | None = None,
        forget_vault: bool = False,
    ) -> FinishedRequest:
        """End a request: its document, its final row, its exact answer and its vault, in one transaction.

        Finishing again changes nothing and returns what the first time stored.

        Args:
            finished: How it ended. The answer's `document`, `usage` and `attempts` are filled in here: usage and
                attempts are the ledger's own totals at this moment.
            document: The answer document as JSON, to be stored.
            reuse: Given if the answer may serve an identical question later.
            forget_vault: Whether to delete what the placeholders stood for.

        Returns:
            The final row as stored.

        Raises:
            InvalidInput: The document is not valid Unicode.
            Unavailable: The database does not answer; nothing is stored.
        """
        tenant, request_id = finished.tenant, finished.answer.request_id
        async with self.database.write() as connection:
            await self.database.lock(connection, f"holdfast.requests.{request_id}")
            totals = await self.attempts.totals(request_id, connection=connection)
            reference = None if document is None else digest_of(document).reference
            update = {"document": reference, "usage": totals.usage, "attempts": totals.attempts}
            stored = replace(finished, answer=finished.answer.model_copy(update=update))
            if not await self.requests.finish(stored, connection=connection):
                earlier = await self.requests.get(tenant, request_id, connection=connection)
                if earlier is None:
                    raise InvalidInput(f"Request {request_id} is another tenant's.", field="request_id")
                return earlier
            if document is not None:
                await self.contents.put(tenant, document, connection=connection)
            if reuse is not None:
                exact = ExactAnswer(reuse.content, reuse.passages, request_id)
                await self.answers.store(
                    tenant,
                    finished.plan_version,
                    reuse.masked_sha256,
                    exact,
                    now=finished.finished_at,
                    connection=connection,
                )
            if forget_vault:
                await self.vault.delete(tenant, request_id, connection=connection)
        if document is not None:
            self.contents.remember(tenant, (document,))
        return stored

    async def aclose(self) -> None:
        """Close the database."""
        await self.database.aclose()
