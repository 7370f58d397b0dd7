"""The simulator's own bill: what a provider would charge, whatever the client saw of it.

A request is entered the moment it is accepted for generation, and its completion tokens before they are written to the
connection, so the bill is never behind what a client has received. With a file, every change is one JSON line written
at once; a simulator that is killed finds its bill again when it starts.
"""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MOST_ENTRIES = 200_000
"""Entries kept in memory; totals keep counting when older entries are dropped."""


@dataclass(slots=True)
class BillEntry:
    """One request that was accepted for generation."""

    id: str
    """The completion's id, as in the response."""
    model: str
    client_request_id: str | None
    """The request's `X-Client-Request-Id`."""
    prompt_tokens: int
    completion_tokens: int = 0
    completed: bool = False
    """Whether the whole answer was handed to the connection."""
    period: int = 0
    """Which bill it belongs to: a reset starts the next, and calls still running then count nowhere."""

    def as_json(self) -> dict[str, Any]:
        """The entry as `GET /_simulator/bill` shows it."""
        return {
            "id": self.id,
            "model": self.model,
            "client_request_id": self.client_request_id,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "completed": self.completed,
        }


class BillFileError(Exception):
    """A bill file that cannot be continued. The message names the file and line."""


class Bill:
    """Totals and the latest entries.

    Args:
        path: JSON-lines file to continue and append to; `None` keeps the bill in memory only.
        most_entries: Entries to keep in memory.

    Raises:
        BillFileError: The file cannot be opened, or a complete line of it is not a bill event.
    """

    def __init__(self, path: Path | None = None, *, most_entries: int = MOST_ENTRIES) -> None:
        self.requests = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.entries: deque[BillEntry] = deque(maxlen=most_entries)
        self._period = 0
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._continue(path)
                # Unbuffered: a line is with the operating system before the call returns, so SIGKILL loses nothing.
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                raise BillFileError(f"Bill {str(path)!r} cannot be opened: {error.strerror}.") from error

    def accept(self, id: str, model: str, client_request_id: str | None, prompt_tokens: int) -> BillEntry:
        """Enter a request; its prompt is billed from here on."""
        entry = self._accept(id, model, client_request_id, prompt_tokens)
        self._write({"event": "accepted", "id": id, "model": model, "client_request_id": client_request_id,
                     "prompt_tokens": prompt_tokens})  # fmt: skip
        return entry

    def produce(self, entry: BillEntry, tokens: int) -> None:
        """Bill further completion tokens of a request."""
        if tokens and entry.period == self._period:
            self._produce(entry, tokens)
            self._write({"event": "produced", "id": entry.id, "tokens": tokens})

    def complete(self, entry: BillEntry) -> None:
        """Mark that nothing of the answer is missing; nothing may be produced after it."""
        if entry.period == self._period:
            entry.completed = True
            self._write({"event": "completed", "id": entry.id})

    def reset(self) -> None:
        """Start a new bill."""
        self._reset()
        self._write({"event": "reset"})

    def as_json(self, *, entries: bool = True) -> dict[str, Any]:
        """The bill as `GET /_simulator/bill` shows it, oldest entry first."""
        totals: dict[str, Any] = {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        return totals | {"entries": [entry.as_json() for entry in self.entries]} if entries else totals

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _accept(self, id: str, model: str, client_request_id: str | None, prompt_tokens: int) -> BillEntry:
        entry = BillEntry(id, model, client_request_id, prompt_tokens, period=self._period)
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.entries.append(entry)
        return entry

    def _produce(self, entry: BillEntry, tokens: int) -> None:
        entry.completion_tokens += tokens
        self.completion_tokens += tokens

    def _reset(self) -> None:
        self._period += 1
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self.entries.clear()

    def _write(self, event: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def _continue(self, path: Path) -> None:
        """Replay a file, first cutting off a line that a kill left half written."""
        if not path.exists():
            return
        open_entries: dict[str, BillEntry] = {}
        with path.open("r+b") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    file.truncate(path.stat().st_size - len(line))
                    break
                try:
                    self._replay(json.loads(line), open_entries)
                except (ValueError, KeyError, TypeError) as error:
                    raise BillFileError(
                        f"Bill {str(path)!r}, line {number}, is not a bill event; move the file away to start anew."
                    ) from error

    def _replay(self, event: dict[str, Any], open_entries: dict[str, BillEntry]) -> None:
        match event["event"]:
            case "accepted":
                open_entries[event["id"]] = self._accept(
                    event["id"], event["model"], event["client_request_id"], event["prompt_tokens"]
                )
            case "produced":
                self._produce(open_entries[event["id"]], event["tokens"])
            case "completed":
                open_entries.pop(event["id"]).completed = True
            case "reset":
                self._reset()
                open_entries.clear()
            case other:
                raise ValueError(other)
