"""The ledger as one object: every store over one database, and the transaction that ends a request."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from sqlalchemy import Connection

from holdfast.contracts import ContentRef
from holdfast.errors import InvalidInput
from holdfast.ledger.answers import RECALL_FOR, Answers, ExactAnswer
from holdfast.ledger.approval_events import ApprovalEvents
from holdfast.ledger.attempts import Attempts, lock_of_request
from holdfast.ledger.batch_lines import BatchLines
from holdfast.ledger.browser_sessions import BrowserSessions
from holdfast.ledger.budgets import Budgets
from holdfast.ledger.contents import CACHE_BYTES, Contents, digest_of
from holdfast.ledger.counters import Counters
from holdfast.ledger.database import Database
from holdfast.ledger.deliveries import Deliveries, Delivery
from holdfast.ledger.requests import FinishedRequest, Requests
from holdfast.ledger.submissions import Submissions
from holdfast.ledger.tool_calls import ToolCalls
from holdfast.ledger.usage import GroupBy, UsageLine, usage_by
from holdfast.ledger.vault import Vault


@dataclass(frozen=True)
class Reuse:
    """Under what question an answer may be recalled, and what is then given again."""

    masked_sha256: str
    """Digest of the sanitized question."""
    content: ContentRef
    """The validated text, placeholders still in it."""
    passages: ContentRef | None = None
    input_sha256: str | None = None
    """Digest of the input before anything was done to it, if the very same input may be answered at the edge."""


class Ledger:
    """The durable record of texts, spending and answers. Open it with `Ledger.open`."""

    def __init__(
        self, database: Database, *, cache_bytes: int = CACHE_BYTES, recall_for: timedelta = RECALL_FOR
    ) -> None:
        counters = Counters(database)
        self.database = database
        self.contents = Contents(database, cache_bytes=cache_bytes)
        self.vault = Vault(database)
        self.submissions = Submissions(database, self.contents)
        self.batch_lines = BatchLines(database)
        self.attempts = Attempts(database, self.contents, counters, self.batch_lines)
        self.budgets = Budgets(database, counters)
        self.answers = Answers(database, recall_for=recall_for)
        self.requests = Requests(database)
        self.tool_calls = ToolCalls(database, self.contents)
        self.deliveries = Deliveries(database)
        self.approval_events = ApprovalEvents(database, self.deliveries)
        self.browser_sessions = BrowserSessions(database)

    @classmethod
    async def open(cls, url: str, *, cache_bytes: int = CACHE_BYTES, recall_for: timedelta = RECALL_FOR) -> "Ledger":
        """Open the ledger, creating it the first time and bringing an older one up to date.

        Args:
            url: SQLAlchemy URL, e.g. `sqlite+aiosqlite:///var/holdfast.db`.
            cache_bytes: Bound of the in-process cache of texts.
            recall_for: Greatest age at which an exact answer may serve; older ones are deleted.

        Raises:
            ConfigurationError: The URL names no usable database, or a newer version wrote it.
            Unavailable: The database does not answer.
        """
        return cls(await Database.open(url), cache_bytes=cache_bytes, recall_for=recall_for)

    async def finish(
        self,
        finished: FinishedRequest,
        *,
        document: str | None = None,
        reuse: Reuse | None = None,
        forget_vault: bool = False,
        deliveries: Sequence[Delivery] = (),
    ) -> FinishedRequest:
        """End a request: document, final row, exact answer, vault and notifications, in one transaction.

        Finishing again changes nothing and returns what the first time stored.

        Args:
            finished: How it ended. The answer's `document`, `usage` and `attempts` are filled in here: usage and
                attempts are the ledger's own totals at this moment, and the usage also what `delegated` says.
            document: The answer document as JSON, to be stored.
            reuse: Given if the answer may serve an identical question later.
            forget_vault: Whether to delete what the placeholders stood for.
            deliveries: Notifications of the end.

        Returns:
            The final row as stored, and the ids of those notifications that the first time put in line.

        Raises:
            InvalidInput: The document is not valid Unicode.
            Unavailable: The database does not answer; nothing is stored.
        """
        tenant, request_id = finished.tenant, finished.answer.request_id
        digested = None if document is None else digest_of(document)

        def unit(connection: Connection) -> FinishedRequest:
            totals = self.attempts.totals_in(connection, request_id)
            reference = digested and digested.reference
            whole = totals.usage if finished.delegated is None else totals.usage + finished.delegated
            update = {"document": reference, "usage": whole, "attempts": totals.attempts}
            own = None if finished.delegated is None else totals.usage
            stored = replace(finished, answer=finished.answer.model_copy(update=update), own=own)
            if not self.requests.finish_in(connection, stored):
                earlier = self.requests.get_in(connection, tenant, request_id)
                if earlier is None:
                    raise InvalidInput(f"Request {request_id} is another tenant's.", field="request_id")
                known = self.deliveries.known_in(connection, [delivery.id for delivery in deliveries])
                return replace(earlier, deliveries=known)
            if digested is not None:
                self.contents.add(connection, tenant, [digested])
            if reuse is not None:
                self.answers.store_in(
                    connection,
                    tenant,
                    finished.plan_version,
                    reuse.masked_sha256,
                    ExactAnswer(reuse.content, reuse.passages, request_id, document=reference),
                    input_sha256=reuse.input_sha256,
                    now=finished.finished_at,
                )
            if forget_vault:
                self.vault.delete_in(connection, tenant, request_id)
            return replace(stored, deliveries=self.deliveries.add_in(connection, deliveries))

        stored = await self.database.write(unit, [lock_of_request(request_id)])
        if digested is not None and stored.answer.document == digested.reference:
            self.contents.remember(tenant, [digested])
        return stored

    async def usage(
        self,
        by: GroupBy,
        *,
        tenant: str | None = None,
        since: date | None = None,
        until: date | None = None,
    ) -> tuple[UsageLine, ...]:
        """What was spent, by tenant, user, agent, model, day or deployment.

        Args:
            by: What one line is about.
            tenant: Only this one's calls.
            since: First day, UTC, by the opening of the call.
            until: Last day, UTC, included.

        Returns:
            One line for each name, in the order of the names; what has no name comes last.
        """
        return await self.database.read(lambda reading: usage_by(reading, by, tenant=tenant, since=since, until=until))

    async def aclose(self) -> None:
        """Close the database."""
        await self.database.aclose()
