"""The log of calls: every one that could be read, also those that were turned away and so are on no bill.

A test reads from it how many calls arrived, in which order, with which key, and how each ended.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

from simulator.behaviour import Kind
from simulator.wire import WireName

MOST_CALLS = 200_000
_DIGEST_CHARACTERS = 12

Ended = Literal["answered", "client_left", "broken"]


@lru_cache(maxsize=1024)
def credential_digest(api_key: str) -> str:
    """What stands for an API key on the bill and in the log: the key itself is kept nowhere."""
    return sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]


def written_time(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339 with microseconds, so that texts sort as times do."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


@dataclass(slots=True)
class Call:
    """One call."""

    arrived: float
    """Seconds since 1970."""
    format: WireName
    model: str
    kind: Kind
    credential: str | None
    """Digest of its API key."""
    client_request_id: str | None
    bill_id: str | None = None
    """The entry on the bill, once it is accepted for generation."""
    status: int | None = None
    """HTTP status, once the call has ended; `None` when no response was begun."""
    ended: Ended | None = None
    """`None` while it runs; `broken` when the simulator closed the connection."""

    def as_json(self) -> dict[str, Any]:
        """The call as `GET /_simulator/calls` shows it."""
        return {
            "arrived_at": written_time(self.arrived),
            "format": self.format,
            "model": self.model,
            "kind": self.kind,
            "credential": self.credential,
            "client_request_id": self.client_request_id,
            "bill_id": self.bill_id,
            "status": self.status,
            "ended": self.ended,
        }


class Calls:
    """The latest calls, in the order of their arrival."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)

    def add(self, call: Call) -> None:
        """Log a call that arrived."""
        self._calls.append(call)

    def reset(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def as_json(self, model: str | None = None) -> list[dict[str, Any]]:
        """The calls of one model, or of all."""
        return [call.as_json() for call in self._calls if model in (None, call.model)]
