"""What the placeholders of a masked request stand for, kept apart from every other text and only while needed."""

from sqlalchemy import Connection, bindparam, delete, select

from holdfast.ledger.database import Database
from holdfast.ledger.schema import vault


class Vault:
    """Placeholder mappings by tenant and request."""

    def __init__(self, database: Database) -> None:
        self._database = database
        this = (vault.c.tenant == bindparam("of_tenant"), vault.c.request_id == bindparam("of_request"))
        self._save = database.insert_or_replace(vault)
        self._load = select(vault.c.mapping).where(*this)
        self._delete = delete(vault).where(*this)

    async def save(self, tenant: str, request_id: str, mapping: dict[str, str]) -> None:
        """Keep a mapping from placeholder to the value it hides.

        The last one saved counts: when sanitizing runs twice, the run goes on with the later result.
        """
        row = {"tenant": tenant, "request_id": request_id, "mapping": mapping}
        await self._database.write(lambda connection: connection.execute(self._save, row).close())

    async def load(self, tenant: str, request_id: str) -> dict[str, str]:
        """The mapping of a request; empty when nothing was masked."""
        key = {"of_tenant": tenant, "of_request": request_id}
        mapping: dict[str, str] | None = await self._database.read(
            lambda reading: reading.execute(self._load, key).scalar_one_or_none()
        )
        return mapping or {}

    async def delete(self, tenant: str, request_id: str) -> None:
        """Forget a mapping; forgetting what is not there is fine."""
        await self._database.write(lambda connection: self.delete_in(connection, tenant, request_id))

    def delete_in(self, connection: Connection, tenant: str, request_id: str) -> None:
        """Inside a transaction: see `delete`."""
        connection.execute(self._delete, {"of_tenant": tenant, "of_request": request_id})
