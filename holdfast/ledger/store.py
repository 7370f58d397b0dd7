"""What the ledger needs of a database: transactions, reads, and one language for what goes wrong."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeVar

from sqlalchemy import Connection

from holdfast.errors import HoldfastError

Result = TypeVar("Result")


class Conflicted(HoldfastError):
    """The database undid a transaction in favour of another one; run again, it may succeed. Never leaves the ledger."""


class Store(Protocol):
    """One database. Work is a plain function over a SQLAlchemy connection; how it is run differs by database."""

    dialect: Literal["sqlite", "postgresql"]
    location: str
    """The URL without its password, for messages."""
    savepoints_are_cheap: bool
    """Whether a savepoint costs next to nothing, or a round trip to a server."""

    async def transact(self, work: Callable[[Connection], Result], locks: Iterable[str]) -> Result:
        """Run work in one transaction: committed if it returns, rolled back if it raises.

        Never called twice at a time. `locks` are held until the end, taken in one order by every process.

        Raises:
            Unavailable: The database does not answer.
            Conflicted: Another transaction won.
        """
        ...

    def savepoint(self, connection: Connection) -> AbstractContextManager[None]:
        """Inside `transact`: a block whose effects are undone if it raises."""
        ...

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run work that only reads. Each statement sees the latest committed state.

        Raises:
            Unavailable: The database does not answer.
        """
        ...

    def translated(self, error: Exception) -> Exception:
        """A driver's error as `Unavailable` or `Conflicted` where it means that, else as it is."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
