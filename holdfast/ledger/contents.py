"""Immutable texts, named by the digest of their bytes. Whatever is long or private lives here and travels by name."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from holdfast.contracts import ContentRef
from holdfast.errors import ContentMissing, InvalidInput
from holdfast.ledger.database import Database
from holdfast.ledger.schema import contents

CACHE_BYTES = 32 * 1024 * 1024
"""Texts kept in a process's memory, all tenants together."""


class Digested(NamedTuple):
    """A text with the bytes and the reference that stand for it."""

    reference: ContentRef
    text: str
    data: bytes


class Contents:
    """The content store. A tenant never reads another's text, not even one whose digest it knows.

    Args:
        database: Where the texts are.
        cache_bytes: Bound of the in-process cache, in bytes of UTF-8.
    """

    def __init__(self, database: Database, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._database = database
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()
        self._insert = database.insert_once(contents)
        self._select = select(contents.c.sha256, contents.c.text).where(
            contents.c.tenant == bindparam("tenant"),
            contents.c.sha256.in_(bindparam("digests", expanding=True)),
        )

    async def put(self, tenant: str, text: str) -> ContentRef:
        """Store a text; storing it again changes nothing.

        Args:
            tenant: The owner.
            text: Any valid Unicode.

        Raises:
            InvalidInput: The text holds a lone surrogate, so no bytes stand for it.
        """
        return (await self.put_many(tenant, (text,)))[0]

    async def put_many(self, tenant: str, texts: Iterable[str]) -> tuple[ContentRef, ...]:
        """Store several texts at once; see `put`.

        Returns:
            Their references, in order.
        """
        digested = [digest_of(text) for text in texts]
        fresh = [one for one in digested if (tenant, one.reference.sha256) not in self._cache]
        if fresh:
            await self._database.write(lambda connection: self.add(connection, tenant, fresh))
            self.remember(tenant, fresh)
        return tuple(one.reference for one in digested)

    def add(self, connection: Connection, tenant: str, digested: Iterable[Digested]) -> None:
        """Store texts inside a transaction. After its commit, `remember` them."""
        now = datetime.now(UTC)
        rows = {
            one.reference.sha256: {
                "tenant": tenant,
                "sha256": one.reference.sha256,
                "size": one.reference.size,
                "text": one.data,
                "created_at": now,
            }
            for one in digested
            if (tenant, one.reference.sha256) not in self._cache
        }
        if rows:
            # In one order for all, or two transactions could wait for each other's rows on PostgreSQL.
            connection.execute(self._insert, [rows[sha256] for sha256 in sorted(rows)])

    async def get(self, tenant: str, reference: ContentRef) -> str:
        """The text that a reference names.

        Raises:
            ContentMissing: The tenant has no such text.
        """
        return (await self.get_many(tenant, (reference,)))[0]

    async def get_many(self, tenant: str, references: Sequence[ContentRef]) -> tuple[str, ...]:
        """Several texts, in the order of their references; see `get`."""
        found: dict[str, str] = {}
        for reference in references:
            if (cached := self._cache.get((tenant, reference.sha256))) is not None:
                self._cache.move_to_end((tenant, reference.sha256))
                found[reference.sha256] = cached[0]
        absent = list({reference.sha256 for reference in references} - found.keys())
        if absent:
            key = {"tenant": tenant, "digests": absent}
            for sha256, data in await self._database.read(lambda reading: reading.execute(self._select, key).all()):
                found[sha256] = data.decode()
                self._keep(tenant, sha256, found[sha256], len(data))
        for reference in references:
            if reference.sha256 not in found:
                raise ContentMissing(
                    f"Content {reference.sha256} of tenant {tenant!r} is not in the ledger: it was pruned, or the "
                    "reference comes from another installation. Submit the request again."
                )
        return tuple(found[reference.sha256] for reference in references)

    def remember(self, tenant: str, digested: Iterable[Digested]) -> None:
        """Cache texts that a transaction has stored. Only for after its commit: what is cached is not stored again."""
        for one in digested:
            self._keep(tenant, one.reference.sha256, one.text, one.reference.size)

    def _keep(self, tenant: str, sha256: str, text: str, size: int) -> None:
        if size > self._cache_bytes or (tenant, sha256) in self._cache:
            return
        self._cache[tenant, sha256] = (text, size)
        self._cached_bytes += size
        while self._cached_bytes > self._cache_bytes:
            _, (_, dropped) = self._cache.popitem(last=False)
            self._cached_bytes -= dropped


def digest_of(text: str) -> Digested:
    """The UTF-8 bytes of a text and the reference that names them.

    Raises:
        InvalidInput: The text holds a lone surrogate.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"The text is not valid Unicode: a lone surrogate stands at character {error.start}. "
            "Replace it; it is half of a character."
        ) from None
    return Digested(ContentRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data)), text, data)
