"""The simulator's own bill: what a provider would charge, whatever the client saw of it.

A request is entered the moment it is accepted for generation, and its completion tokens before they are written to the
connection, so the bill is never behind what a client has received. With a file, every change is one JSON line written
at once; a simulator that is killed finds its bill again when it starts.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from simulator.calls import written_time
from simulator.prices import Price, Prompt

MOST_ENTRIES = 200_000
"""Entries kept in memory; totals keep counting when older entries are dropped."""


@dataclass(slots=True)
class BillEntry:
    """One request that was accepted for generation."""

    id: str
    """The completion's id, as in the response."""
    model: str
    client_request_id: str | None
    """The request's `X-Client-Request-Id`; in a batch, its `custom_id`."""
    prompt: Prompt
    credential: str | None = None
    """Digest of the API key."""
    batch: bool = False
    """Whether it was part of a batch, at half the price."""
    accepted: float = 0.0
    """Seconds since 1970."""
    output_tokens: int = 0
    completed: bool = False
    """Whether the whole answer was handed to the connection."""
    period: int = 0
    """Which bill it belongs to: a reset starts the next, and calls still running then count nowhere."""


@dataclass(slots=True)
class _Sum:
    """What requests of one model at one price add up to."""

    requests: int = 0
    prompt: Prompt = field(default_factory=lambda: Prompt(0))
    output_tokens: int = 0

    def add(self, requests: int, prompt: Prompt, output_tokens: int) -> None:
        self.requests += requests
        self.prompt = Prompt(*(one + other for one, other in zip(self.prompt, prompt, strict=True)))
        self.output_tokens += output_tokens


class BillFileError(Exception):
    """A bill file that cannot be continued. The message names the file and line."""


class Bill:
    """Totals and the latest entries.

    Args:
        path: JSON-lines file to continue and append to; `None` keeps the bill in memory only.
        price: The price of a model; `None` for a model that has none.
        most_entries: Entries to keep in memory.

    Raises:
        BillFileError: The file cannot be opened, or a complete line of it is not a bill event.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        price: Callable[[str], Price | None] = lambda _: None,
        most_entries: int = MOST_ENTRIES,
    ) -> None:
        self.entries: deque[BillEntry] = deque(maxlen=most_entries)
        self._sums: dict[tuple[str, bool], _Sum] = {}
        self._price = price
        self._period = 0
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._continue(path)
                # Unbuffered: a line is with the operating system before the call returns, so SIGKILL loses nothing.
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                raise BillFileError(f"Bill {str(path)!r} cannot be opened: {error.strerror}.") from error

    def accept(
        self,
        id: str,
        model: str,
        client_request_id: str | None,
        prompt: Prompt,
        *,
        credential: str | None = None,
        batch: bool = False,
    ) -> BillEntry:
        """Enter a request; its prompt is billed from here on."""
        entry = BillEntry(id, model, client_request_id, prompt, credential, batch, time.time())
        self._accept(entry)
        if self._file is not None:
            self._write({"event": "accepted", "id": id, "model": model, "client_request_id": client_request_id,
                         "prompt": list(prompt), "credential": credential, "batch": batch,
                         "accepted": entry.accepted})  # fmt: skip
        return entry

    def produce(self, entry: BillEntry, tokens: int) -> None:
        """Bill further completion tokens of a request."""
        if tokens and entry.period == self._period:
            self._produce(entry, tokens)
            if self._file is not None:
                self._write({"event": "produced", "id": entry.id, "tokens": tokens})

    def complete(self, entry: BillEntry) -> None:
        """Mark that nothing of the answer is missing; nothing may be produced after it."""
        if entry.period == self._period:
            entry.completed = True
            if self._file is not None:
                self._write({"event": "completed", "id": entry.id})

    def reset(self) -> None:
        """Start a new bill."""
        self._reset()
        if self._file is not None:
            self._write({"event": "reset"})

    def as_json(self, *, entries: bool = True) -> dict[str, Any]:
        """The bill as `GET /_simulator/bill` shows it, oldest entry first.

        The four kinds of tokens are disjoint: `prompt_tokens` is the sum of the first three, `completion_tokens` is
        `output_tokens`. `cost_usd` is exact; it stands where every model concerned has a price.
        """
        models: dict[str, tuple[_Sum, Decimal | None]] = {}
        for (model, batch), sum_ in self._sums.items():
            price = self._price(model)
            total, cost = models.get(model, (_Sum(), Decimal(0)))
            total.add(sum_.requests, sum_.prompt, sum_.output_tokens)
            more = None if price is None else price.cost(sum_.prompt, sum_.output_tokens, batch=batch)
            models[model] = total, None if cost is None or more is None else cost + more
        whole, costs = _Sum(), [cost for _, cost in models.values()]
        for total, _ in models.values():
            whole.add(total.requests, total.prompt, total.output_tokens)
        known = [cost for cost in costs if cost is not None]
        shown = _shown(whole, sum(known, Decimal(0)) if known and len(known) == len(costs) else None)
        shown["models"] = {model: _shown(total, cost) for model, (total, cost) in sorted(models.items())}
        return shown | {"entries": [self._shown_entry(entry) for entry in self.entries]} if entries else shown

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _shown_entry(self, entry: BillEntry) -> dict[str, Any]:
        price = self._price(entry.model)
        cost = None if price is None else price.cost(entry.prompt, entry.output_tokens, batch=entry.batch)
        return {
            "id": entry.id,
            "model": entry.model,
            "client_request_id": entry.client_request_id,
            "credential": entry.credential,
            "accepted_at": written_time(entry.accepted),
            "batch": entry.batch,
            **_shown_tokens(entry.prompt, entry.output_tokens, cost),
            "completed": entry.completed,
        }

    def _accept(self, entry: BillEntry) -> None:
        entry.period = self._period
        key = (entry.model, entry.batch)
        if key not in self._sums:
            self._sums[key] = _Sum()
        self._sums[key].add(1, entry.prompt, 0)
        self.entries.append(entry)

    def _produce(self, entry: BillEntry, tokens: int) -> None:
        entry.output_tokens += tokens
        self._sums[entry.model, entry.batch].output_tokens += tokens

    def _reset(self) -> None:
        self._period += 1
        self._sums.clear()
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
                entry = BillEntry(
                    event["id"],
                    event["model"],
                    event["client_request_id"],
                    Prompt(*event["prompt"]),
                    event["credential"],
                    event["batch"],
                    event["accepted"],
                )
                self._accept(entry)
                open_entries[entry.id] = entry
            case "produced":
                self._produce(open_entries[event["id"]], event["tokens"])
            case "completed":
                open_entries.pop(event["id"]).completed = True
            case "reset":
                self._reset()
                open_entries.clear()
            case other:
                raise ValueError(other)


def _shown(sum_: _Sum, cost: Decimal | None) -> dict[str, Any]:
    return {"requests": sum_.requests, **_shown_tokens(sum_.prompt, sum_.output_tokens, cost)}


def _shown_tokens(prompt: Prompt, output_tokens: int, cost: Decimal | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": prompt.total,
        "completion_tokens": output_tokens,
        **prompt._asdict(),
        "output_tokens": output_tokens,
    }
    return shown if cost is None else shown | {"cost_usd": f"{cost:f}"}
