"""What a tool is told about the call beside its arguments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.contracts import Passage


class Searches(Protocol):
    """What tools see of `holdfast.knowledge.Knowledge`."""

    async def retrieve(self, tenant: str, collection: str, query: str, limit: int) -> Sequence[Passage]:
        """Find the passages nearest to a query, best first."""
        ...


@dataclass(frozen=True)
class ToolContext:
    """Handed to a tool that asks for it with a parameter of this type; a model neither sees nor sets it."""

    idempotency_key: str
    """The same in every repetition of one call and in no other call: 32 hexadecimal digits. Pass it on to whatever
    must happen once."""
    tenant: str
    user: str
    """Who asked the question that led to the call. Authorise by this, never by an argument."""
    session: str | None
    agent: str
    request_id: str
    key: str
    """Turn and position of the call in its request, `3.0`."""
    knowledge: Searches | None = None
    """The passages of all tenants; search with `tenant`."""
