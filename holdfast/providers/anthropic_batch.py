"""Anthropic's message batches.

Source: Anthropic API reference, "Message Batches".
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from holdfast.providers.batch import (
    BatchLine,
    BatchPhase,
    BatchResult,
    BatchSearch,
    BatchState,
    check_lines,
    checked_id,
    read_reply,
    unprocessed,
    unreadable,
)
from holdfast.providers.batch_api import HttpBatches
from holdfast.providers.classify import classify
from holdfast.providers.endpoint import anthropic_endpoint
from holdfast.providers.http import HttpStream
from holdfast.providers.messages import MessagesReply
from holdfast.providers.messages_request import request_body
from holdfast.providers.pieces import count, mapping, text

MAX_LINES = 100_000
"""Most calls of one batch."""

_FAILED = ("errored", "canceled", "expired")


def batch_body(lines: Sequence[BatchLine]) -> dict[str, Any]:
    """The body of `POST /messages/batches`."""
    return {
        "requests": [{"custom_id": custom_id, "params": request_body(call, stream=False)} for custom_id, call in lines]
    }


def read_state(given: Mapping[str, Any]) -> BatchState:
    """A `message_batch` object."""
    counts = mapping(given.get("request_counts"))
    numbers = {name: count(counts.get(name)) or 0 for name in ("processing", "succeeded", *_FAILED)}
    return BatchState(
        id=text(given.get("id")),
        phase=BatchPhase.ENDED if given.get("processing_status") == "ended" else BatchPhase.RUNNING,
        total=sum(numbers.values()),
        succeeded=numbers["succeeded"],
        failed=sum(numbers[name] for name in _FAILED),
    )


def read_result(line: Mapping[str, Any]) -> tuple[str, BatchResult] | None:
    """A line of the results; `None` when it cannot be told whose it is."""
    custom_id, result = text(line.get("custom_id")), mapping(line.get("result"))
    if not custom_id:
        return None
    match result.get("type"):
        case "succeeded":
            return custom_id, read_reply(MessagesReply(custom_id), result.get("message"))
        case "expired" | "canceled" as how:
            return custom_id, unprocessed(custom_id, cancelled=how == "canceled")
        case "errored":
            error = result.get("error")
            parsed = error if isinstance(error, Mapping) else None
            return custom_id, classify(None, {}, parsed, now=datetime.now(UTC), model=custom_id, subject="Line")
    return custom_id, unreadable(custom_id)


def _made_at(given: Mapping[str, Any]) -> datetime | None:
    try:
        made = datetime.fromisoformat(text(given.get("created_at")))
    except ValueError:
        return None
    return made if made.tzinfo else made.replace(tzinfo=UTC)


class AnthropicBatches(HttpBatches):
    """Batches of messages.

    Args:
        base_url: The API's base, e.g. `https://api.anthropic.com/v1`; a missing `/v1` is added.
        api_key: Sent as `x-api-key`; `None` or empty for a server without keys.
        client: Shared by the process's providers, and then closed by whoever made it; without one, a client of its own.
        version: The API's version, `anthropic-version`.

    Raises:
        ConfigurationError: The address or the key cannot be used in an HTTP request.
    """

    def __init__(
        self,
        base_url: str = "https://api.anthropic.com/v1",
        api_key: SecretStr | str | None = None,
        client: HttpStream | None = None,
        *,
        version: str = "2023-06-01",
    ) -> None:
        super().__init__(anthropic_endpoint(base_url, api_key, client, version), "messages/batches")

    def _state(self, given: Mapping[str, Any]) -> BatchState:
        return read_state(given)

    async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:  # noqa: ARG002 - there is no place for it
        """See `BatchProvider.submit`."""
        check_lines(lines, MAX_LINES)
        made = await self._api.object("POST", self._batches, "to be made", body=batch_body(lines))
        return checked_id(text(made.get("id")))

    async def find(self, name: str, custom_ids: Collection[str], since: datetime) -> BatchSearch:  # noqa: ARG002 - as for `submit`
        """See `BatchProvider.find`; a batch tells whose lines it has only by its results."""
        undecided = False
        async with aclosing(self._api.pages(self._batches, "after_id", _made_at, since)) as batches:
            async for batch in batches:
                state = read_state(batch)
                if state.total != len(custom_ids):
                    continue
                if state.phase is BatchPhase.RUNNING:
                    undecided = True
                elif await self._is_of(state.id, custom_ids):
                    return BatchSearch(checked_id(state.id))
        return BatchSearch(undecided=undecided)

    async def _is_of(self, batch_id: str, custom_ids: Collection[str]) -> bool:
        async with aclosing(self.results(batch_id)) as results:
            async for custom_id, _ in results:
                return custom_id in custom_ids
        return False

    async def results(self, batch_id: str) -> AsyncGenerator[tuple[str, BatchResult], None]:
        """See `BatchProvider.results`."""
        # Not the `results_url` of the answer: the key goes to the configured address only.
        url = f"{self._address(batch_id)}/results"
        async with aclosing(self._api.lines(url, batch_id)) as lines:
            async for line in lines:
                if (result := read_result(line)) is not None:
                    yield result
