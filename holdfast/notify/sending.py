"""What came of one attempt to tell somebody, whichever way."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Attempted:
    """What came of it."""

    problem: str = ""
    """Empty if it was accepted. Names no address and holds no secret: it goes into histories, logs and the ledger."""
    for_good: bool = False
    """Whether another attempt would be pointless."""
    retry_after: timedelta | None = None
    """What the target asked for."""
